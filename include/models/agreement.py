"""Whether a model's labels and its probabilities of fraud mean the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from include.errors import ModelOutputError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# Payments of each label before the check applies: a segment of payments may have a threshold of its own.
_ENOUGH = 10


class Agreement:
    """Compares the mean probability of payments labelled 0 with that of payments labelled 1, over all calls."""

    def __init__(self) -> None:
        self._sums, self._counts = [0.0, 0.0], [0, 0]

    @property
    def count(self) -> int:
        """The number of payments that were compared."""
        return sum(self._counts)

    def add(self, label: npt.NDArray[np.int8], probability: npt.NDArray[np.float64]) -> None:
        for value in (0, 1):
            chosen = probability[(label == value) & (probability == probability)]
            self._sums[value] += float(chosen.sum())
            self._counts[value] += len(chosen)

    def check(self, what: str) -> None:
        """Raise ModelOutputError if payments labelled genuine have the higher probability of fraud."""
        if min(self._counts) < _ENOUGH:
            return
        genuine, fraud = (total / count for total, count in zip(self._sums, self._counts, strict=True))
        if genuine > fraud:
            raise ModelOutputError(
                f"{what} contradict each other: payments labelled 0 have a mean probability of fraud of {genuine:.2g}, "
                f"those labelled 1 of {fraud:.2g}"
            )
