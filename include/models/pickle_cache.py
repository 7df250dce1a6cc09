"""Keep a pickle of a model that skops has built in the model cache, beside the model's files, for the next runs.

skops checks each of a forest's thousands of nodes and arrays. Loading the pickle takes 0.2 to 0.4 of the processor time
(benchmarks/shortcuts.py). Only this user can write to the model cache. With another version of a library the model is
built again.
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

# The model cache refuses a download that holds such a name, so these files are always our own.
FILE_PATTERN = ".built-*"
_LIBRARIES = ("imbalanced-learn", "numpy", "pandas", "scikit-learn", "scipy", "skops")
_DIGEST_BYTES = hashlib.sha256().digest_size


def load_or_build_if_skops(folder: Path, description: Description, build: Callable[[], Any]) -> Any:
    """Return `load_or_build` of a model that is stored as skops, and `build()` of any other."""
    from mlflow.environment_variables import MLFLOW_ALLOW_PICKLE_DESERIALIZATION

    # If that variable forbids pickles, MLflow's own loader has to report it.
    if description.serialization != "skops" or not MLFLOW_ALLOW_PICKLE_DESERIALIZATION.get():  # type: ignore[no-untyped-call]
        return build()
    if description.code and str(folder / description.code) not in sys.path:
        # The classes of the pickle's objects are defined there. MLflow's loader adds the folder in the same way.
        sys.path.insert(0, str(folder / description.code))
    return load_or_build(folder, build)


def load_or_build(folder: Path, build: Callable[[], Any], *, trusted_types: Collection[str] = ()) -> Any:
    """Return the model from the pickle in `folder`, or else from `build`, and pickle it for the next run.

    `trusted_types` are the types against which `build` checks the model. Each set of them has a pickle of its own, so
    a model that was built without the check is never returned for one with it. Raise what `build` raises.
    """
    file = folder / f".built-{_versions_digest(trusted_types)}.pickle"
    try:
        with file.open("rb") as opened:
            # Mapped, not copied: a forest can have a hundred megabytes.
            content = memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))
        if hashlib.sha256(content[_DIGEST_BYTES:]).digest() == content[:_DIGEST_BYTES]:
            return pickle.loads(content[_DIGEST_BYTES:])  # noqa: S301  # our own, from our own folder
        log.warning("%s is damaged: the model is built again from its files", file)
    except FileNotFoundError:
        pass
    except Exception as error:
        log.warning("%s cannot be read (%s): the model is built again from its files", file, type(error).__name__)
    model = build()
    _save(model, file)
    return model


def _save(model: Any, file: Path) -> None:
    """Write the pickle. Log a failure and go on: the next run builds the model again."""
    temporary = ""
    try:
        content = pickle.dumps(model, protocol=pickle.HIGHEST_PROTOCOL)
        handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f"{file.name}.")
        with os.fdopen(handle, "wb") as output:
            output.write(hashlib.sha256(content).digest() + content)
        Path(temporary).replace(file)
    except Exception as error:
        log.info("no pickle of the model in %s (%s): the next run builds the model again", file, type(error).__name__)
        if temporary:
            Path(temporary).unlink(missing_ok=True)


def _versions_digest(trusted_types: Collection[str]) -> str:
    """Return a digest of the versions of Python and the libraries, and of the trusted types."""
    installed = [sys.version, *(f"{name} {importlib.metadata.version(name)}" for name in _LIBRARIES)]
    return hashlib.blake2b("\n".join([*installed, *sorted(trusted_types)]).encode(), digest_size=8).hexdigest()
