"""Starting and stopping a stack loses no data and leaves no process."""

from __future__ import annotations

import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Consumer, Producer

from dev.stack import Stack, StackError, processes
from dev.stack.home import StackHome
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]


def cli(*words: str, home: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dev.stack", *words, "--home", str(home)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)


def test_messages_survive_down_and_up(small_stack: Stack) -> None:
    home = small_stack.home.path
    up = cli("up", "--only", "kafka,mail", home=home)
    assert up.returncode == 0, up.stderr
    assert [line.split()[0] for line in up.stdout.splitlines() if line.endswith(" s")] == ["mail", "kafka"]
    assert stat.S_IMODE((home / "stack.env").stat().st_mode) == 0o600
    assert "already up" in cli("up", home=home).stdout

    status = cli("status", home=home)
    assert status.returncode == 0
    rows = [line.split() for line in status.stdout.splitlines()]
    assert [(row[0], row[1]) for row in rows[1:]] == [("kafka", "up"), ("mail", "up")]
    servers = small_stack.env["KAFKA_BOOTSTRAP_SERVERS"]
    assert rows[1][3] == servers
    producer = Producer({"bootstrap.servers": servers})
    producer.produce("topic_1", b"kept")
    assert producer.flush(20) == 0

    assert cli("down", home=home).stdout == "down\n"
    assert processes.find(StackHome(home)) == []
    assert not (home / "stack.env").exists()
    assert cli("status", home=home).returncode == 3

    assert cli("up", "--only", "kafka", home=home).returncode == 0
    assert small_stack.env["KAFKA_BOOTSTRAP_SERVERS"] == servers
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "test", "auto.offset.reset": "earliest"})
    try:
        consumer.subscribe(["topic_1"])
        message = consumer.poll(30)
        assert message is not None
        assert message.value() == b"kept"
    finally:
        consumer.close()


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_ends_every_process(small_stack: Stack, ending: signal.Signals) -> None:
    command = [
        sys.executable,
        "-m",
        "dev.stack",
        "run",
        "--only",
        "postgres,mail",
        "--home",
        str(small_stack.home.path),
    ]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as supervisor:
        wait_until(small_stack.is_up, "the stack is not up", 60)
        assert len(processes.find(small_stack.home)) > 2
        supervisor.send_signal(ending)
        assert supervisor.wait(30) == 0
    assert processes.find(small_stack.home) == []


def test_signal_during_start_ends_every_process(small_stack: Stack) -> None:
    command = [
        sys.executable,
        "-m",
        "dev.stack",
        "run",
        "--only",
        "postgres,s3,mail",
        "--home",
        str(small_stack.home.path),
    ]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as supervisor:
        wait_until(lambda: processes.find(small_stack.home), "no process is there", 60)
        assert not small_stack.is_up()
        supervisor.terminate()
        assert supervisor.wait(30) == 0
    assert processes.find(small_stack.home) == []


def test_death_of_the_parent_ends_every_process(small_stack: Stack) -> None:
    code = "import sys, time; from dev.stack import Stack; Stack(sys.argv[1]).up(['mail'], leave=False); time.sleep(99)"
    with subprocess.Popen([sys.executable, "-c", code, str(small_stack.home.path)], cwd=ROOT) as parent:
        wait_until(small_stack.is_up, "the stack is not up", 60)
        parent.kill()
    wait_until(lambda: small_stack.home.supervisor() is None, "the supervisor lives on", 60)
    assert processes.find(small_stack.home) == []


def test_down_and_up_end_processes_of_a_killed_supervisor(small_stack: Stack) -> None:
    small_stack.up(["postgres", "mail"])
    old = kill_supervisor(small_stack)
    assert {row.state for row in small_stack.status()} == {"orphan"}
    assert small_stack.up(["mail"])
    assert not any(map(processes.is_alive, old))

    kill_supervisor(small_stack)
    assert small_stack.down() == 1
    assert processes.find(small_stack.home) == []


