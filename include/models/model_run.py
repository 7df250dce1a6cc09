"""The model run that scores a batch, as it is passed in an XCom and stored beside the predictions."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import msgspec

from include.models.selection import names_logged_model


@dataclass(frozen=True)
class ModelRun:
    """An MLflow run with a model, and how it was chosen. The field names are keys in stored JSON.

    `asked` is the requested model: latest, previous, or one of the forms in `selection.ALLOWED`. `chosen_by` names
    its source: the run configuration, the hold or the default. `who` triggered the DAG run, or began the hold, and
    may have given a `reason`. `model_uri` names the model in MLflow or its artifact store, `url` the run's page (empty
    if MLflow has none). `name` and `version` are those of the registered model, if there is one. `threshold` is a
    probability between 0 and 1, exclusive, and `seconds` the time that the search for the run took.
    """

    run_id: str
    model_uri: str
    experiment: str
    name: str | None
    version: str | None
    asked: str
    chosen_by: str
    reason: str | None
    url: str
    threshold: float | None
    who: str | None = None
    seconds: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name, as XComs and records hold them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelRun:
        """Return the model run of such a dict, which another version may have written with fewer or more fields.

        Raise msgspec.ValidationError if a required field is missing or has another type.
        """
        return msgspec.convert(dict(values), cls)

    @property
    def cache_key(self) -> str:
        """Return the model's name in the model cache. A run can have several models."""
        return f"{self.run_id}-{hashlib.sha256(self.model_uri.encode()).hexdigest()[:8]}"

    @property
    def pinned(self) -> str | None:
        """Return a request that finds the same model again, None if the run id alone finds it."""
        if self.asked.startswith("runs:/") or names_logged_model(self.asked):
            return self.asked
        return f"models:/{self.name}/{self.version}" if self.asked.startswith("models:/") else None

    @property
    def title(self) -> str:
        """Return the registered name and version for people to read, else the run id."""
        return f"{self.name} version {self.version}" if self.name else f"run {self.run_id}"
