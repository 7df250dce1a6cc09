"""What a model needs to be installed, and whether it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata

from packaging.markers import default_environment
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from include.errors import ModelRequirementsError


@dataclass(frozen=True)
class Unmet:
    """`found` is None where the package is not installed; `extra` is what asks for it where only an extra does."""

    name: str
    wanted: str
    found: str | None
    extra: str | None = None

    def __str__(self) -> str:
        by = f" by {self.extra}" if self.extra else ""
        return f"{self.name} (wanted {self.wanted or 'any version'}{by}, found {self.found or 'none'})"


def check(lines: Iterable[str]) -> list[str]:
    """Raises ModelRequirementsError where packages are missing; returns what differs, which often works.

    What only an extra adds (mlflow[extras]) is seldom needed to predict: it is but noted.
    """
    missing: list[Unmet] = []
    differing: list[Unmet] = []
    notes: list[str] = []
    for line in _logical_lines(lines):
        requirement = _parse(line)
        if requirement is None:
            notes.append(f"cannot be checked: {line}")
            continue
        for unmet in _unmet(requirement):
            if unmet.extra:
                notes.append(str(unmet))
            else:
                (missing if unmet.found is None else differing).append(unmet)
    if missing:
        text = f"the model needs packages that are not installed here: {', '.join(map(str, missing))}"
        if differing:
            text += f"; in other versions: {', '.join(map(str, differing))}"
        raise ModelRequirementsError(f"{text}. Add them to requirements.in and install, or choose another model")
    return [*map(str, differing), *notes]


def lines_of_conda(text: str) -> list[str]:
    """The pip part of a conda.yaml. Conda's own names are not pip's (pytorch, torch), so they cannot be checked."""
    import yaml

    try:
        dependencies = (yaml.safe_load(text) or {}).get("dependencies") or []
    except (yaml.YAMLError, AttributeError):
        return []
    pip = [entry["pip"] for entry in dependencies if isinstance(entry, dict) and isinstance(entry.get("pip"), list)]
    return [str(line) for lines in pip for line in lines]


def _logical_lines(lines: Iterable[str]) -> Iterator[str]:
    """Without comments, continuations, hashes and pip's options: `-r` and `-c` name files of the training machine."""
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        text = line.split(" #", 1)[0].strip()
        text = text.split(" --", 1)[0].strip()
        if text.startswith(("-e ", "--editable ")):
            text = text.split(" ", 1)[1].strip()
        if text and not text.startswith(("#", "-")):
            yield text


def _parse(line: str) -> Requirement | None:
    try:
        return Requirement(line)
    except InvalidRequirement:
        pass
    if "#egg=" in line:
        name = line.split("#egg=", 1)[1].split("&", 1)[0]
    elif line.endswith(".whl"):
        try:
            name = parse_wheel_filename(line.rsplit("/", 1)[-1])[0]
        except InvalidWheelFilename:
            return None
    else:
        return None
    try:
        return Requirement(name)
    except InvalidRequirement:
        return None


def _unmet(requirement: Requirement, extra: str = "", by: str | None = None) -> Iterator[Unmet]:
    environment = {**default_environment(), "extra": extra}
    if requirement.marker is not None and not requirement.marker.evaluate(environment):  # type: ignore[arg-type]
        return
    wanted = str(requirement.specifier) or (requirement.url or "").split("@")[0][:80]
    try:
        distribution = metadata.distribution(requirement.name)
    except metadata.PackageNotFoundError:
        yield Unmet(requirement.name, wanted, None, by)
        return
    if not requirement.specifier.contains(distribution.version, prereleases=True):
        yield Unmet(requirement.name, wanted, distribution.version, by)
    for wanted_extra in requirement.extras:
        for line in distribution.requires or ():
            needed = Requirement(line)
            # Only what the extra adds: a package's plain requirements came with its installation.
            is_self = canonicalize_name(needed.name) == canonicalize_name(requirement.name)
            if "extra" in str(needed.marker) and not is_self:
                yield from _unmet(needed, wanted_extra, f"{requirement.name}[{wanted_extra}]")
