"""What docker compose makes of a compose file and its .env, by the Compose specification: as far as ours uses it."""

from __future__ import annotations

import copy
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
OUR_IMAGE = "fraud-scoring:local"

# ${NAME}, ${NAME:-default} and ${NAME:?message}; a default may hold further ones. $$ is a $.
_VARIABLE = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<name>\w+)(?::(?P<how>[-?])(?P<rest>(?:[^{}]|\{[^{}]*\})*))?\})")


class MissingVariableError(Exception):
    """A variable without a value that has no default."""


def load(path: Path = ROOT / "docker-compose.yaml") -> dict[str, Any]:
    """With its anchors resolved, and nothing interpolated."""
    return dict(yaml.safe_load(path.read_text()))


def interpolated(value: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {name: interpolated(one, variables) for name, one in value.items()}
    if isinstance(value, list):
        return [interpolated(one, variables) for one in value]
    if not isinstance(value, str):
        return value

    def put(found: re.Match[str]) -> str:
        if found["dollar"]:
            return "$"
        given = variables.get(found["name"], "")
        if given or found["how"] is None:
            return given
        if found["how"] == "?":
            raise MissingVariableError(f"{found['name']}: {found['rest']}")
        return str(interpolated(found["rest"], variables))

    return _VARIABLE.sub(put, value)


def project(
    file: Mapping[str, Any], variables: Mapping[str, str], *, named: Collection[str] = ()
) -> dict[str, dict[str, Any]]:
    """The services that `docker compose up` starts, as they then are, and those of no such profile that are named."""
    profiles = set(variables.get("COMPOSE_PROFILES", "").split(","))
    whole = interpolated(copy.deepcopy(dict(file)), variables)
    services: dict[str, dict[str, Any]] = {
        name: service
        for name, service in whole["services"].items()
        if not service.get("profiles") or profiles & set(service["profiles"]) or name in named
    }
    for service in services.values():
        given = service.get("environment", {})
        # A name without a value is passed on, where there is one.
        passed = {name: variables.get(name) if value is None else str(value) for name, value in given.items()}
        service["environment"] = {name: value for name, value in passed.items() if value is not None}
        needs = service.get("depends_on", {})
        service["depends_on"] = {
            name: how for name, how in needs.items() if name in services or how.get("required", True)
        }
    return services


def interpolated_variables(value: Any) -> Iterator[tuple[str, str | None]]:
    """Every variable that is put in, and how: `?` needed, `-` with a default, None as it is."""
    if isinstance(value, dict):
        for one in value.values():
            yield from interpolated_variables(one)
    elif isinstance(value, list):
        for one in value:
            yield from interpolated_variables(one)
    elif isinstance(value, str):
        for found in _VARIABLE.finditer(value):
            if not found["dollar"]:
                yield found["name"], found["how"]
                if found["how"] == "-":
                    yield from interpolated_variables(found["rest"])


def own_services(file: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The services that run the product's own image."""
    return {name: one for name, one in file["services"].items() if one["image"] == OUR_IMAGE}
