"""Import the payment features' code under the module name that stored models refer to: it holds the code's digest.

So one process can load models of two versions, each with its own code, and a model needs nothing else of this project.
"""

from __future__ import annotations

import hashlib
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

from include.models import payment_features

FILE = Path(str(payment_features.__file__))


def module_name() -> str:
    """Return the name under which models that are trained now refer to the code: it changes with every byte."""
    return f"payment_features_{hashlib.sha256(FILE.read_bytes()).hexdigest()[:12]}"


def register_module(file: Path = FILE) -> str:
    """Import the code from `file` (this project's, or a copy) unless it is imported, and return the module's name."""
    name = module_name()
    if name not in sys.modules:
        module = ModuleType(name)
        SourceFileLoader(name, str(file)).exec_module(module)
        sys.modules[name] = module
    return name
