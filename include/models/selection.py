"""Which model a person asked for: a DAG run's configuration, and the hold that outlives it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from include.errors import RunConfigurationError, SettingError

CONF_KEYS = ("model", "keep", "reason")
ALLOWED = (
    "latest, previous, an MLflow run id (32 hexadecimal digits), runs:/<run id>/<name>, models:/name@alias, "
    "models:/name/version or models:/m-<id>"
)
# Also the JSON schema of the trigger form, so in the dialect that both know. Nothing typed is no choice.
MODEL_PATTERN = (
    r"^(latest|previous|[0-9a-f]{32}|runs:/[0-9a-f]{32}(/[^/.:'][^/:']*)+"
    r"|models:/(m-[0-9a-f]{32}|[^/:]+(@[A-Za-z0-9_-]+|/[0-9]+)))?$"
)
HOLD_VARIABLE = "fraud_model_hold"
HOW_TO_END_HOLD = 'trigger a run with {"model": "latest", "keep": true}'
HOLD_REMEDY = f"It is held ({HOLD_VARIABLE}); to end the hold, {HOW_TO_END_HOLD}"


def is_allowed(model: str) -> bool:
    return bool(model) and re.fullmatch(MODEL_PATTERN, model) is not None


def names_logged_model(model: str) -> bool:
    """Tell models:/m-<id> from models:/name/version."""
    return re.fullmatch(r"models:/m-[0-9a-f]{32}", model) is not None


@dataclass(frozen=True)
class ModelChoice:
    """`model` is None where the run leaves the choice to the hold or the default."""

    model: str | None = None
    keep: bool = False
    reason: str | None = None

    @classmethod
    def parse(cls, conf: Mapping[str, object]) -> ModelChoice:
        """Raises RunConfigurationError, which lists what is allowed."""
        unknown = sorted(set(conf) - set(CONF_KEYS))
        if unknown:
            raise RunConfigurationError(f"unknown in the run configuration: {unknown}; allowed: {', '.join(CONF_KEYS)}")
        model, keep, reason = conf.get("model"), conf.get("keep"), conf.get("reason")
        if model is not None and not isinstance(model, str):
            raise RunConfigurationError(f"model={model!r} is no text; allowed: {ALLOWED}")
        if keep is not None and not isinstance(keep, bool):
            raise RunConfigurationError(f"keep={keep!r}: allowed are true and false")
        if reason is not None and not isinstance(reason, str):
            raise RunConfigurationError(f"reason={reason!r} is no text")
        model = (model or "").strip() or None
        if model is not None and not is_allowed(model):
            raise RunConfigurationError(f"model={model!r} is not allowed; allowed: {ALLOWED}")
        if keep and model is None:
            raise RunConfigurationError(
                f"keep=true without a model: name the one to hold, or latest to end a hold; {ALLOWED}"
            )
        return cls(model, bool(keep), (reason or "").strip() or None)

    @property
    def is_empty(self) -> bool:
        return self.model is None

    @property
    def ends_hold(self) -> bool:
        return self.keep and self.model == "latest"


@dataclass(frozen=True)
class Hold:
    """A model that the scheduled runs keep to, until a run with {"model": "latest", "keep": true} ends it.

    `run_id` is what was resolved when the hold began, so `previous` does not move on. `model` names the same thing
    where a run id alone would not find it again: a registered version under another artifact name than `model`.
    """

    run_id: str
    asked: str
    reason: str | None
    who: str
    since: str
    model: str | None = None

    @property
    def pinned(self) -> str:
        """What to resolve while the hold lasts."""
        return self.model or self.run_id

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Hold:
        """Raises SettingError: a person may have edited the Variable."""
        try:
            hold = cls(**json.loads(text))
        except (ValueError, TypeError) as error:
            raise _unreadable_hold("it does not hold what a hold is made of") from error
        texts = (hold.run_id, hold.asked, hold.who, hold.since, hold.reason or "", hold.model or "")
        if not all(isinstance(text, str) for text in texts):
            raise _unreadable_hold("its values are not all texts")
        if not is_allowed(hold.pinned):
            raise _unreadable_hold(f"{hold.pinned!r} is no model; allowed: {ALLOWED}")
        return hold


def _unreadable_hold(why: str) -> SettingError:
    return SettingError(
        f"the Airflow Variable {HOLD_VARIABLE} cannot be read: {why}. "
        f"To end the hold, delete the Variable or {HOW_TO_END_HOLD}"
    )
