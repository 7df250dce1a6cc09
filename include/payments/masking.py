"""Mask card numbers for people: only the first six and the last four digits are shown."""

from __future__ import annotations

# A card number has at least 13 digits. Of a shorter one, ten shown digits would hide almost nothing.
CARD_DIGITS = 13


def mask_card(text: str) -> str:
    """Return `455612******9012` for `4556 1234 5678 9012`.

    A shorter number shows its last third, at most four digits. A text that is not a number of digits, such as `4.2e18`,
    becomes `****`, whatever its length; an empty text stays empty.
    """
    digits = text.strip().replace(" ", "").replace("-", "")
    if not (digits.isascii() and digits.isdigit()):
        return "****" if text.strip() else ""
    if len(digits) >= CARD_DIGITS:
        return digits[:6] + "*" * (len(digits) - 10) + digits[-4:]
    shown = min(4, len(digits) // 3)
    return "*" * (len(digits) - shown) + digits[len(digits) - shown :]
