"""Masking of card numbers."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from include.payments.masking import mask_card


@pytest.mark.parametrize(
    ("card", "shown"),
    [
        ("4556123412349012345", "455612*********2345"),
        ("377895991033232", "377895*****3232"),
        ("4556 1234 1234 9012", "455612******9012"),
        ("4556-1234-1234-9012", "455612******9012"),
        ("1234567890123", "123456***0123"),
        # Too short for a card number: ten shown digits would be nearly all.
        ("123456789012", "********9012"),
        ("60416207185", "********185"),
        ("12345", "****5"),
        ("12", "**"),
        ("1", "*"),
        # Not a number of digits: nothing is shown.
        ("4.2e18", "****"),
        ("4556123412349012.0", "****"),
        ("-4556123412349012", "455612******9012"),
        ("4556x23412349012", "****"),
        ("card 4556123412349012", "****"),
        ("\u0664\u0665\u0665\u0666\u0661\u0662\u0663\u0664\u0661\u0662\u0663\u0664\u0669", "****"),
        ("null", "****"),
        ("", ""),
        ("  ", ""),
    ],
)
def test_at_most_first_six_and_last_four_are_shown(card: str, shown: str) -> None:
    assert mask_card(card) == shown


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(max_size=40) | st.from_regex(r"\d{1,24}", fullmatch=True))
def test_never_shows_more_than_ten_digits_or_all_of_them(card: str) -> None:
    shown = mask_card(card)
    digits = [character for character in shown if character.isdigit()]
    assert len(digits) <= 10
    assert len(digits) < max(1, len([character for character in card if character.isdigit()]))
    assert set(shown) <= set("0123456789*")
