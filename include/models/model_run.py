"""The model run that scores a batch, as it travels through an XCom and stands beside the predictions."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import msgspec

from include.models.selection import names_logged_model


@dataclass(frozen=True)
class ModelRun:
    """`model_uri` is where the model's files lie; `url` the run's page in MLflow (empty where MLflow has none). `who`
    triggered the run, or began the hold, that `asked` for it; `seconds` is what it took to find it."""

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
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelRun:
        """Also of what another version of the product has written, with fewer or more."""
        return msgspec.convert(dict(values), cls)

    @property
    def cache_key(self) -> str:
        """One run can hold several models."""
        return f"{self.run_id}-{hashlib.sha256(self.model_uri.encode()).hexdigest()[:8]}"

    @property
    def pinned(self) -> str | None:
        """What asks for the same model again, where the run id alone would not."""
        if self.asked.startswith("runs:/") or names_logged_model(self.asked):
            return self.asked
        return f"models:/{self.name}/{self.version}" if self.asked.startswith("models:/") else None

    @property
    def title(self) -> str:
        """For people: the registered name and version, else the run id."""
        return f"{self.name} version {self.version}" if self.name else f"run {self.run_id}"
