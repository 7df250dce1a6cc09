"""Load only models that can run no code of their own, for FRAUD_ALLOW_PICKLES=false.

skops reads the model, and each of its types must be one that skops itself trusts or one of `TRUSTED_TYPES`. What the
model says of itself proves nothing. The list of trusted types in its MLmodel, which MLflow's own loader would accept,
is ignored, and so is the name of its file: skops raises an error for any other format. Code that is stored with the
model is never put on the path: models that are trained here need only `include/models/payment_features.py`, and get
this project's copy if its digest is the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from include.errors import UntrustedModelError
from include.models.description import Description
from include.models.pickle_cache import load_or_build

# The types in forests, histogram boosting and SMOTE pipelines that skops does not trust. Before you add a type, read
# its __setstate__ and __reduce__.
TRUSTED_TYPES = (
    "imblearn.over_sampling._smote.base.SMOTE",
    "imblearn.over_sampling._smote.base.SMOTENC",
    "imblearn.pipeline.Pipeline",
    "numpy.dtype",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.tree._tree.Tree",
)
_MAX_TYPES_SHOWN = 5


def check(run_id: str, description: Description) -> None:
    """Raise UntrustedModelError unless the MLmodel names a file of skops. No other file is needed for this check."""
    if "sklearn" not in description.flavors:
        raise _untrusted_error(run_id, f"has the flavor {' and '.join(description.flavors)}, whose files can hold code")
    if description.serialization != "skops":
        raise _untrusted_error(run_id, f"is stored as {description.serialization or 'pickle'}")
    if description.file is None or Path(description.file).name != description.file:
        raise _untrusted_error(run_id, f"names the file {description.file!r}, which is not in the model's folder")


def load(run_id: str, folder: Path, description: Description) -> Any:
    """Return the model whose files are in `folder`. Raise UntrustedModelError if it fails a check."""
    from include.models.features_module import register_module

    check(run_id, description)
    types = (*TRUSTED_TYPES, f"{register_module()}.PaymentFeatures")
    file = folder / str(description.file)
    return load_or_build(folder, lambda: _build(run_id, file, types, description), trusted_types=types)


def _build(run_id: str, file: Path, types: tuple[str, ...], description: Description) -> Any:
    import skops.io
    from skops.io.exceptions import UntrustedTypesFoundException

    try:
        return skops.io.load(file, trusted=types)
    except UntrustedTypesFoundException as error:
        untrusted = set(skops.io.get_untrusted_types(file=file)) - set(types)
        raise _untrusted_error(run_id, f"holds objects of {_join_types(untrusted)}") from error
    except Exception as error:
        versions = f"; {description.versions}" if description.is_of_other_sklearn else ""
        reason = f"has a file that skops cannot read ({type(error).__name__}{versions})"
        raise _untrusted_error(run_id, reason) from error


def _untrusted_error(run_id: str, reason: str) -> UntrustedModelError:
    return UntrustedModelError(
        f"model of run {run_id} {reason}: FRAUD_ALLOW_PICKLES=false refuses models that could run code of their own. "
        "Log it with serialization_format='skops' and with known types only (docs/security.md), or choose another model"
    )


def _join_types(types: Iterable[str]) -> str:
    names = sorted(types)
    more = len(names) - _MAX_TYPES_SHOWN
    return ", ".join(names[:_MAX_TYPES_SHOWN]) + (f" and {more} more types" if more > 0 else "")
