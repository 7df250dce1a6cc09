"""Generated secrets are read unchanged by every parser that they pass through."""

from __future__ import annotations

import argparse
import base64
import configparser
import re
import runpy
import shlex
from collections.abc import Callable
from urllib.parse import quote, urlsplit

import pytest
import yaml
from cryptography.fernet import Fernet

from dev.stack import home
from include.deployment import env_file, env_writer
from include.deployment.secret import fernet_key, secret
from tests.support.compose import ROOT

COMPOSE = [value for _ in range(900) for value in env_writer.generate_secrets("local").values()]
# Without the Fernet key, whose bytes are stored as hexadecimal digits there: see test_fernet_keys_are_valid.
STACK = [value for _ in range(900) for name, value in home.new_secrets().items() if name != "fernet"]


@pytest.fixture(params=["compose", "stack"])
def generated(request: pytest.FixtureRequest) -> list[str]:
    return COMPOSE if request.param == "compose" else STACK


OPTIONS = argparse.ArgumentParser(exit_on_error=False)
OPTIONS.add_argument("--password")


def by_options(value: str) -> str:
    return str(OPTIONS.parse_args(["--password", value]).password)


def by_ini(value: str) -> str:
    parser = configparser.ConfigParser()
    parser.read_string(f"[a]\nb = {value}\n")
    return parser["a"]["b"]


def by_url(value: str) -> str:
    return str(urlsplit(f"postgresql://user:{value}@host:5432/name").password)


READERS: dict[str, Callable[[str], str]] = {
    "option": by_options,
    "shell": lambda value: " ".join(shlex.split(f"{value} # comment", comments=True)),
    "URL": by_url,
    "INI": by_ini,
    ".env": lambda value: env_file.parse(f"NAME={value}\n")["NAME"],
}


@pytest.mark.parametrize("reader", READERS)
def test_every_parser_reads_a_generated_secret_unchanged(generated: list[str], reader: str) -> None:
    read = READERS[reader]
    assert [value for value in generated if read(value) != value] == []


def test_yaml_reads_every_generated_secret_as_text(generated: list[str]) -> None:
    text = "".join(f"- {value}\n" for value in generated)
    assert yaml.load(text, yaml.CSafeLoader) == generated


def test_generated_secrets_consist_of_letters_and_digits_and_begin_with_a_letter(generated: list[str]) -> None:
    assert [value for value in generated if not re.fullmatch(r"[A-Za-z][A-Za-z0-9]+=?", value)] == []
    assert min(map(len, generated)) >= 24
    assert len(set(generated)) == len(generated) > 10_000


def test_secret_needs_no_quotes() -> None:
    value = secret()
    assert len(value) == 32
    assert (shlex.quote(value), quote(value, safe=""), env_file.quoted("NAME", value)) == (value, value, value)


def test_fernet_keys_are_valid() -> None:
    stack_keys = [base64.urlsafe_b64encode(bytes.fromhex(home.new_secrets()["fernet"])).decode() for _ in range(200)]
    for key in {*stack_keys, *(fernet_key() for _ in range(200))}:
        assert Fernet(key).decrypt(Fernet(key).encrypt(b"x")) == b"x"
        assert re.fullmatch(r"[A-Za-z][A-Za-z0-9]{42}=", key)


@pytest.mark.parametrize("password", ["-7t9Zk", "--help", "a b", "-", "x=y", ""])
def test_administrator_may_have_a_password_that_looks_like_an_option(password: str) -> None:
    from airflow.cli.cli_parser import get_parser

    script = runpy.run_path(str(ROOT / "deploy" / "prepare_airflow.py"))
    words = get_parser().parse_args(script["administrator"](password))
    assert (words.username, words.role, words.password) == ("admin", "Admin", password)
