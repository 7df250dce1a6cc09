"""Faults of processes: killed, frozen, stopped or duplicated during a run."""

from __future__ import annotations

import time

import psutil

from dev.stack.processes import is_alive
from tests.soak.context import FaultContext, NoEffectError, PausedTask
from tests.soak.registry import KINDS, MAIL_AGAIN, Strike, kind
from tests.support.breakpoint import frozen
from tests.support.fault_scenario import FENCED
from tests.support.pipeline import DAG
from tests.support.waiting import wait_until

REFUSED = "Connection refused"


def _killed(task: str, *points: str) -> Strike:
    def strike(context: FaultContext) -> str:
        point = context.random.choice(points)
        held = context.hold(point)
        context.kill(held.process)
        return f"at {point!r} its process was killed; {context.failed_try(held, task)}"

    return strike


KINDS |= {
    "kill: plan": _killed("plan", "plan", "planned"),
    "kill: drain": _killed("drain", "drain", "chunk staged", "drained"),
    "kill: resolve_model": _killed("resolve_model", "resolve"),
    "kill: predict": _killed("predict", "predict", "chunk scored", "predicted"),
    "kill: publish, before": _killed("publish", "before fence", "before transaction"),
    "kill: publish, no offsets": _killed("publish", "chunk published", "produced"),
    "kill: publish, offsets sent": _killed("publish", "offsets sent"),
    "kill: publish, committed": _killed("publish", "committed"),
    "kill: email": _killed("email", "mail"),
    # A server has accepted the mail and nobody could note it: it comes again, with the same Message-ID.
    MAIL_AGAIN: _killed("email", "mail accepted"),
}


@kind("kill: worker and task")
def _worker(context: FaultContext) -> str:
    held = context.hold(context.random.choice(("drained", "predict", "offsets sent", "committed")))
    task = _task_at_work(context, held.run_id)
    worker = held.process.parent()
    assert worker is not None
    worker.kill()
    context.kill(held.process)
    return f"worker and process of {task} killed; {context.failed_try(held, task)}"


@kind("frozen publish")
def _frozen(context: FaultContext) -> str:
    held = context.hold(context.random.choice(("before transaction", "produced", "offsets sent")))
    with frozen(held.process) as wake:
        first = held.attempt("publish")
        wait_until(lambda: context.scenario.tasks(held.run_id)["publish"]["try_number"] > first, "no other try", 90)
        wait_until(lambda: context.scenario.tasks(held.run_id)["publish"]["state"] == "success", "it is not done", 90)
        wake()
    wait_until(
        lambda: FENCED in context.scenario.error(held.run_id, "publish", first), "it does not say why it lost", 90
    )
    return f"try {first} of publish in {held.run_id} woke up after another was done, and said {FENCED!r}"


@kind("second Airflow")
def _second(context: FaultContext) -> str:
    held = context.hold(context.random.choice(("predict", "before transaction", "offsets sent")))
    context.second("dags", "test", DAG)
    context.go_on()
    task = context.scenario.tasks(held.run_id)
    wait_until(lambda: context.scenario.tasks(held.run_id)["publish"]["state"] in ("success", "failed"), "no end", 120)
    log = context.scenario.error(held.run_id, "publish", held.attempt("publish"))
    for words in (FENCED, "published by another batch", "The next run starts at the committed offset"):
        if words in log:
            return f"publish of {held.run_id} said {words!r}"
    raise NoEffectError(f"nobody lost: {task['publish']['state']}")


@kind("broker restarted")
def _restarted(context: FaultContext) -> str:
    held = context.hold(context.random.choice(("drain", "predict", "before transaction", "offsets sent")))
    with context.producer.quiet():
        return _away(context, "kafka", held, "stop")


@kind("broker killed")
def _broker_killed(context: FaultContext) -> str:
    held = context.hold(context.random.choice(("drain", "predict", "before transaction")))
    with context.settled_topics():
        return _away(context, "kafka", held, "kill")


def _away(context: FaultContext, part: str, held: PausedTask, ending: str) -> str:
    task, pid, began = _task_at_work(context, held.run_id), context.stack.pid(part), time.monotonic()
    getattr(context.stack, ending)(part)
    wait_until(lambda: not psutil.pid_exists(pid), f"process {pid} of {part} did not go", 10)
    context.go_on()
    context.stack.start(part)
    away = time.monotonic() - began
    refused = wait_until(lambda: _refused(context, held), "no task was refused a connection", 60)
    return (
        f"process {pid} of {part} was away for {away:.0f} s with {task} at work; {refused} of {held.run_id} was refused"
    )


def _refused(context: FaultContext, held: PausedTask) -> str | None:
    """Return the task whose log says that it found no broker."""
    for task in ("plan", "drain", "publish"):
        begun = context.scenario.tasks(held.run_id)[task]["try_number"] >= held.attempt(task)
        if begun and REFUSED in context.scenario.error(held.run_id, task, held.attempt(task)):
            return task
    return None


def _model_store(part: str) -> Strike:
    def strike(context: FaultContext) -> str:
        held = context.hold("resolve")
        context.stack.stop(part)
        context.go_on()
        try:
            return f"{context.failed_try(held, 'resolve_model')}, {part} was away"
        finally:
            context.stack.start(part)

    return strike


KINDS |= {"MLflow stopped": _model_store("mlflow"), "S3 stopped": _model_store("s3")}


@kind("mail server stopped")
def _mail(context: FaultContext) -> str:
    held = context.hold("mail")
    getattr(context.stack, context.random.choice(("stop", "kill")))("mail")
    context.go_on()
    try:
        return f"{context.failed_try(held, 'email')}; {context.says(held, 'email', 'accepts no mail')}"
    finally:
        context.stack.start("mail")


@kind("PostgreSQL stopped")
def _database(context: FaultContext) -> str:
    held = context.hold(context.random.choice(("predict", "offsets sent", "committed")))
    task = _task_at_work(context, held.run_id)
    getattr(context.stack, context.random.choice(("stop", "kill")))("postgres")
    context.go_on()
    try:
        wait_until(context.scenario.is_without_answer, "Airflow answers without its database", 30)
    finally:
        context.stack.start("postgres")
    dead = context.stack.dead_parts()
    context.stack.recover()
    evidence = f"Airflow had no answer while {task} was at work in {held.run_id}"
    return evidence + (f"; it took {', '.join(dead)} along" if dead else "")


@kind("scheduler killed")
def _scheduler(context: FaultContext) -> str:
    held = context.hold(context.random.choice(("drained", "predict", "offsets sent", "committed")))
    task, pid = _task_at_work(context, held.run_id), context.stack.pid("scheduler")
    context.stack.kill("scheduler")
    context.stack.start("scheduler")
    return f"scheduler {pid} killed with {task}; {context.failed_try(held, task)}"


@kind("everything killed")
def _everything(context: FaultContext) -> str:
    held = context.hold(context.random.choice(("drained", "predict", "before transaction", "mail")))
    task = _task_at_work(context, held.run_id)
    with context.settled_topics():
        context.stack.kill_everything()
        if is_alive(held.process):
            raise NoEffectError(f"{task} lives on")
        context.stack.recover()
    return f"all parts and {task} of {held.run_id} were gone; {context.failed_try(held, task, 120)}"


def _task_at_work(context: FaultContext, run_id: str) -> str:
    # Beside the mail the next run may be asked for.
    tasks = context.scenario.tasks(run_id)
    at_work = [name for name, one in tasks.items() if one["state"] == "running" and name != "catch_up"]
    if not at_work:
        raise NoEffectError(f"no task of {run_id} is at work")
    return at_work[0]
