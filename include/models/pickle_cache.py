"""Keep a pickle of a model that skops has built in the model cache, beside the model's files, for the next runs.

skops checks each of a forest's thousands of nodes and arrays. Loading the pickle takes 0.2 to 0.4 of the processor time
(benchmarks/shortcuts.py). Only this user can write to the model cache. With another version of a library the model is
built anew.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
import mmap
import os
import pickle
import sys
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from include.models.description import Description

log = logging.getLogger(__name__)

# Nothing that was downloaded bears such a name: what does, we have made.
PATTERN = ".built-*"
_LIBRARIES = ("imbalanced-learn", "numpy", "pandas", "scikit-learn", "scipy", "skops")
_DIGEST_BYTES = hashlib.sha256().digest_size


def built(folder: Path, description: Description, build: Callable[[], Any]) -> Any:
    """What `build` builds of the model in `folder`, or built there before. Raises whatever `build` raises."""
    from mlflow.environment_variables import MLFLOW_ALLOW_PICKLE_DESERIALIZATION

    # Where MLflow is forbidden to load anything that could run code, it has to say so.
    if description.serialization != "skops" or not MLFLOW_ALLOW_PICKLE_DESERIALIZATION.get():  # type: ignore[no-untyped-call]
        return build()
    if description.code and str(folder / description.code) not in sys.path:
        # As MLflow does: the classes of the pickle's objects lie there.
        sys.path.insert(0, str(folder / description.code))
    return kept(folder, build)


def kept(folder: Path, build: Callable[[], Any], *, trusted: Collection[str] = ()) -> Any:
    """`trusted`: the types that the model was held against. What was built without is not taken for it."""
    file = folder / f".built-{_versions(trusted)}.pickle"
    try:
        with file.open("rb") as opened:
            # Mapped, not copied: a forest can have a hundred megabytes.
            content = memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))
        if hashlib.sha256(content[_DIGEST_BYTES:]).digest() == content[:_DIGEST_BYTES]:
            return pickle.loads(content[_DIGEST_BYTES:])  # noqa: S301  # our own, from our own folder
        log.warning("%s is damaged and made anew", file)
    except FileNotFoundError:
        pass
    except Exception as error:
        log.warning("%s cannot be read (%s) and is made anew", file, type(error).__name__)
    model = build()
    _keep(model, file)
    return model


def _keep(model: Any, file: Path) -> None:
    """Never fails: the next run builds the model again."""
    part = ""
    try:
        content = pickle.dumps(model, protocol=pickle.HIGHEST_PROTOCOL)
        handle, part = tempfile.mkstemp(dir=file.parent, prefix=f"{file.name}.")
        with os.fdopen(handle, "wb") as output:
            output.write(hashlib.sha256(content).digest() + content)
        Path(part).replace(file)
    except Exception as error:
        log.info("the model cannot be kept as it was built: %s", type(error).__name__)
        if part:
            Path(part).unlink(missing_ok=True)


def _versions(trusted: Collection[str]) -> str:
    installed = [sys.version, *(f"{name} {importlib.metadata.version(name)}" for name in _LIBRARIES)]
    return hashlib.blake2b("\n".join([*installed, *sorted(trusted)]).encode(), digest_size=8).hexdigest()
