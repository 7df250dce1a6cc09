"""Card numbers as people may see them: the first six digits and the last four."""

from __future__ import annotations

# A card number has at least 13 digits. Of anything shorter, six and four would leave next to nothing hidden.
CARD_DIGITS = 13


def mask_card(text: str) -> str:
    """`4556 1234 5678 9012` becomes `455612******9012`.

    Shorter runs of digits show at most their last four (a third of them); what is no plain number, a float such as
    `4.2e18` among them, shows nothing, not even its length.
    """
    digits = text.strip().replace(" ", "").replace("-", "")
    if not (digits.isascii() and digits.isdigit()):
        return "****" if text.strip() else ""
    if len(digits) >= CARD_DIGITS:
        return digits[:6] + "*" * (len(digits) - 10) + digits[-4:]
    shown = min(4, len(digits) // 3)
    return "*" * (len(digits) - shown) + digits[len(digits) - shown :]
