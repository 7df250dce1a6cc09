"""What a model needs to be installed, and whether it is."""

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

# Packages of notebooks and installers, which MLflow records as requirements of a model that was logged from one;
# predicting never needs them.
_NEVER_NEEDED = (
    "debugpy", "ipykernel", "ipython", "ipywidgets", "jupyter", "jupyter-client", "jupyter-console", "jupyter-core",
    "jupyterlab", "matplotlib-inline", "nbconvert", "nbformat", "notebook", "pip", "setuptools", "traitlets", "wheel",
)  # fmt: skip
# The same library under another distribution's name: xgboost-cpu, psycopg2-binary, opencv-python-headless.
_VARIANT_SUFFIX = re.compile(r"[-_](binary|cpu|cu\d+|cuda\d*x?|gpu|headless|intel|macos|nightly)$")
# Modules that bear another name than their distribution.
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
    """`found` is None where the package is not installed; `extra` is what asks for it where only an extra does;
    `module` is what can be imported all the same."""

    name: str
    wanted: str
    found: str | None
    extra: str | None = None
    module: str | None = None

    def __str__(self) -> str:
        by = f" by {self.extra}" if self.extra else ""
        found = f"the module {self.module} of another package" if self.module else self.found or "none"
        return f"{self.name} (wanted {self.wanted or 'any version'}{by}, found {found})"


def check(lines: Iterable[str], *, run_id: str = "", required: bool = True) -> list[str]:
    """Raise ModelRequirementsError where packages are missing; return what differs, which often works.

    What only an extra adds (mlflow[extras]) is seldom needed to predict: it is but noted. Where it is not `required`,
    because a person said so of this run, what is missing is noted too.
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
            if unmet.extra or canonicalize_name(unmet.name) in _NEVER_NEEDED:
                notes.append(str(unmet))
            else:
                (differing if unmet.found or unmet.module else missing).append(unmet)
    if missing and required:
        text = f"the model needs packages that are not installed here: {', '.join(map(str, missing))}"
        if differing:
            text += f"; in other versions: {', '.join(map(str, differing))}"
        mend = "Add them to requirements.in and install, or choose another model"
        if run_id:
            mend += f"; if it predicts without them, set FRAUD_UNCHECKED_REQUIREMENTS={run_id}"
        raise ModelRequirementsError(f"{text}. {mend}")
    if missing:
        log.warning(
            "model run %s is loaded without required packages (FRAUD_UNCHECKED_REQUIREMENTS): %s",
            run_id,
            ", ".join(map(str, missing)),
        )
    return [*map(str, differing), *notes]


def pip_lines_of_conda(text: str) -> list[str]:
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


def _find_module(name: str) -> str | None:
    """Return the module that a package gives, where that can be imported: another distribution may give it, too."""
    plain: str = canonicalize_name(name)
    while (shorter := _VARIANT_SUFFIX.sub("", plain)) != plain:
        plain = shorter
    for module in (_MODULE_NAMES.get(plain), plain.replace("-", "_")):
        # A folder without __init__.py has no origin: it may be any folder on the path.
        if module and (spec := find_spec(module)) is not None and spec.origin is not None:
            return module
    return None


def _find_unmet(requirement: Requirement, extra: str = "", by: str | None = None) -> Iterator[UnmetRequirement]:
    environment = {**default_environment(), "extra": extra}
    if requirement.marker is not None and not requirement.marker.evaluate(environment):  # type: ignore[arg-type]
        return
    wanted = str(requirement.specifier) or (requirement.url or "").split("@")[0][:80]
    try:
        distribution = metadata.distribution(requirement.name)
    except metadata.PackageNotFoundError:
        yield UnmetRequirement(requirement.name, wanted, None, by, _find_module(requirement.name))
        return
    if not requirement.specifier.contains(distribution.version, prereleases=True):
        yield UnmetRequirement(requirement.name, wanted, distribution.version, by)
    for wanted_extra in requirement.extras:
        for line in distribution.requires or ():
            needed = Requirement(line)
            # Only what the extra adds: a package's plain requirements came with its installation.
            is_self = canonicalize_name(needed.name) == canonicalize_name(requirement.name)
            if "extra" in str(needed.marker) and not is_self:
                yield from _find_unmet(needed, wanted_extra, f"{requirement.name}[{wanted_extra}]")