def kill_supervisor(stack: Stack) -> list[psutil.Process]:
    supervisor = psutil.Process(stack.home.supervisor())
    supervisor.kill()
    wait_until(lambda: stack.home.supervisor() is None, "the supervisor lives on", 60)
    left = processes.find(stack.home)
    assert left
    return left


def test_dead_part_is_named_and_can_be_restarted(small_stack: Stack) -> None:
    small_stack.up(["mail", "postgres"])
    small_stack.kill("mail")
    shown = cli("status", home=small_stack.home.path)
    assert shown.returncode == 1
    assert [line.split()[1] for line in shown.stdout.splitlines() if line.startswith("mail")] == ["dead"]
    log = small_stack.home.log("mail")
    assert f"mail: the process ended with exit code -9; log: {log}" in small_stack.home.log("stack").read_text()

    assert cli("start", "mail", home=small_stack.home.path).returncode == 0
    small_stack.stop("postgres")
    assert {row.name: row.state for row in small_stack.status()} == {"mail": "up", "postgres": "stopped"}


def test_taken_port_gives_one_line_and_leaves_no_process(small_stack: Stack) -> None:
    small_stack.up(["mail"])
    port = int(small_stack.status()[0].address.rpartition(":")[2])
    small_stack.down()
    with socket.create_server(("127.0.0.1", port)):
        up = cli("up", "--only", "mail,postgres", home=small_stack.home.path)
    assert up.returncode == 1
    assert up.stdout == ""
    assert up.stderr.splitlines() == [
        f"mail: port 127.0.0.1:{port} is in use by another process: end it, or change smtp in "
        f"{small_stack.home.path / 'ports.json'}; log: {small_stack.home.log('mail')}"
    ]
    assert processes.find(small_stack.home) == []


def test_part_that_fails_to_start_gives_one_line_and_leaves_no_process(small_stack: Stack) -> None:
    small_stack.up(["postgres"])
    small_stack.down()
    (small_stack.home.path / "postgres" / "data" / "PG_VERSION").write_text("9\n")
    with pytest.raises(StackError) as raised:
        small_stack.up(["postgres", "mail"])
    assert str(raised.value).startswith("postgres: the process ended with exit code 1 (")
    assert str(raised.value).endswith(f"; log: {small_stack.home.log('postgres')}")
    assert processes.find(small_stack.home) == []


def test_full_disk_gives_one_line(small_stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dev.stack.home.LEAST_FREE_BYTES", 2**62)
    with pytest.raises(StackError, match=r"^disk: [\d.]+ GB free at .*, the stack needs"):
        small_stack.home.create(["one"])


def test_unwritable_folder_gives_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    shown = cli("up", "--only", "mail", home=tmp_path / "file" / "home")
    assert shown.returncode == 1
    assert len(shown.stderr.splitlines()) == 1
    assert "Not a directory" in shown.stderr


def test_missing_download_gives_one_line(small_stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"JGO_CACHE_DIR": tmp_path / "cache", "M2_REPO": tmp_path / "m2"}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # nobody is there
    shown = cli("up", "--only", "kafka", home=small_stack.home.path)
    assert shown.returncode == 1
    (line,) = shown.stderr.splitlines()
    assert line.startswith("kafka: Apache Kafka 4.4.0 could not be downloaded to ")
    assert line.endswith(f"check the network; log: {small_stack.home.log('kafka')}")
    assert "Error" in small_stack.home.log("kafka").read_text()


def test_unknown_part_gives_one_line(small_stack: Stack) -> None:
    shown = cli("up", "--only", "kafak", home=small_stack.home.path)
    assert shown.returncode == 1
    assert shown.stderr.startswith("kafak: no such part; give one of postgres, ledger, s3, kafka, ")


def test_two_stacks_run_side_by_side(small_stack: Stack, tmp_path: Path) -> None:
    other = Stack(tmp_path / "other")
    try:
        small_stack.up(["mail", "postgres"])
        other.up(["mail", "postgres"])
        assert not {row.address for row in small_stack.status()} & {row.address for row in other.status()}
        small_stack.down()
        assert {row.state for row in other.status()} == {"up"}
        assert all(psutil.pid_exists(row.pid) for row in other.status() if row.pid)
    finally:
        other.down()
