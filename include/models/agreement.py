"""Check that a model's labels agree with its probabilities of fraud."""

from __future__ import annotations

from typing import TYPE_CHECKING

from include.errors import ModelOutputError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# With fewer payments of one label their mean proves little: a segment of payments may have a threshold of its own.
_MIN_PAYMENTS_PER_LABEL = 10


class Agreement:
    """Compare the mean probability of payments labelled 0 with that of payments labelled 1, over all calls of `add`."""

    def __init__(self) -> None:
        self._sums, self._counts = [0.0, 0.0], [0, 0]

    @property
    def count(self) -> int:
        """Return the number of payments that were added with a probability."""
        return sum(self._counts)

    def add(self, labels: npt.NDArray[np.int8], probabilities: npt.NDArray[np.float64]) -> None:
        """Add payments by their labels (0 or 1) and probabilities of fraud, both of shape (payments,); skip NaN."""
        for label in (0, 1):
            values = probabilities[(labels == label) & (probabilities == probabilities)]
            self._sums[label] += float(values.sum())
            self._counts[label] += len(values)

    def check(self, outputs: str) -> None:
        """Raise ModelOutputError if payments labelled 0 have the higher mean probability of fraud.

        The check passes while fewer than 10 payments of either label were added. `outputs` names the two outputs in
        the error.
        """
        if min(self._counts) < _MIN_PAYMENTS_PER_LABEL:
            return
        genuine, fraud = (total / count for total, count in zip(self._sums, self._counts, strict=True))
        if genuine > fraud:
            raise ModelOutputError(
                f"{outputs} contradict each other: payments labelled 0 have a mean probability of fraud of "
                f"{genuine:.2g}, those labelled 1 of {fraud:.2g}"
            )
