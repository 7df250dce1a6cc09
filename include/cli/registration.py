"""Registers all commands in the same way: help from the docstring, errors on stderr, meaning of exit codes."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import typer

from include.cli.console import write_error
from include.errors import FraudError

OK = 0
NOT_GOOD = 1
"""The answer is bad: something is missing, invalid or has to be fixed. Commands without an answer: they failed."""
NOT_ANSWERED = 2
"""A command whose answer may be bad could not find the answer, or the command line is invalid."""

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def add_command(
    group: typer.Typer, function: Callable[..., None], name: str = "", *, error_code: int = NOT_GOOD, **options: Any
) -> None:
    """Add a function to the commands of a group; `name` defaults to the function's.

    Its docstring is the help text. If it raises FraudError, the command ends with `error_code`.
    """
    name = name or function.__name__.replace("_", "-")
    group_name = str(group.info.name)
    path = f"fraud {name}" if group_name == "fraud" else f"fraud {group_name} {name}"
    # typer would keep the line breaks of every paragraph but the first.
    paragraphs = (inspect.getdoc(function) or "").split("\n\n")
    help_text = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    group.command(name, help=help_text, **options)(exits_on_error(path, error_code)(function))


def exits_on_error(command: str, code: int) -> Callable[[Callable[Arguments, Result]], Callable[Arguments, Result]]:
    """Return a decorator that ends a command with exit code `code` and one line on stderr if it raises FraudError."""

    def decorator(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        @functools.wraps(function)
        def run(*arguments: Arguments.args, **options: Arguments.kwargs) -> Result:
            try:
                return function(*arguments, **options)
            except FraudError as error:
                write_error(f"{command}: {error}")
                raise typer.Exit(code) from error

        return run

    return decorator
