"""The features' code under the name by which a model's file asks for it: one that holds the digest of its text.

Models of two versions can then be loaded into one process, each with its own code, and none needs this project.
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
    return f"payment_features_{hashlib.sha256(FILE.read_bytes()).hexdigest()[:12]}"


def register(file: Path = FILE) -> str:
    """Makes the module known, from this file or a copy of it, and says its name."""
    name = module_name()
    if name not in sys.modules:
        module = ModuleType(name)
        SourceFileLoader(name, str(file)).exec_module(module)
        sys.modules[name] = module
    return name
