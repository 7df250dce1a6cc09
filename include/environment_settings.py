"""Settings read from environment variables: types of values, bounds, and the error for an invalid value."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AliasGenerator, BeforeValidator, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from include.errors import SettingError

_REASONS = {
    "bool_parsing": "neither true nor false",
    "greater_than_equal": "too small",
    "less_than_equal": "too large",
}


def setting(
    default: Any,
    description: str,
    *,
    bounds: tuple[float, float, str] | None = None,
    allowed: str = "",
    default_text: str = "",
    example: str = "",
    variable: str | None = None,
) -> Any:
    """Return a field whose default is a value, or a function of the values of the fields before it.

    `description` is Markdown for docs/configuration.md. `bounds` are the minimum, the maximum and the unit; `allowed`
    describes the allowed values if there are no bounds. `default_text` describes a default that a value cannot express.
    `.env.example` shows the `example` instead of the default. `variable` is the name of the environment variable; by
    default `FRAUD_` and the field's name in upper case.
    """
    options: dict[str, Any] = {"default_factory": default} if callable(default) else {"default": default}
    if bounds:
        minimum, maximum, unit = bounds
        options |= {"ge": minimum, "le": maximum}
        allowed = f"{minimum:.15g} to {maximum:.15g} {unit}".rstrip()
    elif isinstance(default, bool):
        allowed = "true or false"
    texts: dict[str, Any] = {"allowed": allowed, "default_text": default_text, "example": example}
    return Field(description=description, validation_alias=variable, json_schema_extra=texts, **options)


def documented_text(field: FieldInfo, name: str) -> str:
    """Return the text `allowed`, `default_text` or `example` of a field; empty if the field has none."""
    extra = field.json_schema_extra
    return str(extra[name]) if isinstance(extra, dict) else ""


class EnvironmentSettings(BaseSettings):
    """Base class of settings: `from_environment` reads environment variables, the constructor only its arguments."""

    model_config = SettingsConfigDict(
        alias_generator=AliasGenerator(validation_alias=lambda name: f"FRAUD_{name.upper()}"),
        populate_by_name=True,
        case_sensitive=True,
        frozen=True,
        hide_input_in_errors=True,
    )

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *_: Any, **__: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the constructor's arguments as the only source: `from_environment` passes the variables."""
        return (init_settings,)

    @classmethod
    def variable(cls, name: str) -> str:
        """Return the name of the environment variable of a field."""
        return str(cls.model_fields[name].validation_alias)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Return the settings of an environment. An empty variable counts as unset: docker compose passes all.

        Raise SettingError, with the variable and the allowed values, for an invalid value.
        """
        values = cls._read(environment)
        try:
            return cls(**values)
        except ValidationError as invalid:
            error = invalid.errors(include_url=False)[0]
        variable = str(error["loc"][0])
        cause = error.get("ctx", {}).get("error")
        reason = str(cause) if cause else _REASONS.get(error["type"], "invalid")
        field = next(field for field in cls.model_fields.values() if field.validation_alias == variable)
        value = values.get(variable, error["input"])
        raise SettingError(f"{variable}={value!r}: {reason}; give {documented_text(field, 'allowed')}")

    @classmethod
    def usable(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Return the settings with the default for each invalid value, for code that reports the invalid one."""
        values = cls._read(environment)
        try:
            return cls(**values)
        except ValidationError as error:
            invalid = {detail["loc"][0] for detail in error.errors()}
            return cls(**{variable: text for variable, text in values.items() if variable not in invalid})

    def override(self, **values: Any) -> Self:
        """Return the settings with other values, such as options of a command; None and "" change nothing."""
        return self.model_copy(update={name: value for name, value in values.items() if value not in (None, "")})

    @classmethod
    def _read(cls, environment: Mapping[str, str]) -> dict[str, Any]:
        source = EnvSettingsSource(cls)
        source.env_vars = {name: text.strip() for name, text in environment.items() if text.strip()}
        return source()


def _number(value: str | float) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError("not a number")
    return number


def _whole_number(value: str | float) -> int:
    return math.floor(_number(value))


def _run_ids(value: str | tuple[str, ...]) -> tuple[str, ...]:
    ids = tuple(filter(None, re.split(r"[\s,;]+", value))) if isinstance(value, str) else value
    for run_id in ids:
        if not re.fullmatch("[0-9a-f]{32}", run_id):
            raise ValueError(f"{run_id!r} is not an MLflow run id")
    return ids


def _folder(value: str | Path) -> Path:
    try:
        return Path(value).expanduser()
    except RuntimeError:
        raise ValueError("no such home folder is known") from None


Number = Annotated[float, BeforeValidator(_number)]
# A fraction is dropped: 2.5 is 2.
WholeNumber = Annotated[int, BeforeValidator(_whole_number)]
RunIds = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_run_ids)]
Folder = Annotated[Path, BeforeValidator(_folder)]
