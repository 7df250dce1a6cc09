"""A real MLflow 2 server, in an environment of its own that is kept below the user's cache folder."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

from tests.support.waiting import wait_until

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
# Logs models as people with MLflow 2 did, and prints their runs' ids. They take amt and city_pop.
LOG_MODELS = """
import sys, warnings
warnings.simplefilter("ignore")
import mlflow, pandas as pd
from sklearn.linear_model import LogisticRegression

mlflow.set_experiment(sys.argv[1])
rows = pd.DataFrame({"amt": [float(n) for n in range(40)], "city_pop": [float(n % 7) for n in range(40)]})
model = LogisticRegression().fit(rows, (rows["amt"] > 20).astype(int))
for name in sys.argv[2:]:
    with mlflow.start_run() as run:
        mlflow.sklearn.log_model(model, name, pip_requirements=["scikit-learn"])
    print(run.info.run_id)
"""


def environment() -> Path:
    """Return the folder of its programs; make it first where the requirements have changed."""
    digest = hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fraud-tests"
    cache.mkdir(parents=True, exist_ok=True)
    folder, done = cache / f"mlflow-2-{digest}", cache / f"mlflow-2-{digest}.done"
    # Two test processes may need it at once.
    with FileLock(cache / "mlflow-2.lock"):
        if not done.exists():
            for old in cache.glob("mlflow-2-*"):
                shutil.rmtree(old) if old.is_dir() else old.unlink()
            uv = str(Path(sys.executable).with_name("uv"))
            subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(folder)], check=True)
            install = [uv, "pip", "install", "--quiet", "--python", str(folder / "bin" / "python")]
            subprocess.run([*install, "--requirement", str(REQUIREMENTS)], check=True)
            done.touch()
    return folder / "bin"


def own(programs: Path, **more: str) -> dict[str, str]:
    """Return an environment without this project's; bytecode is kept, for the next start is faster by half a minute."""
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, "PATH": f"{programs}:{os.environ['PATH']}", **more}


@contextlib.contextmanager
def server(home: Path) -> Iterator[str]:
    """Yield the address of one that serves its artifacts itself."""
    programs = environment()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (home / "mlflow.log").open("wb") as log:
        process = subprocess.Popen(
            [
                str(programs / "mlflow"), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
                "--backend-store-uri", f"sqlite:///{home}/mlflow.db",
                "--artifacts-destination", str(home / "artifacts"),
            ],
            cwd=home, env=own(programs, HOME=str(home)), stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    address = f"http://127.0.0.1:{port}"

    def is_up() -> bool:
        assert process.poll() is None, (home / "mlflow.log").read_text()[-2000:]
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=5) as answer:
            return bool(answer.status == 200)
        return False

    try:
        wait_until(is_up, "MLflow 2 does not start", 300)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def log_models(address: str, experiment: str, *names: str) -> list[str]:
    """Return the ids of runs whose models a client of MLflow 2 logged under these names."""
    programs = environment()
    done = subprocess.run(
        [str(programs / "python"), "-c", LOG_MODELS, experiment, *names],
        env=own(programs, MLFLOW_TRACKING_URI=address), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return [line for line in done.stdout.split() if re.fullmatch("[0-9a-f]{32}", line)]
