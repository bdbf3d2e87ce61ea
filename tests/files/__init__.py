"""The file service, disk half: real folders, real descriptors, real kills."""
