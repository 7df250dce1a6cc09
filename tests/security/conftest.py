"""A stack with logins and encryption: Kafka with SASL_SSL and rights, mail with STARTTLS, staging on S3.

FRAUD_TEST_SECURE_STACK=<home> names a running one to use instead.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from dev.stack import Options, Stack
from tests.support.breakpoint import install_breakpoints
from tests.support.leaks import require_no_leaks
from tests.support.live_stack import LiveStack
from tests.support.pipeline import DAG
from tests.support.secure_stack import SecureStack
from tests.support.two_models import two_models


@pytest.fixture(scope="package")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureStack]:
    running = os.environ.get("FRAUD_TEST_SECURE_STACK")
    own = Stack(running or tmp_path_factory.mktemp("secure"), Options(secure=True))
    install_breakpoints(own)
    if not running:
        own.up(leave=False)
    live = LiveStack(own)
    try:
        with two_models(live) as models:
            made = SecureStack(live, models)
            made.api.wait_for_dag(DAG)
            made.schedule(every_minute=False)
            made.api.pause(DAG, False)
            yield made
        if not running:
            require_no_leaks(live)
    finally:
        live.close()
        if not running:
            own.down()
