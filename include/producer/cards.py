"""Make the simulator's cards, each with a cardholder who lives in the United States."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

import numpy as np
from faker import Faker

# All lengths of card numbers, with 19 digits above 2**53, which a float cannot hold. Cards get these types in turn.
CARD_TYPES = (
    "visa16", "mastercard", "amex", "visa16", "discover", "visa19", "mastercard", "visa13",
    "visa16", "jcb16", "mastercard", "diners", "visa19", "amex", "jcb15", "visa16",
)  # fmt: skip

# By state: latitude and longitude of its centre, inhabitants in millions.
STATES: dict[str, tuple[float, float, float]] = {
    "AL": (32.8, -86.8, 5.1), "AZ": (34.2, -111.6, 7.4), "AR": (34.9, -92.4, 3.1), "CA": (36.5, -119.5, 39.0),
    "CO": (39.0, -105.5, 5.9), "CT": (41.6, -72.7, 3.6), "DE": (39.0, -75.5, 1.0), "FL": (28.3, -82.0, 22.6),
    "GA": (32.7, -83.4, 11.0), "ID": (43.9, -114.6, 2.0), "IL": (40.0, -89.2, 12.5), "IN": (39.9, -86.3, 6.9),
    "IA": (42.0, -93.5, 3.2), "KS": (38.5, -98.4, 2.9), "KY": (37.5, -85.3, 4.5), "LA": (31.0, -92.0, 4.6),
    "ME": (45.3, -69.2, 1.4), "MD": (39.1, -76.8, 6.2), "MA": (42.2, -71.8, 7.0), "MI": (43.8, -84.8, 10.0),
    "MN": (46.0, -94.5, 5.7), "MS": (32.7, -89.7, 2.9), "MO": (38.4, -92.5, 6.2), "MT": (47.0, -109.6, 1.1),
    "NE": (41.5, -99.8, 2.0), "NV": (39.0, -116.9, 3.2), "NH": (43.7, -71.6, 1.4), "NJ": (40.2, -74.6, 9.3),
    "NM": (34.4, -106.1, 2.1), "NY": (42.6, -75.5, 19.6), "NC": (35.5, -79.3, 10.8), "ND": (47.4, -100.3, 0.8),
    "OH": (40.3, -82.8, 11.8), "OK": (35.5, -97.4, 4.1), "OR": (44.0, -120.5, 4.2), "PA": (40.9, -77.8, 13.0),
    "RI": (41.7, -71.5, 1.1), "SC": (33.9, -80.9, 5.4), "SD": (44.4, -100.2, 0.9), "TN": (35.8, -86.3, 7.1),
    "TX": (31.5, -99.0, 30.5), "UT": (39.3, -111.7, 3.4), "VT": (44.0, -72.7, 0.6), "VA": (37.5, -78.8, 8.7),
    "WA": (47.4, -120.3, 7.8), "WV": (38.6, -80.7, 1.8), "WI": (44.5, -89.8, 5.9), "WY": (43.0, -107.5, 0.6),
}  # fmt: skip


@dataclass(frozen=True)
class Cards:
    """Arrays with one element a card. `columns` has the columns of a payment that depend on the card only."""

    columns: dict[str, np.ndarray]
    lat: np.ndarray
    long: np.ndarray
    activity: np.ndarray
    """The share of all genuine payments that are made with the card."""
    spending: np.ndarray
    """The factor of the cardholder's amounts."""


def make_cards(count: int, faker: Faker, random: np.random.Generator) -> Cards:
    """Return `count` cards. The same seeds of `faker` and `random` give the same cards."""
    names = list(STATES)
    inhabitants = np.array([STATES[name][2] for name in names])
    states = [names[i] for i in random.choice(len(names), count, p=inhabitants / inhabitants.sum())]
    lat = np.round([STATES[state][0] for state in states] + random.normal(0, 0.6, count), 4)
    long = np.round([STATES[state][1] for state in states] + random.normal(0, 0.6, count), 4)
    genders = ["F" if draw else "M" for draw in random.random(count) < 0.52]
    ages = np.clip(random.gamma(9, 5.3, count), 16, 95)
    # From a fixed day, so that the same seed gives the same people next year.
    births = [datetime.date(2025, 1, 1) - datetime.timedelta(days=int(age * 365.25)) for age in ages]
    columns: dict[str, list[object]] = {
        "cc_num": [*_card_numbers(count, faker)],
        "first": [faker.first_name_female() if gender == "F" else faker.first_name_male() for gender in genders],
        "last": [faker.last_name() for _ in range(count)],
        "gender": [*genders],
        "street": [faker.street_address() for _ in range(count)],
        "city": [faker.city() for _ in range(count)],
        "state": [*states],
        "zip": [int(faker.zipcode_in_state(state)) for state in states],
        "lat": lat.tolist(),
        "long": long.tolist(),
        "city_pop": np.exp(random.normal(8.6, 2.1, count)).astype(int).clip(60, 3_000_000).tolist(),
        "job": [faker.job() for _ in range(count)],
        "dob": [birth.isoformat() for birth in births],
    }
    activity = random.gamma(2, 1, count) + 0.05
    return Cards(
        columns={name: np.array(values, dtype=object) for name, values in columns.items()},
        lat=lat,
        long=long,
        activity=activity / activity.sum(),
        spending=np.exp(random.normal(0, 0.2, count)),
    )


def _card_numbers(count: int, faker: Faker) -> list[int]:
    seen: dict[int, None] = {}
    while len(seen) < count:
        seen[int(faker.credit_card_number(CARD_TYPES[len(seen) % len(CARD_TYPES)]))] = None
    return list(seen)
