"""Create a peer's own Python environment. It is made again when the peer's packages change."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench, BenchmarkError

_FOLDER = Path(__file__).parent
_INSTALL_SECONDS = 1_800


def python_of(bench: Bench, peer: str) -> Path:
    """Return the peer's interpreter, with the packages that its requirements.txt pins."""
    wanted = _FOLDER / peer / "requirements.txt"
    folder = bench.home / "peers" / peer
    python, stamp = folder / "bin" / "python", folder / "installed"
    digest = hashlib.sha256(wanted.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return python
    bench.need_disk(4)
    bench.say(f"installing {peer} into {folder}, some minutes, once")
    shutil.rmtree(folder, ignore_errors=True)
    _run(bench, [sys.executable, "-m", "venv", str(folder)])
    _run(bench, [*_installer(python), "--require-hashes", "-r", str(wanted)])
    stamp.write_text(digest)
    return python


def _installer(python: Path) -> list[str]:
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.exists() else shutil.which("uv")
    return (
        [uv, "pip", "install", "--quiet", "--python", str(python)]
        if uv
        else [str(python), "-m", "pip", "install", "-q"]
    )


def _run(bench: Bench, command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_SECONDS)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or [""]
        raise BenchmarkError(f"`{' '.join(command[:4])} …` failed: {said[-1][:300]}; is the network up?")


def run_peer(bench: Bench, python: Path, script: Path, given: dict[str, Any], *, seconds: float, **env: str) -> Any:
    """Run a peer's script and return its last line of output, parsed as JSON. All its processes end with this call."""
    log = bench.home / f"{script.parent.name}.log"
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    with log.open("ab") as errors:
        process = subprocess.Popen(
            [str(python), str(script), json.dumps(given)],
            cwd=bench.home, env=inherited | env, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=errors, start_new_session=True,
        )  # fmt: skip
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired as error:
            raise BenchmarkError(f"{script.parent.name} is not done after {seconds:g} s; log: {log}") from error
        finally:
            _end_group(process)
    if process.returncode or not output.strip():
        raise BenchmarkError(f"{script.parent.name} ended with exit code {process.returncode}; log: {log}")
    return json.loads(output.strip().splitlines()[-1])


def _end_group(process: subprocess.Popen[str]) -> None:
    """End Spark's JVM and its Python workers, which outlive the script if it is killed."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
