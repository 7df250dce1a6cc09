"""Payments in, predictions out; what the model refuses is put aside one by one, and the rest is scored.

A model that raises for a frame is asked again for its halves, down to the payments at fault: at most two tries a
payment. Those become dead letters only where the fault is theirs. Where the model scores none of a batch, neither
an ordinary payment nor its own stored example, the fault is the model's: ModelError, and the payments wait. So it is
with a value that no payment can cause, such as a label 2 or a probability of 1.7.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from include.errors import ModelError, ModelInputError, ModelOutputError
from include.models.description import Description
from include.models.frame import FrameBuilder, PaymentGroup
from include.models.load import LoadedModel
from include.models.refusals import MODEL_REFUSED, explain_refusal
from include.models.vetting import ROWS_TO_RESCORE, check_outputs, check_row_independence
from include.payments.columns import COLUMNS
from include.payments.refusal import Refusal

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd

log = logging.getLogger(__name__)

# Invented, and as ordinary as can be: what a model cannot score if it can score nothing.
_ORDINARY_PAYMENT = (
    "2024-06-03 14:05:09", 4000000000000002, "fraud_Kirlin and Sons", "personal_care", 21.5, "Ann", "Smith", "F",
    "1 Main Street", "Springfield", "IL", 62701, 39.8, -89.6, 114230, "Teacher, primary school", "1980-02-29",
    "00000000000000000000000000000000", 1717423509000, 39.9, -89.5, None,
)  # fmt: skip
_ORDINARY_VALUES: dict[str, object] = {"text": "a", "boolean": False, "datetime": "2024-06-03T14:05:09"}
_PROBE_PAYMENTS = 20
# A flood of culprits must not outlast the task: past so many tries, a slice of which the model raises for each of
# _PROBES payments is refused whole.
_MAX_TRIES = 5_000
_SMALL_SLICE = 16
# The characters of a model's error that are shown.
_MAX_ERROR_CHARACTERS = 300


@dataclass(frozen=True)
class ScoringResult:
    """One entry a payment, in order: `prediction` is -1 and `probability` NaN where `refusals` has the reason."""

    prediction: npt.NDArray[np.int8]
    probability: npt.NDArray[np.float64]
    refusals: dict[int, Refusal]


def score(model: LoadedModel, payments: Sequence[bytes], *, columns: Collection[str] = ()) -> ScoringResult:
    """Score payments that are a JSON object each; `columns` are those that some payment of the whole batch has.

    Raise ModelError where the fault is the model's: then nothing may be published of the batch.
    """
    try:
        return _Scorer(model, payments, columns).run()
    except ModelOutputError as error:
        raise ModelError(
            f"the model of run {model.run.run_id} cannot score: {error}. Choose another model, for instance with the "
            'run configuration {"model": "previous", "keep": true}. The payments wait'
        ) from error


@dataclass
class _Scorer:
    model: LoadedModel
    payments: Sequence[bytes]
    columns: Collection[str] = ()
    tries: int = 0
    scored: int = 0
    by_model: int = 0
    unexplained: int = 0
    raised: set[str] = field(default_factory=set)
    of_ordinary: str = ""
    specimen: pd.DataFrame | None = None
    works: bool | None = None

    def run(self) -> ScoringResult:
        builder = FrameBuilder(self.model.takes, strict=self.model.strict)
        frames = builder.build(self.payments)
        self.result = ScoringResult(
            np.full(len(self.payments), -1, dtype=np.int8), np.full(len(self.payments), np.nan), frames.refused
        )
        # All of them first, so that it is known whether the model scores anything before a culprit is looked for.
        tried = [self._try_whole(group) for group in frames.groups]
        failed = [(group, error) for group, error in tried if error is not None]
        if failed and not self.scored and not self._works() and not any(self._scores_any(group) for group, _ in failed):
            self._raise_unheard_columns(frames.groups)
            raise self._at_fault()
        for group, error in failed:
            self._sort_out(group, error, frames.groups)
        if self.unexplained and not self.scored:
            raise ModelOutputError(
                f"it returned neither label nor probability for any of {len(self.payments)} payments"
            )
        if self.by_model and not self.scored and not self._works():
            raise self._at_fault()
        if self.by_model:
            reasons = ", ".join(sorted(self.raised))
            log.warning("model run %s refused %d payments: %s", self.model.run.run_id, self.by_model, reasons)
        return self.result

    def _sort_out(self, group: PaymentGroup, error: Exception, groups: list[PaymentGroup]) -> None:
        """Refuses the culprits of a group that the model raised for, and scores the rest."""
        if not (group.missing and self._needs(group.missing)):
            self._bisect(group, 0, len(group.rows), error)
            return
        self._raise_unheard_columns(groups)
        for place in range(len(group.rows)):
            self._refuse(group, place, error)

    def _raise_unheard_columns(self, groups: list[PaymentGroup]) -> None:
        """A column that is none of the usual ones, and that all payments lack, is not the payments' fault."""
        names = [name for name in groups[0].missing if name not in COLUMNS and name not in self.columns]
        names = [name for name in names if all(name in group.missing for group in groups)]
        # Where any payment was scored without them, the model does not need them.
        if names and not self.scored and not self._can_score(self._ordinary):
            raise ModelInputError(
                f"the model of run {self.model.run.run_id} wants columns that no payment of this batch has: "
                f"{', '.join(names)}"
            )

    def _bisect(self, group: PaymentGroup, low: int, high: int, error: Exception) -> None:
        if high - low == 1:
            self._refuse(group, low, error)
            return
        if self.tries > _MAX_TRIES and not self._scores_any(group, low, high):
            for place in range(low, high):
                self._refuse(group, place, error)
            return
        middle = (low + high) // 2
        halves = [(start, end, self._try(group, start, end)) for start, end in ((low, middle), (middle, high))]
        if high - low <= _SMALL_SLICE and all(found is not None for _, _, found in halves):
            # Where culprits lie close together, halving on finds no innocents to save.
            halves = [(place, place + 1, self._try(group, place, place + 1)) for place in range(low, high)]
        for start, end, found in halves:
            if found is not None:
                self._bisect(group, start, end, found)

    def _try_whole(self, group: PaymentGroup) -> tuple[PaymentGroup, Exception | None]:
        """Score a group; return it as the model took it, or with what the model raised."""
        if not self.model.outputs_checked:
            # Before any of its answers is believed.
            self.model.outputs_checked = check_outputs(self.model, [group.frame.iloc[:1], self._ordinary()])
        error = self._try(group, 0, len(group.rows))
        if error is not None and group.untyped_nulls:
            group = group.with_nulls_as_numbers()
            error = self._try(group, 0, len(group.rows))
        return group, error

    def _try(self, group: PaymentGroup, low: int, high: int) -> Exception | None:
        """Scores a slice of a group; returns what the model raised instead."""
        self.tries += 1
        frame = group.frame if high - low == len(group.rows) else group.frame.iloc[low:high].reset_index(drop=True)
        try:
            scores = self.model.predict(frame)
        except (MemoryError, ModelOutputError):
            raise
        except Exception as error:
            self.raised.add(type(error).__name__)
            return error
        if self.model.rows_compared < ROWS_TO_RESCORE and len(frame) > 1:
            self.model.rows_compared += check_row_independence(self.model, frame, scores)
        rows = group.rows[low:high]
        self.result.prediction[rows] = scores.prediction
        if scores.probability is not None:
            self.result.probability[rows] = scores.probability
        given = scores.prediction >= 0
        self.scored += int(given.sum())
        if not given.all():
            for place in np.flatnonzero(~given):
                self._refuse(group, low + int(place), None)
        elif self.specimen is None:
            self.specimen = frame.iloc[:1]
        return None

    def _refuse(self, group: PaymentGroup, place: int, error: Exception | None) -> None:
        self.by_model += 1
        row = int(group.rows[place])
        self.result.probability[row] = np.nan
        refusal = explain_refusal(group, place, self.model.takes, self.specimen, error)
        self.result.refusals[row] = refusal
        # No prediction, and nothing that the payment holds or lacks explains it.
        self.unexplained += error is None and refusal.code == MODEL_REFUSED

    def _needs(self, names: list[str]) -> bool:
        """Whether the model fails without these columns where it does not fail with them."""
        whole = self.specimen if self.specimen is not None else self._ordinary()
        if whole is None:
            return False
        try:
            self.model.predict(whole.drop(columns=names, errors="ignore"))
        except Exception:
            return True
        return False

    def _scores_any(self, group: PaymentGroup, low: int = 0, high: int | None = None) -> bool:
        end = len(group.rows) if high is None else high
        places = sorted({int(place) for place in np.linspace(low, end - 1, _PROBE_PAYMENTS)})
        return any(self._try(group, place, place + 1) is None for place in places)

    def _works(self) -> bool:
        """Whether the model can score anything at all."""
        if self.works is None:
            self.works = any(self._can_score(get) for get in (self._ordinary, self.model.input_example))
        return self.works

    def _can_score(self, get: object) -> bool:
        try:
            frame = get()  # type: ignore[operator]
            return frame is not None and bool((self.model.predict(frame).prediction >= 0).any())
        except Exception as error:
            log.debug("not scored: %s", type(error).__name__)
            if get == self._ordinary:
                # The payment is made up, so the model's words quote nobody's.
                self.of_ordinary = " ".join(f"{type(error).__name__}: {error}".split())[:_MAX_ERROR_CHARACTERS]
            return False

    def _ordinary(self) -> pd.DataFrame | None:
        payment: dict[str, object] = dict(zip(COLUMNS, _ORDINARY_PAYMENT, strict=True))
        for column in self.model.takes:
            if column.name in self.columns:
                payment.setdefault(column.name, _ORDINARY_VALUES.get(column.kind, 1.0))
        groups = FrameBuilder(self.model.takes, strict=self.model.strict).build([msgspec.json.encode(payment)]).groups
        return groups[0].frame if groups else None

    def _at_fault(self) -> ModelError:
        errors = ", ".join(sorted(self.raised)[:3]) or "no prediction"
        description = Description.of(self.model.folder)
        if description.is_of_other_sklearn:
            errors += f"; {description.versions}"
        said = f" ({self.of_ordinary})" if self.of_ordinary else ""
        return ModelError(
            f"the model of run {self.model.run.run_id} scored none of {len(self.payments)} payments ({errors}), nor a "
            f"made-up ordinary payment{said}: the fault is the model's, choose another. The payments wait"
        )
