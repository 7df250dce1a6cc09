"""`python -m dev.stack up|down|status|run|start|stop|kill`."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import asdict

from dev.stack.control import Stack
from dev.stack.home import Options
from dev.stack.parts import PARTS, select
from dev.stack.stack_errors import StackError
from dev.stack.supervisor import Supervisor

OPTIONS = {
    "celery": "tasks on two Celery workers that share no disk",
    "secure": "Kafka and mail encrypted and with logins",
}
NOT_UP = 3  # as `service … status` says it


def main() -> int:
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
            supervisor = Supervisor(stack.home, select(only, stack.home.options), _say)
            return supervisor.run(parent=parent, background=arguments.background)
        case "up":
            if not stack.up(only, say=_say):
                print(f"already up in {stack.home.path}")
            else:
                print(f"up; for a shell: set -a; . {os.path.relpath(stack.home.environment_file)}; set +a")
        case "down":
            left = stack.down()
            print("down" if not left else f"down; ended {left} processes that a killed stack had left")
        case "status":
            return _show(stack)
        case action:
            getattr(stack, action)(arguments.part)
    return 0


def _say(text: str) -> None:
    # In one piece: parts report from threads of their own.
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _show(stack: Stack) -> int:
    rows = stack.status()
    if not rows:
        print(f"not up in {stack.home.path}")
        return NOT_UP
    print(f"{'part':<14} {'state':<9} {'pid':>8}  {'address':<17} log")
    for row in rows:
        print(f"{row.name:<14} {row.state:<9} {row.pid or '-':>8}  {row.address:<17} {os.path.relpath(row.log)}")
    return int(any(row.state != "up" for row in rows))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dev.stack", description="The local stack.")
    actions = parser.add_subparsers(dest="action", required=True)
    for name, text in {
        "up": "start it in the background and wait until every part is healthy",
        "run": "the same in the foreground, until Ctrl-C, SIGTERM or the end of its parent",
        "down": "stop it; no process is left",
        "status": "which part runs where (exit code 0: all up, 1: not all, 3: none)",
        "start": "start one part of a running stack again",
        "stop": "stop one part",
        "kill": "SIGKILL one part, for fault tests",
    }.items():
        action = actions.add_parser(name, help=text, description=text)
        action.add_argument("--home", default=".local", help="its folder (default .local)")
        if name in {"up", "run"}:
            action.add_argument("--only", help="parts, separated by commas, with what they need; default: all")
        if name == "up":
            for option, kind in OPTIONS.items():
                action.add_argument(f"--{option}", action="store_true", help=f"{kind} (kept in its folder)")
        if name in {"start", "stop", "kill"}:
            action.add_argument("part", help=f"{', '.join(PARTS)}; or airflow for all of its own")
        if name == "run":
            action.add_argument("--parent", type=int, help=argparse.SUPPRESS)
            action.add_argument("--background", action="store_true", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
