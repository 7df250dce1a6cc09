"""`fraud env` as it runs where nothing is installed: with any Python, in the project's folder."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from typer.testing import CliRunner

from include.cli.main import app
from include.deployment import env_file
from include.deployment.env_writer import LOCAL_SETTINGS, REQUIRED
from tests.support.compose import ROOT

EARLIER = """\
$env:SASL_USERNAME = "KEY"
$env:SASL_PASSWORD = 'it''s "$ecret" #1'
$env:BOOTSTRAP_SERVERS = "pkc-1.eu.confluent.cloud:9092"
"""


def fraud_env(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command with Python's standard library only."""
    command = [sys.executable, "-S", "-m", "include.deployment", "--file", str(folder / ".env"), *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def read(folder: Path) -> dict[str, str]:
    return env_file.parse((folder / ".env").read_text())


def test_new_file_has_generated_secrets_and_is_written_once(tmp_path: Path):
    done = fraud_env(tmp_path)
    assert done.returncode == 0, done.stderr
    values = read(tmp_path)
    assert values.items() >= LOCAL_SETTINGS.items()
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
    Fernet(values["AIRFLOW__CORE__FERNET_KEY"])
    made = set(values) - set(LOCAL_SETTINGS)
    assert {"AIRFLOW_ADMIN_PASSWORD", "POSTGRES_PASSWORD", "AWS_SECRET_ACCESS_KEY"} < made
    secrets = [values[name] for name in made]
    assert min(map(len, secrets)) >= 24
    assert len(set(secrets)) == len(secrets)
    assert not any(secret in done.stdout for secret in secrets)

    before = (tmp_path / ".env").read_text()
    again = fraud_env(tmp_path)
    assert again.returncode == 0
    assert again.stdout == f"{tmp_path / '.env'}: nothing to add\n"
    assert (tmp_path / ".env").read_text() == before


def test_existing_lines_stay_and_missing_ones_are_appended(tmp_path: Path):
    mine = "# mine\nEMAIL_RECIPIENT=me@x.org\nVALKEY_PASSWORD=\nFRAUD_SHARDS=4"
    (tmp_path / ".env").write_text(mine)
    (tmp_path / ".env").chmod(0o644)
    assert fraud_env(tmp_path).returncode == 0
    assert (tmp_path / ".env").read_text().startswith(f"{mine}\n")
    values = read(tmp_path)
    assert (values["EMAIL_RECIPIENT"], values["FRAUD_SHARDS"]) == ("me@x.org", "4")
    assert values["VALKEY_PASSWORD"]
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600


def test_settings_of_an_earlier_setup_are_copied(tmp_path: Path):
    (tmp_path / "secrets.ps1").write_text(EARLIER)
    done = fraud_env(tmp_path, "--from", str(tmp_path / "secrets.ps1"))
    values = read(tmp_path)
    assert values["COMPOSE_PROFILES"] == "accounts"
    assert values["KAFKA_BOOTSTRAP_SERVERS"] == "pkc-1.eu.confluent.cloud:9092"
    assert values["SASL_PASSWORD"] == 'it\'s "$ecret" #1'
    assert "AWS_SECRET_ACCESS_KEY" not in values
    # Variables are still missing.
    assert done.returncode == 1
    missing = set(done.stdout.splitlines()[-1].partition(": ")[2].split(", "))
    assert missing == set(REQUIRED) - {"KAFKA_BOOTSTRAP_SERVERS", "SASL_USERNAME", "SASL_PASSWORD"}
    assert "ecret" not in done.stdout


def test_existing_value_is_replaced_only_with_the_option(tmp_path: Path):
    (tmp_path / "secrets.ps1").write_text(EARLIER)
    (tmp_path / ".env").write_text("COMPOSE_PROFILES=accounts\nSASL_USERNAME=mine\n")
    done = fraud_env(tmp_path, "--from", str(tmp_path / "secrets.ps1"))
    assert "kept, although the earlier setup has another value (--replace copies that): SASL_USERNAME" in done.stdout
    assert read(tmp_path)["SASL_USERNAME"] == "mine"
    fraud_env(tmp_path, "--from", str(tmp_path / "secrets.ps1"), "--replace")
    assert read(tmp_path)["SASL_USERNAME"] == "KEY"


def test_sender_is_required_if_the_login_is_no_mail_address(tmp_path: Path):
    given = {name: "587" if name == "SMTP_PORT" else "x" for name in REQUIRED}
    for user, missing in (("AKIA123", True), ("me@x.org", False)):
        lines = [env_file.env_line(name, value) for name, value in {**given, "SMTP_USER": user}.items()]
        (tmp_path / ".env").write_text("COMPOSE_PROFILES=accounts\n" + "".join(lines))
        done = fraud_env(tmp_path)
        assert ("SMTP_FROM" in done.stdout, done.returncode) == (missing, int(missing))


def test_local_services_are_changed_to_accounts(tmp_path: Path):
    fraud_env(tmp_path)
    with (tmp_path / ".env").open("a") as file:
        file.write("# mine\nEMAIL_RECIPIENT=me@x.org\nFRAUD_SHARDS='4' # cores\nSMTP_PORT='1025' # the catcher's\n")
    before = read(tmp_path)
    (tmp_path / "secrets.ps1").write_text(EARLIER)
    done = fraud_env(tmp_path, "--accounts", "--from", str(tmp_path / "secrets.ps1"))
    values = read(tmp_path)
    assert values["COMPOSE_PROFILES"] == "accounts"
    # No value of the local services is left, and all others are unchanged.
    gone = (set(LOCAL_SETTINGS) - {"COMPOSE_PROFILES", "EMAIL_RECIPIENT"}) | {"AWS_SECRET_ACCESS_KEY"}
    taken = {"KAFKA_BOOTSTRAP_SERVERS", "SASL_USERNAME", "SASL_PASSWORD"}
    assert values.keys() & gone == taken & gone
    kept = {name: value for name, value in before.items() if name not in gone | {"COMPOSE_PROFILES"}}
    assert kept.items() <= values.items()
    assert {"POSTGRES_PASSWORD", "EMAIL_RECIPIENT", "FRAUD_SHARDS"} < kept.keys()
    # The bucket of the local models may belong to somebody else on AWS.
    assert values["FRAUD_EXPERIMENT"] == "fraud_scoring_accounts"
    assert "the catcher's" not in (tmp_path / ".env").read_text()
    # The output lists all changes and the missing variables.
    assert done.returncode == 1
    assert "changed from local services to accounts" in done.stdout
    printed = dict(line.strip().split(": ", 1) for line in done.stdout.splitlines() if ": " in line)
    assert set(printed["removed, because they were the local services'"].split(", ")) == gone - taken
    missing = set(REQUIRED) - taken - {"EMAIL_RECIPIENT"}
    assert set(printed["STILL MISSING, add them to the file"].split(", ")) == missing


def test_profile_changed_by_hand_removes_local_values_once(tmp_path: Path):
    fraud_env(tmp_path)
    text = (tmp_path / ".env").read_text()
    (tmp_path / ".env").write_text(text.replace("COMPOSE_PROFILES=local", "COMPOSE_PROFILES=accounts"))
    fraud_env(tmp_path)
    assert not read(tmp_path).keys() & (set(LOCAL_SETTINGS) - {"COMPOSE_PROFILES"})
    # They are removed once; later the same value is one that the user set.
    (tmp_path / ".env").write_text((tmp_path / ".env").read_text() + f"AWS_REGION={LOCAL_SETTINGS['AWS_REGION']}\n")
    fraud_env(tmp_path, "--accounts")
    assert read(tmp_path)["AWS_REGION"] == LOCAL_SETTINGS["AWS_REGION"]


def test_complete_connection_replaces_plain_variables(tmp_path: Path):
    names = ("AIRFLOW_CONN_KAFKA_DEFAULT", "AIRFLOW_CONN_SMTP_DEFAULT")
    (tmp_path / ".env").write_text("".join(env_file.env_line(name, '{"conn_type": "x"}') for name in names))
    done = fraud_env(tmp_path, "--accounts")
    missing = set(done.stdout.splitlines()[-1].partition(": ")[2].split(", "))
    assert missing == {name for name in REQUIRED if not re.match("SASL_|SMTP_[UP]", name)}


def test_other_profile_is_rejected(tmp_path: Path):
    (tmp_path / ".env").write_text("COMPOSE_PROFILES=mine\n")
    done = fraud_env(tmp_path, "--accounts")
    assert done.returncode == 1
    assert "COMPOSE_PROFILES=mine is not for accounts" in done.stderr
    assert (tmp_path / ".env").read_text() == "COMPOSE_PROFILES=mine\n"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_first_variable_of_a_windows_file_is_found(tmp_path: Path, encoding: str):
    """Such a file has a byte order mark, or is UTF-16 as PowerShell's > writes it."""
    mine = "AIRFLOW_DB_PASSWORD=PASSWORD\r\n# größer\r\nFRAUD_SHARDS=4\r\n"
    (tmp_path / ".env").write_bytes(mine.encode(encoding))
    done = fraud_env(tmp_path)
    assert done.returncode == 0, done.stderr
    written = (tmp_path / ".env").read_bytes().decode()
    assert written.startswith(mine.replace("\r\n", "\n"))
    assert "\nAIRFLOW_DB_PASSWORD=" not in written
    assert read(tmp_path).items() > {"AIRFLOW_DB_PASSWORD": "PASSWORD", "FRAUD_SHARDS": "4"}.items()
    assert "its text is now UTF-8" in done.stdout
    assert fraud_env(tmp_path).stdout == f"{tmp_path / '.env'}: nothing to add\n"


@pytest.mark.parametrize("line", ['S3_BUCKET="hunter2', "S3_BUCKET= # hunter2", "S3_BUCKET='a'hunter2", "hunter2 x"])
def test_ambiguous_env_file_is_rejected_and_unchanged(tmp_path: Path, line: str):
    (tmp_path / ".env").write_text(f"FRAUD_SHARDS=4\n{line}\n")
    done = fraud_env(tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"fraud env: {tmp_path / '.env'}, line 2: ")
    assert "hunter2" not in done.stderr
    assert (tmp_path / ".env").read_text() == f"FRAUD_SHARDS=4\n{line}\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("secrets.ps1", '$env:AWS_REGION = "KEY"\n$env:SASL_USERNAME = "hunter2" + "x"\n'),
        ("client.properties", "bootstrap.servers=b:1\nsasl.username='hunter2'\n"),
        ("old.env", "AWS_REGION=KEY\nSASL_USERNAME=hunter2; echo\nSASL_USERNAME=$hunter2\n"),
        ("old.env", 'AWS_REGION=KEY\nSASL_USERNAME="hunter2\nx"\n'),
    ],
)
def test_nothing_is_written_if_the_earlier_setup_is_rejected(tmp_path: Path, name: str, text: str):
    (tmp_path / name).write_text(text)
    done = fraud_env(tmp_path, "--from", str(tmp_path / name))
    assert done.returncode == 1
    assert re.match(rf"fraud env: {tmp_path / name}, line [23]: (SASL_USERNAME|sasl\.username)", done.stderr)
    assert "hunter2" not in done.stderr
    assert not (tmp_path / ".env").exists()


