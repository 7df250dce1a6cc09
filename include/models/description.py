"""What a model's small files say of it before it is loaded: its MLmodel."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

from include.errors import ModelError, ModelInputError
from include.models.column import Column, kind_of_mlflow
from include.payments.columns import COLUMNS


@dataclass(frozen=True)
class Description:
    """`inputs` is None where the signature names no columns; `serialization`, `file` and `code` (a folder of Python
    files that travel with it) are those of the flavor sklearn."""

    flavors: tuple[str, ...]
    inputs: tuple[Column, ...] | None
    threshold: float | None
    trained_with: str | None
    serialization: str | None = None
    code: str | None = None
    file: str | None = None

    @classmethod
    def of(cls, folder: Path) -> Description:
        """Of a model's files. Without the flavor sklearn, its requirements name the scikit-learn that trained it."""
        description = cls.parse((folder / "MLmodel").read_text())
        file = folder / "requirements.txt"
        if description.trained_with is None and file.is_file():
            pinned = re.search(r"(?m)^scikit-learn==([^\s;]+)", file.read_text())
            return replace(description, trained_with=pinned[1] if pinned else None)
        return description

    @property
    def versions(self) -> str:
        """Name the scikit-learn that trained the model and the one here."""
        here = metadata.version("scikit-learn")
        return f"it was trained with scikit-learn {self.trained_with or 'of an unknown version'}, here is {here}"

    @property
    def is_of_other_sklearn(self) -> bool:
        return self.trained_with is not None and self.trained_with != metadata.version("scikit-learn")

    @classmethod
    def parse(cls, text: str) -> Description:
        """Of an MLmodel file's text."""
        import yaml

        try:
            # In C where it is there: the one in Python takes a tenth of a second.
            content = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506  # safe, both
            flavors = content["flavors"]
            signature = content.get("signature") or {}
            columns = json.loads(signature.get("inputs") or "null")
            own = content.get("metadata") or {}
            threshold = own.get("threshold")
            sklearn = flavors.get("sklearn") or {}
            trained_with, serialization, code, file = (
                sklearn.get(key) for key in ("sklearn_version", "serialization_format", "code", "pickled_model")
            )
            inputs = _inputs(columns)
        except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise ModelError(
                f"the model's MLmodel file is not one that MLflow writes ({type(error).__name__})"
            ) from error
        limit = parse_threshold(threshold, "the model's metadata")
        return cls(tuple(flavors), inputs, limit, trained_with, serialization, code, file)

    def check_columns(self, seen: Collection[str] | None) -> None:
        """Raise ModelInputError for a required column that no payment can have.

        What a scikit-learn model takes is known only once it is loaded: its signature may name far more. Without
        `seen` nothing is known of the payments, which may have more than the usual columns.
        """
        if self.inputs is None or "sklearn" in self.flavors or not seen:
            return
        raise_unknown_columns((column.name for column in self.inputs if column.required), seen)


def raise_unknown_columns(names: Iterable[str], seen: Collection[str]) -> None:
    known = {*COLUMNS, *seen}
    unknown = [name for name in names if name not in known]
    if unknown:
        # Others by number only: whoever sends to the topic names them, and may do so with personal data.
        others = len(known) - len(COLUMNS)
        raise ModelInputError(
            f"the model wants columns that payments do not have: {', '.join(unknown)}; payments have: "
            f"{', '.join(COLUMNS)}" + (f" and {others:,} other{'s' * (others > 1)}" if others else "")
        )


def parse_threshold(value: object, where: str) -> float | None:
    """The probability from which on a payment is fraud; None where the model's own predictions hold."""
    if value is None:
        return None
    try:
        threshold = float(str(value))
    except ValueError:
        threshold = float("nan")
    if not 0 < threshold < 1:
        raise ModelError(f"threshold {value!r} in {where}: a probability between 0 and 1 was expected")
    return None if threshold == 0.5 else threshold


def _inputs(columns: object) -> tuple[Column, ...] | None:
    if not isinstance(columns, list):
        return None
    found = []
    for column in columns:
        name = column.get("name")
        if not isinstance(name, str):
            return None
        found.append(Column(name, kind_of_mlflow(str(column["type"])), bool(column.get("required", True))))
    return tuple(found) or None
