"""The bench's own machinery: turns, ratios, targets, pictures, and that nothing is left behind."""
