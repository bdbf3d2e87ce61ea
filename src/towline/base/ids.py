"""Short identifiers that people can read aloud. Randomness is an argument: this floor draws none."""

from __future__ import annotations

# Crockford's base 32: no I, L, O, U, so nothing is mistaken for 1, 0 or V.
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_VALUE = {char: index for index, char in enumerate(ALPHABET)} | {"o": 0, "i": 1, "l": 1}


def encode(data: bytes) -> str:
    """Bytes as base 32, most significant bit first, without padding."""
    bits = len(data) * 8
    digits = -(-bits // 5)
    number = int.from_bytes(data) << (digits * 5 - bits)
    return "".join([ALPHABET[(number >> shift) & 31] for shift in range((digits - 1) * 5, -1, -5)])


def decode(text: str) -> bytes:
    """The inverse of `encode`; forgives case, dashes, spaces and the look-alikes. Raises ValueError."""
    number = digits = 0
    for char in text.lower():
        if char in "- ":
            continue
        if char not in _VALUE:
            raise ValueError(f"{char!r} is no base 32 digit")
        number = number << 5 | _VALUE[char]
        digits += 1
    spare = digits * 5 % 8
    if number & ((1 << spare) - 1):
        raise ValueError("the last digit has bits that belong to nothing")
    return (number >> spare).to_bytes(digits * 5 // 8)


def short_id(random: bytes) -> str:
    """An identifier from at least 5 random bytes: `7h3k-9mq2` (40 bits); longer input, longer id."""
    text = encode(random)
    return "-".join([text[start : start + 4] for start in range(0, len(text), 4)])
