"""Score payments, and set aside one by one those that the model refuses.

If a model raises an error for a frame, it scores the frame's halves, down to the payments that cause the error: at most
two attempts per payment. These payments become dead letters only if the fault is theirs. If the model scores no payment
of a batch, nor an ordinary payment, nor its own stored example, the fault is the model's: ModelError is raised, and the
payments wait. The same holds for an output that no payment can cause, such as a label 2 or a probability of 1.7.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
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

# A made-up payment that any working model can score, as far as that is possible.
_ORDINARY_PAYMENT = (
    "2024-06-03 14:05:09", 4000000000000002, "fraud_Kirlin and Sons", "personal_care", 21.5, "Ann", "Smith", "F",
    "1 Main Street", "Springfield", "IL", 62701, 39.8, -89.6, 114230, "Teacher, primary school", "1980-02-29",
    "00000000000000000000000000000000", 1717423509000, 39.9, -89.5, None,
)  # fmt: skip
_ORDINARY_VALUES: dict[str, object] = {"text": "a", "boolean": False, "datetime": "2024-06-03T14:05:09"}
# Many refused payments must not exceed the task's time. After _MAX_TRIES attempts, a slice is refused as a whole if the
# model refuses each of _PROBE_PAYMENTS payments in it.
_MAX_TRIES = 5_000
_PROBE_PAYMENTS = 20
# If both halves of such a slice fail, its payments are scored one by one.
_SMALL_SLICE = 16
_MAX_ERROR_CHARACTERS = 300


@dataclass(frozen=True)
class ScoringResult:
    """Hold one entry per payment, in order.

    `prediction` is 0 or 1, and `probability` is in [0, 1], or NaN if the model has none. For a refused payment they are
    -1 and NaN, and `refusals` has the reason by the payment's index.
    """

    prediction: npt.NDArray[np.int8]
    probability: npt.NDArray[np.float64]
    refusals: dict[int, Refusal]


def score(model: LoadedModel, payments: Sequence[bytes], *, columns: Collection[str] = ()) -> ScoringResult:
    """Score payments, each a JSON object. `columns` are the fields that payments of the whole batch have.

    Raise ModelError if the fault is the model's: then nothing of the batch may be published.
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
    refused_by_model: int = 0
    unexplained: int = 0
    error_types: set[str] = field(default_factory=set)
    error_for_ordinary: str = ""
    scored_frame: pd.DataFrame | None = None
    works: bool | None = None

    def run(self) -> ScoringResult:
        builder = FrameBuilder(self.model.input_columns, strict=self.model.strict)
        frames = builder.build(self.payments)
        self.result = ScoringResult(
            np.full(len(self.payments), -1, dtype=np.int8), np.full(len(self.payments), np.nan), frames.refusals
        )
        # All groups first, to know whether the model scores anything before the search for refused payments begins.
        attempts = [self._try_group(group) for group in frames.groups]
        failed = [(group, error) for group, error in attempts if error is not None]
        scores_nothing = bool(failed) and not self.scored and not self._model_works()
        if scores_nothing and not any(self._scores_any(group) for group, _ in failed):
            self._raise_missing_columns(frames.groups)
            raise self._model_fault()
        for group, error in failed:
            self._find_refused(group, error, frames.groups)
        if self.unexplained and not self.scored:
            raise ModelOutputError(
                f"it returned neither label nor probability for any of {len(self.payments)} payments"
            )
        if self.refused_by_model and not self.scored and not self._model_works():
            raise self._model_fault()
        if self.refused_by_model:
            log.warning(
                "model run %s refused %d payments: %s",
                self.model.run.run_id,
                self.refused_by_model,
                ", ".join(sorted(self.error_types)) or "no prediction",
            )
        return self.result

    def _find_refused(self, group: PaymentGroup, error: Exception, groups: list[PaymentGroup]) -> None:
        """Refuse those payments of a failed group that the model cannot score, and score the others."""
        if not (group.missing and self._needs(group.missing)):
            self._bisect(group, 0, len(group.rows), error)
            return
        self._raise_missing_columns(groups)
        for position in range(len(group.rows)):
            self._refuse(group, position, error)

    def _raise_missing_columns(self, groups: list[PaymentGroup]) -> None:
        """Raise ModelInputError if the model needs a column beyond COLUMNS that no payment of the batch has."""
        names = [name for name in groups[0].missing if name not in COLUMNS and name not in self.columns]
        names = [name for name in names if all(name in group.missing for group in groups)]
        # If any payment was scored without them, the model does not need them.
        if names and not self.scored and not self._can_score(self._ordinary_frame):
            raise ModelInputError(
                f"the model of run {self.model.run.run_id} needs columns that no payment of this batch has: "
                f"{', '.join(names)}. Send them in the payments, or choose another model"
            )

    def _bisect(self, group: PaymentGroup, start: int, end: int, error: Exception) -> None:
        """Refuse or score the slice [start, end) of a group, for which the model raised `error`."""
        if end - start == 1:
            self._refuse(group, start, error)
            return
        if self.tries > _MAX_TRIES and not self._scores_any(group, start, end):
            for position in range(start, end):
                self._refuse(group, position, error)
            return
        middle = (start + end) // 2
        slices = [(low, high, self._try(group, low, high)) for low, high in ((start, middle), (middle, end))]
        if end - start <= _SMALL_SLICE and all(failure is not None for _, _, failure in slices):
            # Refused payments lie close together here, so further halving would find few that can be scored.
            slices = [(low, low + 1, self._try(group, low, low + 1)) for low in range(start, end)]
        for low, high, failure in slices:
            if failure is not None:
                self._bisect(group, low, high, failure)

    def _try_group(self, group: PaymentGroup) -> tuple[PaymentGroup, Exception | None]:
        """Score a group. Return it with the types that the model accepted, or with the model's error."""
        if not self.model.outputs_checked:
            # Before any of the model's scores is used.
            self.model.outputs_checked = check_outputs(self.model, [group.frame.iloc[:1], self._ordinary_frame()])
        error = self._try(group, 0, len(group.rows))
        if error is not None and group.untyped_nulls:
            group = group.with_nulls_as_numbers()
            error = self._try(group, 0, len(group.rows))
        return group, error

    def _try(self, group: PaymentGroup, start: int, end: int) -> Exception | None:
        """Score the slice [start, end) of a group. Return the model's error if it raises one."""
        self.tries += 1
        frame = group.frame if end - start == len(group.rows) else group.frame.iloc[start:end].reset_index(drop=True)
        try:
            scores = self.model.predict(frame)
        except (MemoryError, ModelOutputError):
            raise
        except Exception as error:
            self.error_types.add(type(error).__name__)
            return error
        if self.model.rows_compared < ROWS_TO_RESCORE and len(frame) > 1:
            self.model.rows_compared += check_row_independence(self.model, frame, scores)
        rows = group.rows[start:end]
        self.result.prediction[rows] = scores.prediction
        if scores.probability is not None:
            self.result.probability[rows] = scores.probability
        has_prediction = scores.prediction >= 0
        self.scored += int(has_prediction.sum())
        if not has_prediction.all():
            for position in np.flatnonzero(~has_prediction):
                self._refuse(group, start + int(position), None)
        elif self.scored_frame is None:
            self.scored_frame = frame.iloc[:1]
        return None

    def _refuse(self, group: PaymentGroup, position: int, error: Exception | None) -> None:
        self.refused_by_model += 1
        row = int(group.rows[position])
        self.result.probability[row] = np.nan
        refusal = explain_refusal(group, position, self.model.input_columns, self.scored_frame, error)
        self.result.refusals[row] = refusal
        # The model returned no prediction, and nothing in the payment explains it.
        self.unexplained += error is None and refusal.code == MODEL_REFUSED

    def _needs(self, names: list[str]) -> bool:
        """Return whether the model scores a frame with these columns, and raises an error without them."""
        frame = self.scored_frame if self.scored_frame is not None else self._ordinary_frame()
        if frame is None:
            return False
        try:
            self.model.predict(frame.drop(columns=names, errors="ignore"))
        except Exception:
            return True
        return False

    def _scores_any(self, group: PaymentGroup, start: int = 0, end: int | None = None) -> bool:
        """Return whether the model scores one of 20 payments that are evenly spread over the slice [start, end)."""
        last = (len(group.rows) if end is None else end) - 1
        positions = sorted({int(position) for position in np.linspace(start, last, _PROBE_PAYMENTS)})
        return any(self._try(group, position, position + 1) is None for position in positions)

    def _model_works(self) -> bool:
        """Return whether the model scores the ordinary payment or its own stored example."""
        if self.works is None:
            self.works = any(self._can_score(make) for make in (self._ordinary_frame, self.model.input_example))
        return self.works

    def _can_score(self, make_frame: Callable[[], pd.DataFrame | None]) -> bool:
        try:
            frame = make_frame()
            return frame is not None and bool((self.model.predict(frame).prediction >= 0).any())
        except Exception as error:
            log.debug("not scored: %s", type(error).__name__)
            if make_frame == self._ordinary_frame:
                # This payment is made up, so the model's error text contains no personal data.
                self.error_for_ordinary = " ".join(f"{type(error).__name__}: {error}".split())[:_MAX_ERROR_CHARACTERS]
            return False

    def _ordinary_frame(self) -> pd.DataFrame | None:
        """Return a frame of the ordinary payment, with a value in each further column that the batch has."""
        payment: dict[str, object] = dict(zip(COLUMNS, _ORDINARY_PAYMENT, strict=True))
        for column in self.model.input_columns:
            if column.name in self.columns:
                payment.setdefault(column.name, _ORDINARY_VALUES.get(column.kind, 1.0))
        groups = (
            FrameBuilder(self.model.input_columns, strict=self.model.strict)
            .build([msgspec.json.encode(payment)])
            .groups
        )
        return groups[0].frame if groups else None

    def _model_fault(self) -> ModelError:
        """Return the error for a model that scores nothing."""
        errors = ", ".join(sorted(self.error_types)[:3]) or "no prediction"
        description = Description.from_folder(self.model.folder)
        if description.is_of_other_sklearn:
            errors += f"; {description.versions}"
        detail = f" ({self.error_for_ordinary})" if self.error_for_ordinary else ""
        return ModelError(
            f"the model of run {self.model.run.run_id} scored none of {len(self.payments)} payments ({errors}), nor a "
            f"made-up ordinary payment{detail}: the fault is the model's, choose another. The payments wait"
        )
