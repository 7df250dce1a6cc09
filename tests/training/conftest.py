from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
import pytest

from include.producer.simulator import Simulator
from tests.support.live_stack import LiveStack


@pytest.fixture(scope="session")
def payments() -> pd.DataFrame:
    """Two simulated days with more fraud than usual, so that a small forest learns in a second."""
    return Simulator(seed=3, per_day=2000, fraud_share=0.04, cards=200).frame(days=2)


@pytest.fixture(scope="module")
def tracking_server(services: LiveStack) -> Iterator[dict[str, str]]:
    """The environment variables for MLflow and its artifacts on S3."""
    names = ("MLFLOW_TRACKING_URI", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL_S3")
    environment = {name: value for name, value in services.env.items() if name in names or name.endswith("_REGION")}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield environment
