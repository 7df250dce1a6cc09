"""Model genuine and fraudulent spending by category, hour and amount, after the public data set on card fraud."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from faker import Faker

MERCHANTS_PER_CATEGORY = 50

# The share of payments in percent, and the median and sigma of log-normal amounts: for genuine payments, then frauds.
_Spending = tuple[float, float, float]
CATEGORIES: dict[str, tuple[_Spending, _Spending]] = {
    "gas_transport": ((10.1, 62, 0.24), (8, 11, 0.30)),
    "grocery_pos": ((9.5, 90, 0.32), (23, 320, 0.15)),
    "home": ((9.5, 42, 0.56), (3, 260, 0.20)),
    "shopping_pos": ((9.0, 34, 0.68), (11, 880, 0.25)),
    "kids_pets": ((8.7, 42, 0.56), (3, 17, 0.30)),
    "shopping_net": ((7.5, 38, 0.68), (23, 980, 0.25)),
    "entertainment": ((7.2, 46, 0.56), (3, 500, 0.25)),
    "food_dining": ((7.0, 40, 0.48), (2, 125, 0.20)),
    "personal_care": ((7.0, 30, 0.60), (3, 26, 0.30)),
    "health_fitness": ((6.6, 38, 0.56), (2, 19, 0.30)),
    "misc_pos": ((6.1, 32, 0.72), (3, 230, 0.45)),
    "misc_net": ((4.9, 40, 0.68), (12, 800, 0.25)),
    "grocery_net": ((3.5, 50, 0.32), (2, 12, 0.30)),
    "travel": ((3.1, 55, 0.80), (2, 350, 0.70)),
}

# Weights of the hours of the day (UTC). Most frauds happen at night.
GENUINE_HOURS = np.array(
    [3, 2, 1.5, 1.2, 1.2, 1.5, 2.5, 3.5, 4.5, 5, 5, 5.5, 6, 6, 6, 5.5, 5.5, 6, 6.5, 6.5, 6, 5, 4, 3.5]
)
FRAUD_HOURS = np.array(
    [13, 13, 12, 9, 2, 2, 1.5, 1.5, 1.5, 2, 2, 2, 2.5, 2.5, 2.5, 2.5, 2.5, 2.5, 2.5, 2.5, 3, 4, 13, 13]
)


@dataclass(frozen=True)
class Habits:
    """Distributions of categories and amounts, of genuine payments or of frauds.

    The arrays have one element a category, in the order of CATEGORIES.
    """

    shares: np.ndarray
    medians: np.ndarray
    sigmas: np.ndarray

    @classmethod
    def from_table(cls, kind: int) -> Habits:
        """Return the habits in CATEGORIES: 0 of genuine payments, 1 of frauds."""
        shares, medians, sigmas = np.array([row[kind] for row in CATEGORIES.values()], dtype=float).T
        return cls(shares / shares.sum(), medians, sigmas)

    def categories(self, count: int, random: np.random.Generator) -> np.ndarray:
        """Draw `count` categories, as indices into CATEGORIES."""
        categories: np.ndarray = random.choice(len(self.shares), count, p=self.shares)
        return categories

    def amounts(self, categories: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Draw an amount for each category."""
        amounts: np.ndarray = self.medians[categories] * np.exp(
            self.sigmas[categories] * random.standard_normal(len(categories))
        )
        return amounts


GENUINE = Habits.from_table(0)
FRAUD = Habits.from_table(1)


def make_merchants(faker: Faker) -> np.ndarray:
    """Return the names of MERCHANTS_PER_CATEGORY merchants for each category in turn.

    Every name has the prefix `fraud_`, as in the public data set.
    """
    return np.array([f"fraud_{faker.company()}" for _ in range(len(CATEGORIES) * MERCHANTS_PER_CATEGORY)], dtype=object)
