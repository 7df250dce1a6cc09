"""`python -m dev.demo [--once]`: starts the stack, trains two models, sends payments, and shows each run as it ends."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

import httpx
from rich.console import Console
from rich.table import Table

from dev.airflow_api import FINISHED, AirflowApi
from dev.demo.demo_ledger import RECORD_SECONDS, DemoLedger
from dev.demo.demo_runs import DAG, Batch, batch, problems
from dev.stack import Stack, StackError
from include.errors import FraudError, LedgerError

RECORDER = "record_predictions"
RATE = 50
FRAUD_SHARE = 0.02
# Two models, so that there is something to roll back to; the newer one is the better one.
TRAININGS = (
    ("the payments' own numbers", ["--features", "numeric", "--rows", "20000", "--seed", "1"]),
    ("features computed inside the model", ["--features", "payment", "--rows", "40000", "--seed", "2"]),
)
FIRST_BATCH_SECONDS = 180

console = Console(highlight=False, soft_wrap=True)
say: Callable[[str], None] = console.print


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m dev.demo", description=__doc__)
    parser.add_argument("--once", action="store_true", help="end after the first scored batch, with a summary")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)
    try:
        with ExitStack() as undo:
            return _demo(undo, once=arguments.once)
    except KeyboardInterrupt:
        say("\nstopped; the data stays in .local, and `make demo` goes on with it")
        return 130 if arguments.once else 0
    except (StackError, FraudError, httpx.HTTPError, subprocess.CalledProcessError) as error:
        say(f"[red]demo:[/red] {error}")
        return 1


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _demo(undo: ExitStack, *, once: bool) -> int:
    began = time.monotonic()
    stack = Stack()
    say("[bold]1. The local stack[/bold]: Kafka, S3, PostgreSQL, the ledger, MLflow, a mail catcher, Airflow")
    if stack.up(say=lambda line: say(f"   {line}"), leave=False):
        undo.callback(_stop, stack)
    else:
        say("   already up; it stays up when the demo ends")
    environment = os.environ | stack.env
    say("[bold]2. Models[/bold]")
    _train(environment)
    api = AirflowApi(environment)
    undo.callback(api.close)
    say(f"[bold]3. Payments[/bold]: {RATE} a second, {FRAUD_SHARE:.0%} of them fraud")
    undo.enter_context(_simulator(environment))
    api.wait_for_dag(DAG)
    shown = {run["dag_run_id"] for run in api.runs(DAG)}
    for dag_id in (DAG, RECORDER, "export_confirmed", "housekeeping"):
        _unpause(undo, api, dag_id)
    ledger = DemoLedger.of(environment)
    say(f"[bold]4. The DAG {DAG}[/bold], every minute; each batch wakes {RECORDER}")
    say(f"   Airflow  {environment['AIRFLOW_URL']}  user admin, password {environment['AIRFLOW_PASSWORD']}")
    say(f"   MLflow   {environment['MLFLOW_TRACKING_URI']}")
    say(f"   mail     {environment['MAIL_URL']}")
    say(f"   ledger   PostgreSQL at {ledger.address}: fraud trace, fraud confirm --list, fraud reconcile")
    if not once:
        say("   one line for each finished run follows; Ctrl-C ends the demo")
    for finished in _finished_runs(api, shown, until=time.monotonic() + FIRST_BATCH_SECONDS if once else None):
        say(f"   {finished.line}")
        if once and (finished.waited or finished.state != "success"):
            return _summary(finished, environment, api, ledger, time.monotonic() - began)
        if finished.waited:
            say(f"     {_in_the_ledger(finished, ledger)}")
    say(f"[red]demo:[/red] no batch was scored within {FIRST_BATCH_SECONDS} s; see {environment['AIRFLOW_URL']}")
    return 1


def _train(environment: dict[str, str]) -> None:
    count = _count_models(environment)
    if count >= len(TRAININGS):
        say(f"   {count} are there already")
        return
    for text, options in TRAININGS:
        say(f"   training on {text} …")
        command = [str(Path(sys.executable).with_name("fraud")), "train", *options]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            say(done.stdout + done.stderr)
            done.check_returncode()
        for line in done.stdout.splitlines():
            if line.strip():
                say(f"     {line}")


def _count_models(environment: dict[str, str]) -> int:
    address = f"{environment['MLFLOW_TRACKING_URI']}/api/2.0/mlflow/model-versions/search"
    return len(httpx.get(address, timeout=30).raise_for_status().json().get("model_versions", []))


@contextmanager
def _simulator(environment: dict[str, str]) -> Iterator[None]:
    log = Path(environment["AIRFLOW_HOME"]).parent / "logs" / "simulator.log"
    options = ["--rate", str(RATE), "--fraud-share", str(FRAUD_SHARE)]
    with log.open("ab") as output:
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name("fraud")), "produce", "simulate", *options],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield
        if process.poll() is not None:
            raise FraudError(f"the simulator ended with exit code {process.returncode}; log: {log}")
    finally:
        process.terminate()
        process.wait(30)


def _unpause(undo: ExitStack, api: AirflowApi, dag_id: str) -> None:
    api.wait_for_dag(dag_id)
    if api.request("GET", f"dags/{dag_id}")["is_paused"]:
        undo.callback(_pause, api, dag_id)
    api.pause(dag_id, False)


def _pause(api: AirflowApi, dag_id: str) -> None:
    try:
        api.pause(dag_id, True)
    except httpx.HTTPError as error:
        say(f"   the DAG {dag_id} could not be paused again: {error}")


def _stop(stack: Stack) -> None:
    say("stopping the stack …")
    stack.down()


def _finished_runs(api: AirflowApi, shown: set[str], until: float | None) -> Iterator[Batch]:
    """Each run once, when it has ended; what Airflow does not answer is asked again."""
    while until is None or time.monotonic() < until:
        try:
            for run in reversed(api.runs(DAG)):
                if run["dag_run_id"] not in shown and run["state"] in FINISHED:
                    shown.add(run["dag_run_id"])
                    yield batch(api, run)
        except httpx.TransportError as error:
            say(f"   Airflow does not answer: {error}")
        time.sleep(1)


def _in_the_ledger(finished: Batch, ledger: DemoLedger) -> str:
    """Once the batch is there."""
    try:
        ledger.batch(finished.drained["batch"], finished.published.get("published", 0))
        return ledger.standing
    except LedgerError as error:
        return f"{error}; scoring goes on"


def _summary(finished: Batch, environment: dict[str, str], api: AirflowApi, ledger: DemoLedger, seconds: float) -> int:
    off = [f"the run is {finished.state}"] if finished.state != "success" else problems(finished, environment)
    # The batch woke the recorder before its report was mailed: a second run gets to know whom.
    try:
        api.wait_for_run(RECORDER, api.trigger(RECORDER), RECORD_SECONDS)
    except TimeoutError as error:
        off.append(f"{RECORDER}: {error}")
    table = Table(title="The first scored batch", show_header=False)
    for name, value in {
        "run": finished.run_id,
        "batch": finished.drained.get("batch", "-"),
        "model": finished.model,
        "drained": finished.drained.get("payments", 0) + finished.drained.get("dead_letters", 0),
        "scored": finished.predicted.get("scored", 0),
        "frauds": finished.predicted.get("frauds", 0),
        "dead letters": finished.predicted.get("dead_letters", 0),
        "published": finished.published.get("published", 0),
        "mails": finished.mails,
        "seconds of the run": f"{finished.seconds:.1f}",
        "seconds in all": f"{seconds:.0f}",
        "ledger": ledger.standing.removeprefix("ledger "),
        "topics, mailbox and ledger": "; ".join(off) or "each payment once and as published, the report mailed once",
    }.items():
        table.add_row(name, f"{value:,}" if isinstance(value, int) else value)
    console.print(table)
    if example := ledger.example(str(finished.drained.get("batch"))):
        say("How the prediction of one of them came about, while the stack is up (make up):")
        say(f"   set -a; . .local/stack.env; set +a; .venv/bin/fraud trace {example}")
    return 1 if off else 0


if __name__ == "__main__":
    sys.exit(main())
