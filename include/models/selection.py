"""Parse a user's choice of a model: the configuration of a DAG run, and the hold that outlasts the run."""

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
# The JSON schema of the trigger form uses it as well, so it keeps to syntax that Python and JavaScript share. An empty
# text means that the form's field was left empty.
MODEL_PATTERN = (
    r"^(latest|previous|[0-9a-f]{32}|runs:/[0-9a-f]{32}(/[^/.:'][^/:']*)+"
    r"|models:/(m-[0-9a-f]{32}|[^/:]+(@[A-Za-z0-9_-]+|/[0-9]+)))?$"
)
HOLD_VARIABLE = "fraud_model_hold"
HOW_TO_END_HOLD = 'trigger a run with {"model": "latest", "keep": true}'
HOLD_REMEDY = f"It is held ({HOLD_VARIABLE}); to end the hold, {HOW_TO_END_HOLD}"


def is_allowed(model: str) -> bool:
    """Return whether the text has one of the forms in ALLOWED."""
    return bool(model) and re.fullmatch(MODEL_PATTERN, model) is not None


def names_logged_model(model: str) -> bool:
    """Return whether the text is models:/m-<id>, the URI of a logged model, rather than models:/name/version."""
    return re.fullmatch(r"models:/m-[0-9a-f]{32}", model) is not None


@dataclass(frozen=True)
class ModelChoice:
    """Hold what a DAG run's configuration says of the model.

    `model` is None if the hold or the default decides. `keep` makes the choice a hold, or ends the hold for `latest`.
    """

    model: str | None = None
    keep: bool = False
    reason: str | None = None

    @classmethod
    def parse(cls, conf: Mapping[str, object]) -> ModelChoice:
        """Return the choice in a run's configuration. Raise RunConfigurationError, which lists what is allowed."""
        unknown = sorted(set(conf) - set(CONF_KEYS))
        if unknown:
            raise RunConfigurationError(f"unknown in the run configuration: {unknown}; allowed: {', '.join(CONF_KEYS)}")
        model, keep, reason = conf.get("model"), conf.get("keep"), conf.get("reason")
        if model is not None and not isinstance(model, str):
            raise RunConfigurationError(f"model={model!r} is not a text; allowed: {ALLOWED}")
        if keep is not None and not isinstance(keep, bool):
            raise RunConfigurationError(f"keep={keep!r} is not allowed; allowed: true and false")
        if reason is not None and not isinstance(reason, str):
            raise RunConfigurationError(f"reason={reason!r} is not a text")
        model = (model or "").strip() or None
        if model is not None and not is_allowed(model):
            raise RunConfigurationError(f"model={model!r} is not allowed; allowed: {ALLOWED}")
        if keep and model is None:
            raise RunConfigurationError(
                "keep=true without a model: name the model to hold, or latest to end a hold. Allowed models: " + ALLOWED
            )
        return cls(model, bool(keep), (reason or "").strip() or None)

    @property
    def is_empty(self) -> bool:
        """Return whether the run names no model."""
        return self.model is None

    @property
    def ends_hold(self) -> bool:
        """Return whether the run ends the hold instead of setting one."""
        return self.keep and self.model == "latest"


@dataclass(frozen=True)
class Hold:
    """Hold the model that scheduled runs use until a run with {"model": "latest", "keep": true} ends the hold.

    `run_id` is the run that was resolved when the hold began, so `previous` does not move on. `model` names the same
    model if the run id alone does not find it: a registered version or another artifact name than `model`. `who`
    began the hold, and `since` is the time in ISO 8601.
    """

    run_id: str
    asked: str
    reason: str | None
    who: str
    since: str
    model: str | None = None

    @property
    def pinned(self) -> str:
        """Return the model that is requested while the hold lasts."""
        return self.model or self.run_id

    def to_json(self) -> str:
        """Return the value of the Airflow Variable."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Hold:
        """Parse the value of the Airflow Variable. Raise SettingError for an invalid one: users can edit it."""
        try:
            hold = cls(**json.loads(text))
        except (ValueError, TypeError) as error:
            raise _unreadable_hold("it is not JSON with the keys of a hold") from error
        texts = (hold.run_id, hold.asked, hold.who, hold.since, hold.reason or "", hold.model or "")
        if not all(isinstance(text, str) for text in texts):
            raise _unreadable_hold("its values are not all texts")
        if not is_allowed(hold.pinned):
            raise _unreadable_hold(f"{hold.pinned!r} is not a model; allowed: {ALLOWED}")
        return hold


def _unreadable_hold(reason: str) -> SettingError:
    return SettingError(
        f"the Airflow Variable {HOLD_VARIABLE} cannot be read: {reason}. "
        f"To end the hold, delete the Variable or {HOW_TO_END_HOLD}"
    )
