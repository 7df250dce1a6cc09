"""Start the stack, train two models, send payments and show each finished run: `python -m dev.demo [--once]`."""

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
# With two models a rollback can be tried. The newer model is the better one.
TRAININGS = (
    ("the payments' own numbers", ["--features", "numeric", "--rows", "20000", "--seed", "1"]),
    ("features computed inside the model", ["--features", "payment", "--rows", "40000", "--seed", "2"]),
)
FIRST_BATCH_SECONDS = 180

console = Console(highlight=False, soft_wrap=True)
say: Callable[[str], None] = console.print


def main() -> int:
    """Run the demo and return the exit code: 0, 1 for an error, 130 if --once was interrupted."""
    parser = argparse.ArgumentParser(prog="python -m dev.demo", description=__doc__)
    parser.add_argument("--once", action="store_true", help="end after the first scored batch, with a summary")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)
    try:
        with ExitStack() as undo:
            return _demo(undo, once=arguments.once)
    except KeyboardInterrupt:
        say("\nstopped; the data stays in .local, and `make demo` continues with it")
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
        say("   the stack is already up, and stays up when the demo ends")
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
    say(f"[bold]4. The DAG {DAG}[/bold], every minute; each batch triggers {RECORDER}")
    say(f"   Airflow  {environment['AIRFLOW_URL']}  user admin, password {environment['AIRFLOW_PASSWORD']}")
    say(f"   MLflow   {environment['MLFLOW_TRACKING_URI']}")
    say(f"   mail     {environment['MAIL_URL']}")
    say(f"   ledger   PostgreSQL at {ledger.address}: fraud trace, fraud confirm --list, fraud reconcile")
    if not once:
        say("   one line follows for each finished run; Ctrl-C ends the demo")
    for finished in _finished_runs(api, shown, until=time.monotonic() + FIRST_BATCH_SECONDS if once else None):
        say(f"   {finished.line}")
        if once and (finished.had_payments or finished.state != "success"):
            return _summary(finished, environment, api, ledger, time.monotonic() - began)
        if finished.had_payments:
            say(f"     {_ledger_line(finished, ledger)}")
    say(f"[red]demo:[/red] no batch was scored within {FIRST_BATCH_SECONDS} s; see {environment['AIRFLOW_URL']}")
    return 1


def _train(environment: dict[str, str]) -> None:
    count = _count_models(environment)
    if count >= len(TRAININGS):
        say(f"   {count} models are registered already")
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
    """Yield each run once, when it has finished. A request that fails is repeated."""
    while until is None or time.monotonic() < until:
        try:
            for run in reversed(api.runs(DAG)):
                if run["dag_run_id"] not in shown and run["state"] in FINISHED:
                    shown.add(run["dag_run_id"])
                    yield batch(api, run)
        except httpx.TransportError as error:
            say(f"   Airflow does not answer: {error}")
        time.sleep(1)


def _ledger_line(finished: Batch, ledger: DemoLedger) -> str:
    """Return the ledger's totals, once the batch is recorded."""
    try:
        ledger.batch(finished.drained["batch"], finished.published.get("published", 0))
        return ledger.totals
    except LedgerError as error:
        return f"{error}; scoring goes on"


def _summary(finished: Batch, environment: dict[str, str], api: AirflowApi, ledger: DemoLedger, seconds: float) -> int:
    differences = [f"the run is {finished.state}"] if finished.state != "success" else problems(finished, environment)
    # The batch triggered the recorder before its report was mailed. A second run records the recipients.
    try:
        api.wait_for_run(RECORDER, api.trigger(RECORDER), RECORD_SECONDS)
    except TimeoutError as error:
        differences.append(f"{RECORDER}: {error}")
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
        "ledger": ledger.totals.removeprefix("ledger "),
        "topics, mailbox and ledger": "; ".join(differences)
        or "each payment once and as published, the report mailed once",
    }.items():
        table.add_row(name, f"{value:,}" if isinstance(value, int) else value)
    console.print(table)
    if example := ledger.example(str(finished.drained.get("batch"))):
        say("To trace one prediction while the stack is up (make up):")
        say(f"   set -a; . .local/stack.env; set +a; .venv/bin/fraud trace {example}")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
