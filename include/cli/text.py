"""Text that comes from a shell, and that goes to a terminal."""

from __future__ import annotations


def plain(text: str) -> str:
    """A shell may pass bytes that are no text."""
    return text.encode(errors="replace").decode()


def shown(text: str) -> str:
    """What a payment holds must not steer a terminal."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)
