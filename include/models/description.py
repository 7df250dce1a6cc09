"""Read what a model's small files, above all its MLmodel, say about it before it is loaded."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

from include.errors import ModelError, ModelInputError
from include.models.column import Column, kind_of_mlflow_type
from include.payments.columns import COLUMNS


@dataclass(frozen=True)
class Description:
    """What a model's files say about it.

    `inputs` is None if the signature names no columns. `threshold` is a probability between 0 and 1, exclusive, or
    None. `serialization`, `file` and `code` (a folder of Python files that the model brings along) are those of the
    flavor sklearn.
    """

    flavors: tuple[str, ...]
    inputs: tuple[Column, ...] | None
    threshold: float | None
    trained_with: str | None
    serialization: str | None = None
    code: str | None = None
    file: str | None = None

    @classmethod
    def from_folder(cls, folder: Path) -> Description:
        """Return the description of the model whose files are in `folder`. Raise ModelError as `parse` does.

        The requirements of a model without the flavor sklearn name the scikit-learn version that trained it.
        """
        description = cls.parse((folder / "MLmodel").read_text())
        file = folder / "requirements.txt"
        if description.trained_with is None and file.is_file():
            pinned = re.search(r"(?m)^scikit-learn==([^\s;]+)", file.read_text())
            return replace(description, trained_with=pinned[1] if pinned else None)
        return description

    @property
    def versions(self) -> str:
        """Return a text with the scikit-learn version that trained the model and the one that is installed."""
        here = metadata.version("scikit-learn")
        return f"it was trained with scikit-learn {self.trained_with or 'of an unknown version'}, here is {here}"

    @property
    def is_of_other_sklearn(self) -> bool:
        """Return whether another scikit-learn version than the installed one trained the model."""
        return self.trained_with is not None and self.trained_with != metadata.version("scikit-learn")

    @classmethod
    def parse(cls, text: str) -> Description:
        """Return the description in the text of an MLmodel file. Raise ModelError if MLflow did not write it."""
        import yaml

        try:
            # The loader in Python takes a tenth of a second.
            content = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506  # both are safe
            flavors = content["flavors"]
            signature = content.get("signature") or {}
            columns = json.loads(signature.get("inputs") or "null")
            threshold = (content.get("metadata") or {}).get("threshold")
            sklearn = flavors.get("sklearn") or {}
            trained_with, serialization, code, file = (
                sklearn.get(key) for key in ("sklearn_version", "serialization_format", "code", "pickled_model")
            )
            inputs = _input_columns(columns)
        except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise ModelError(
                f"the model's MLmodel file cannot be read ({type(error).__name__}): it is not one that MLflow writes. "
                "Log the model again, or choose another"
            ) from error
        limit = parse_threshold(threshold, "the model's metadata")
        return cls(tuple(flavors), inputs, limit, trained_with, serialization, code, file)

    def check_columns(self, payment_columns: Collection[str] | None) -> None:
        """Raise ModelInputError for a required column that none of the payments has.

        `payment_columns` are the columns of some payments; nothing is checked if they are unknown. The columns that a
        scikit-learn model takes are known only once it is loaded, because its signature may name far more.
        """
        if self.inputs is None or "sklearn" in self.flavors or not payment_columns:
            return
        known = {*COLUMNS, *payment_columns}
        unknown = [column.name for column in self.inputs if column.required and column.name not in known]
        if unknown:
            # The error counts the other columns: the producer chose their names, which may be personal data.
            others = len(known) - len(COLUMNS)
            raise ModelInputError(
                f"the model needs columns that payments do not have: {', '.join(unknown)}; payments have: "
                f"{', '.join(COLUMNS)}" + (f" and {others:,} other{'s' * (others > 1)}" if others else "")
            )


def parse_threshold(value: object, source: str) -> float | None:
    """Return the probability from which a payment counts as fraud, None if the model's own predictions decide.

    Raise ModelError, which names `source`, unless `value` is None or a number between 0 and 1, exclusive. Returns None
    for 0.5.
    """
    if value is None:
        return None
    try:
        threshold = float(str(value))
    except ValueError:
        threshold = float("nan")
    if not 0 < threshold < 1:
        raise ModelError(f"threshold {value!r} in {source}: a probability between 0 and 1 was expected")
    return None if threshold == 0.5 else threshold


def _input_columns(columns: object) -> tuple[Column, ...] | None:
    if not isinstance(columns, list):
        return None
    inputs = []
    for column in columns:
        name = column.get("name")
        if not isinstance(name, str):
            return None
        inputs.append(Column(name, kind_of_mlflow_type(str(column["type"])), bool(column.get("required", True))))
    return tuple(inputs) or None
