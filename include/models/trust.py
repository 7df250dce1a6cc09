"""Where pickles are refused: which models are loaded all the same, and how.

A model is read by skops, if every type in it is trusted by skops itself or stands in `TYPES`. What the model says of
itself is not believed: not the list of trusted types in its MLmodel, which MLflow's own loader would take, and not the
name of its file, for what is no skops file is an error. Code that travels with it is never put on the path: what the
models trained here need, `include/models/payment_features.py`, is our own copy, where its text is the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from include.errors import UntrustedModelError
from include.models.description import Description
from include.models.pickle_cache import kept

# What forests, histogram boosting and SMOTE pipelines are made of beyond what skops trusts. To trust another type, look
# at its __setstate__ and __reduce__, and add it here.
TYPES = (
    "imblearn.over_sampling._smote.base.SMOTE",
    "imblearn.over_sampling._smote.base.SMOTENC",
    "imblearn.pipeline.Pipeline",
    "numpy.dtype",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.tree._tree.Tree",
)
_SHOWN = 5


def check(run_id: str, description: Description) -> None:
    """By what the model's MLmodel says, before anything else of it is fetched. Raises UntrustedModelError."""
    if "sklearn" not in description.flavors:
        raise _untrusted(run_id, f"has the flavor {' and '.join(description.flavors)}, whose files can hold code")
    if description.serialization != "skops":
        raise _untrusted(run_id, f"is stored as {description.serialization or 'pickle'}")
    if description.file is None or Path(description.file).name != description.file:
        raise _untrusted(run_id, f"keeps its file at {description.file!r}")


def load(run_id: str, folder: Path, description: Description) -> Any:
    """The model itself. Raises UntrustedModelError."""
    from include.models.travelling_features import register

    check(run_id, description)
    types = (*TYPES, f"{register()}.PaymentFeatures")
    return kept(folder, lambda: _build(run_id, folder / str(description.file), types, description), trusted=types)


def _build(run_id: str, file: Path, types: tuple[str, ...], description: Description) -> Any:
    import skops.io
    from skops.io.exceptions import UntrustedTypesFoundException

    try:
        return skops.io.load(file, trusted=types)
    except UntrustedTypesFoundException as error:
        found = set(skops.io.get_untrusted_types(file=file)) - set(types)
        raise _untrusted(run_id, f"holds objects of {_listed(found)}") from error
    except Exception as error:
        versions = f"; {description.versions}" if description.is_of_other_sklearn else ""
        raise _untrusted(run_id, f"has a file that skops cannot read ({type(error).__name__}{versions})") from error


def _untrusted(run_id: str, found: str) -> UntrustedModelError:
    return UntrustedModelError(
        f"model of run {run_id} {found}: FRAUD_ALLOW_PICKLES=false refuses what could run code of its own. Log it with "
        "serialization_format='skops' and of known types only (docs/security.md), or choose another"
    )


def _listed(types: Iterable[str]) -> str:
    names = sorted(types)
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more types" if more > 0 else "")