def test_shell_reads_the_written_values(tmp_path: Path):
    (tmp_path / "secrets.ps1").write_text(EARLIER)
    fraud_env(tmp_path, "--from", str(tmp_path / "secrets.ps1"))
    script = 'set -a; . "$0"; exec env -0'
    done = subprocess.run(["sh", "-c", script, tmp_path / ".env"], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    found = dict(pair.split("=", 1) for pair in done.stdout.split("\0") if pair)
    assert found.items() > read(tmp_path).items()


@pytest.mark.parametrize("name", ["missing.ps1", "."])
def test_unreadable_file_is_named(tmp_path: Path, name: str):
    done = fraud_env(tmp_path, "--from", str(tmp_path / name))
    assert done.returncode == 1
    assert done.stderr.startswith(f"fraud env: {tmp_path / name}: cannot be read: ")
    assert not (tmp_path / ".env").exists()


def test_installed_command_writes_the_file(tmp_path: Path):
    done = CliRunner().invoke(app, ["env", "--file", str(tmp_path / ".env")])
    assert done.exit_code == 0, done.output
    assert read(tmp_path).items() >= LOCAL_SETTINGS.items()


def test_modules_need_only_python_3_9_and_its_standard_library():
    """Each module that it imports runs with Python 3.9, which macOS has."""
    names, ours = set(), ["include.deployment.__main__"]
    for module in ours:
        path = ROOT.joinpath(*module.split("."))
        source = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text()
        tree = ast.parse(source, feature_version=(3, 9))
        assert not any(isinstance(node, ast.Match) for node in ast.walk(tree))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found = [str(node.module)]
                if found == ["include.deployment"]:
                    found += [f"include.deployment.{alias.name}" for alias in node.names]
                names |= set(found)
        ours += sorted(name for name in names if name.startswith("include.") and name not in ours)
    assert {"include.deployment.env_file", "include.deployment.secret", "include.errors"} < set(ours)
    assert {name.partition(".")[0] for name in names - set(ours)} <= sys.stdlib_module_names
