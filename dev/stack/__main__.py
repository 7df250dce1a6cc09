"""Control the local stack from the command line: `python -m dev.stack --help` lists the actions."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import asdict

from dev.stack.control import Stack
from dev.stack.home import Options
from dev.stack.parts import AIRFLOW_AND_HISTORY, PARTS, select
from dev.stack.stack_errors import StackError
from dev.stack.supervisor import Supervisor

OPTIONS = {
    "celery": "run tasks on two Celery workers that share no disk",
    "secure": "encrypt Kafka and mail, and require logins",
}
NOT_UP = 3  # the exit code of `service … status`


def main() -> int:
    """Run one action and return the exit code: 0, 1 for an error, for `status` also 3 if no stack is up."""
    arguments = _parser().parse_args()
    try:
        return _run(arguments)
    except StackError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _run(arguments: argparse.Namespace) -> int:
    chosen = {name for name in asdict(Options()) if getattr(arguments, name, False)}
    stack = Stack(arguments.home, Options(**dict.fromkeys(chosen, True)) if chosen else None)
    only = [word for word in (arguments.only or "").split(",") if word] if "only" in arguments else None
    match arguments.action:
        case "run":
            parent = arguments.parent or os.getppid()
            names = select(only, stack.home.options)
            stopped = AIRFLOW_AND_HISTORY if arguments.without_airflow else ()
            supervisor = Supervisor(stack.home, names, _say, stopped)
            return supervisor.run(parent=parent, background=arguments.background)
        case "up":
            if not stack.up(only, say=_say):
                print(f"the stack in {stack.home.path} is already up")
            else:
                print(f"up; for a shell: set -a; . {os.path.relpath(stack.home.environment_file)}; set +a")
        case "down":
            left = stack.down()
            print("down" if not left else f"down; ended {left} processes of a stack whose supervisor was killed")
        case "status":
            return _show(stack)
        case action:
            getattr(stack, action)(arguments.part)
    return 0


def _say(text: str) -> None:
    # One write for each line: parts report from several threads.
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _show(stack: Stack) -> int:
    rows = stack.status()
    if not rows:
        print(f"no stack is up in {stack.home.path}")
        return NOT_UP
    print(f"{'part':<14} {'state':<9} {'pid':>8}  {'address':<17} log")
    for row in rows:
        print(f"{row.name:<14} {row.state:<9} {row.pid or '-':>8}  {row.address:<17} {os.path.relpath(row.log)}")
    return int(any(row.state != "up" for row in rows))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dev.stack", description="The local stack.")
    actions = parser.add_subparsers(dest="action", required=True)
    for name, text in {
        "up": "start the stack in the background and wait until every part is healthy",
        "run": "run the stack in the foreground until Ctrl-C, SIGTERM or the end of its parent",
        "down": "stop the stack and wait until no process is left",
        "status": "show where each part runs (exit code 0: all are up, 1: some are not, 3: no stack)",
        "start": "start one part of a running stack again",
        "stop": "stop one part",
        "kill": "send SIGKILL to one part, for fault tests",
    }.items():
        action = actions.add_parser(name, help=text, description=text)
        action.add_argument("--home", default=".local", help="folder of the stack (default .local)")
        if name in {"up", "run"}:
            action.add_argument(
                "--only", help="parts, separated by commas; those that they need start too (default: all)"
            )
        if name == "up":
            for option, kind in OPTIONS.items():
                action.add_argument(f"--{option}", action="store_true", help=f"{kind}; its folder keeps the choice")
        if name in {"start", "stop", "kill"}:
            action.add_argument("part", help=f"{', '.join(PARTS)}; or airflow for all parts of Airflow")
        if name == "run":
            action.add_argument("--parent", type=int, help=argparse.SUPPRESS)
            action.add_argument("--background", action="store_true", help=argparse.SUPPRESS)
            action.add_argument("--without-airflow", action="store_true", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
