"""Check whether the packages that a model requires are installed."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec

from packaging.markers import default_environment
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from include.errors import ModelRequirementsError

log = logging.getLogger(__name__)

# Packages of notebooks and installers. MLflow records them as requirements of a model that is logged from a notebook,
# but predicting never needs them.
_NEVER_NEEDED = (
    "debugpy", "ipykernel", "ipython", "ipywidgets", "jupyter", "jupyter-client", "jupyter-console", "jupyter-core",
    "jupyterlab", "matplotlib-inline", "nbconvert", "nbformat", "notebook", "pip", "setuptools", "traitlets", "wheel",
)  # fmt: skip
# Suffixes of other distributions of the same library: xgboost-cpu, psycopg2-binary, opencv-python-headless.
_VARIANT_SUFFIX = re.compile(r"[-_](binary|cpu|cu\d+|cuda\d*x?|gpu|headless|intel|macos|nightly)$")
# Modules whose name differs from their distribution's.
_MODULE_NAMES = {
    "beautifulsoup4": "bs4",
    "opencv-python": "cv2",
    "pillow": "PIL",
    "python-dateutil": "dateutil",
    "pyyaml": "yaml",
    "imbalanced-learn": "imblearn",
    "scikit-learn": "sklearn",
    "scikit-image": "skimage",
}


@dataclass(frozen=True)
class UnmetRequirement:
    """Describe a requirement that the installed packages do not meet.

    `found` is the installed version, None if the package is not installed. `required_by` is the extra that requires the
    package, such as pandas[excel], if nothing else does. `module` is a module of that name which another package
    provides.
    """

    name: str
    wanted: str
    found: str | None
    required_by: str | None = None
    module: str | None = None

    def __str__(self) -> str:
        by = f" by {self.required_by}" if self.required_by else ""
        found = f"the module {self.module} of another package" if self.module else self.found or "none"
        return f"{self.name} (wanted {self.wanted or 'any version'}{by}, found {found})"


def check(lines: Iterable[str], *, run_id: str = "", required: bool = True) -> list[str]:
    """Check the lines of a requirements file. Return notes on what differs, which often works all the same.

    What only an extra adds (mlflow[extras]) becomes a note, because predicting seldom needs it. Raise
    ModelRequirementsError if other packages are missing, unless `required` is false: then log them. `run_id` names the
    model's run in the texts.
    """
    missing: list[UnmetRequirement] = []
    differing: list[UnmetRequirement] = []
    notes: list[str] = []
    for line in _logical_lines(lines):
        requirement = _parse(line)
        if requirement is None:
            notes.append(f"cannot be checked: {line}")
            continue
        for unmet in _find_unmet(requirement):
            if unmet.required_by or canonicalize_name(unmet.name) in _NEVER_NEEDED:
                notes.append(str(unmet))
            else:
                (differing if unmet.found or unmet.module else missing).append(unmet)
    if missing and required:
        text = f"the model needs packages that are not installed here: {', '.join(map(str, missing))}"
        if differing:
            text += f"; in other versions: {', '.join(map(str, differing))}"
        remedy = "Add them to requirements.in and install them, or choose another model"
        if run_id:
            remedy += f"; if it predicts without them, set FRAUD_UNCHECKED_REQUIREMENTS={run_id}"
        raise ModelRequirementsError(f"{text}. {remedy}")
    if missing:
        log.warning(
            "model run %s is loaded without required packages (FRAUD_UNCHECKED_REQUIREMENTS): %s",
            run_id,
            ", ".join(map(str, missing)),
        )
    return [*map(str, differing), *notes]


def pip_lines_of_conda(text: str) -> list[str]:
    """Return the pip requirements in a conda.yaml, none if it is invalid.

    Conda's own packages cannot be checked, because their names differ from pip's (pytorch, torch).
    """
    import yaml

    try:
        dependencies = (yaml.safe_load(text) or {}).get("dependencies") or []
    except (yaml.YAMLError, AttributeError):
        return []
    pip = [entry["pip"] for entry in dependencies if isinstance(entry, dict) and isinstance(entry.get("pip"), list)]
    return [str(line) for lines in pip for line in lines]


def _logical_lines(lines: Iterable[str]) -> Iterator[str]:
    """Yield the requirements without comments, continuations and hashes.

    Skip pip's options: `-r` and `-c` name files of the training machine.
    """
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        text = line.split(" #", 1)[0].strip()
        text = text.split(" --", 1)[0].strip()
        if text.startswith(("-e ", "--editable ")):
            text = text.split(" ", 1)[1].strip()
        if text and not text.startswith(("#", "-")):
            yield text


def _parse(line: str) -> Requirement | None:
    """Return the requirement, also of a URL with #egg= or of a wheel file. Return None if it names no package."""
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


def _find_module(package: str) -> str | None:
    """Return the module of a package that is not installed, if another distribution provides it."""
    name: str = canonicalize_name(package)
    while (shorter := _VARIANT_SUFFIX.sub("", name)) != name:
        name = shorter
    for module in (_MODULE_NAMES.get(name), name.replace("-", "_")):
        # A folder without __init__.py has no origin: it may be any folder on the path.
        if module and (spec := find_spec(module)) is not None and spec.origin is not None:
            return module
    return None


def _find_unmet(
    requirement: Requirement, extra: str = "", required_by: str | None = None
) -> Iterator[UnmetRequirement]:
    """Yield the requirement if it is not met, and what its extras require. Evaluate its markers for `extra`."""
    environment = {**default_environment(), "extra": extra}
    if requirement.marker is not None and not requirement.marker.evaluate(environment):  # type: ignore[arg-type]
        return
    wanted = str(requirement.specifier) or (requirement.url or "").split("@")[0][:80]
    try:
        distribution = metadata.distribution(requirement.name)
    except metadata.PackageNotFoundError:
        yield UnmetRequirement(requirement.name, wanted, None, required_by, _find_module(requirement.name))
        return
    if not requirement.specifier.contains(distribution.version, prereleases=True):
        yield UnmetRequirement(requirement.name, wanted, distribution.version, required_by)
    for wanted_extra in requirement.extras:
        for line in distribution.requires or ():
            needed = Requirement(line)
            # Only what the extra adds: the package's other requirements were installed with it.
            is_self = canonicalize_name(needed.name) == canonicalize_name(requirement.name)
            if "extra" in str(needed.marker) and not is_self:
                yield from _find_unmet(needed, wanted_extra, f"{requirement.name}[{wanted_extra}]")
