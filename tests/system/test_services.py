"""The whole stack listens on loopback only; its services work and require their passwords."""

from __future__ import annotations

import contextlib
import os
import smtplib
import subprocess
import sys
import urllib.request
from email.message import EmailMessage
from pathlib import Path
from urllib.error import HTTPError

import boto3
import botocore.exceptions
import httpx
import mlflow
import psutil
import psycopg2
import pytest
from confluent_kafka import KafkaException

from dev.stack import processes
from dev.stack.home import SECRETS, StackHome
from dev.stack.kafka import admin
from tests.support.live_stack import LiveStack
from tests.support.mail import Inbox

ROOT = Path(__file__).parents[2]


def test_every_port_listens_on_loopback_only(stack: LiveStack) -> None:
    listening = []
    for process in processes.find(StackHome(stack.home)):
        # A task's may have ended since it was found.
        with contextlib.suppress(psutil.NoSuchProcess):
            connections = process.net_connections("inet")
            listening += [one.laddr for one in connections if one.status == psutil.CONN_LISTEN]
    assert len(listening) > 15
    assert {address.ip for address in listening} == {"127.0.0.1"}


def test_command_lines_contain_no_secret(stack: LiveStack) -> None:
    kept = (stack.home / "secrets.json").read_text()
    secrets = [word for word in kept.split('"') if len(word) == 64]
    assert len(secrets) == len(SECRETS)
    lines = [" ".join(process.cmdline()) for process in processes.find(StackHome(stack.home))]
    assert not [line for line in lines if any(secret in line for secret in secrets)]


@pytest.mark.parametrize("file", ["stack.env", "secrets.json"])
def test_files_with_secrets_are_private(stack: LiveStack, file: str) -> None:
    assert (stack.home / file).stat().st_mode & 0o777 == 0o600


def test_airflow_refuses_without_the_password(stack: LiveStack) -> None:
    url = stack.env["AIRFLOW_URL"]
    assert httpx.get(f"{url}/api/v2/dags").status_code == 401
    wrong = {"username": stack.env["AIRFLOW_USERNAME"], "password": "admin"}
    assert httpx.post(f"{url}/auth/token", json=wrong).status_code == 401
    assert "dags" in stack.airflow.request("GET", "dags")


def test_postgres_refuses_without_the_password(stack: LiveStack) -> None:
    url = stack.env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].replace("postgresql+psycopg2", "postgresql")
    psycopg2.connect(url).close()
    head, _, tail = url.rpartition("@")
    for wrong in (f"{head}0@{tail}", f"postgresql://postgres@{tail}"):
        with pytest.raises(psycopg2.OperationalError, match="password"):
            psycopg2.connect(wrong)


def test_s3_refuses_without_the_secret(stack: LiveStack) -> None:
    names = {
        "endpoint_url": "AWS_ENDPOINT_URL_S3",
        "aws_access_key_id": "AWS_ACCESS_KEY_ID",
        "region_name": "AWS_REGION",
    }
    known = {argument: stack.env[name] for argument, name in names.items()}
    client = boto3.client("s3", **known, aws_secret_access_key=stack.env["AWS_SECRET_ACCESS_KEY"])
    client.put_object(Bucket="staging", Key="test/secret", Body=b"payments")
    wrong = boto3.client("s3", **known, aws_secret_access_key="wrong")
    with pytest.raises(botocore.exceptions.ClientError, match="SignatureDoesNotMatch"):
        wrong.get_object(Bucket="staging", Key="test/secret")

    filer = (stack.home / "ports.json").read_text().partition('"s3_filer": ')[2].partition(",")[0]
    for url in (known["endpoint_url"], f"http://127.0.0.1:{filer}/buckets"):
        with pytest.raises(HTTPError) as refused, urllib.request.urlopen(f"{url}/staging/test/secret"):
            pass
        refused.value.close()
        assert refused.value.code in {401, 403}


def test_mlflow_keeps_artifacts_on_s3(service_environment: dict[str, str]) -> None:
    mlflow.set_experiment("stack")
    with mlflow.start_run() as run:
        mlflow.log_text("seen", "note.txt")
    assert run.info.artifact_uri.startswith("s3://mlflow/")
    assert mlflow.artifacts.load_text(f"{run.info.artifact_uri}/note.txt") == "seen"


def test_kafka_has_the_topics_of_the_product_and_creates_no_other(services: LiveStack) -> None:
    client = admin({"bootstrap.servers": services.bootstrap_servers})
    topics = client.list_topics(timeout=10).topics
    assert {name: len(topics[name].partitions) for name in ("topic_1", "topic_2", "topic_1_dead_letters")} == {
        "topic_1": 3,
        "topic_2": 3,
        "topic_1_dead_letters": 3,
    }
    assert client.list_topics("never_made", timeout=10).topics["never_made"].error is not None
    with pytest.raises(KafkaException):
        client.delete_topics(["never_made"])["never_made"].result(timeout=10)


def test_mail_arrives_byte_for_byte_and_is_shown_as_text(services: LiveStack, inbox: Inbox) -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "a@example.com", "b@example.com", "<b>two & two</b>"
    message.set_content("plain")
    message.add_alternative("<p>Zwölf</p><script>alert(1)</script>", subtype="html")
    message.add_attachment("a,b\r\n1,2\r\n", subtype="csv", filename="report.csv")
    connection = services.env["AIRFLOW_CONN_SMTP_DEFAULT"]
    port = int(connection.partition('"port": ')[2].partition(",")[0])
    with smtplib.SMTP("127.0.0.1", port, timeout=10) as smtp:
        smtp.send_message(message)

    (arrived,) = inbox.wait(1)
    assert arrived["Subject"] == "<b>two & two</b>"
    assert next(arrived.iter_attachments()).get_content() == "a,b\r\n1,2\r\n"

    url = services.env["MAIL_URL"]
    listed = httpx.get(url).text
    assert "&lt;b&gt;two &amp; two&lt;/b&gt;" in listed
    key = listed.partition('<a href="')[2].partition('"')[0]
    shown = httpx.get(url + key).text
    assert f'<iframe sandbox src="{key}/body">' in shown
    body = httpx.get(f"{url}{key}/body")
    assert "Zwölf" in body.text
    assert "script-src 'none'" in body.headers["Content-Security-Policy"]
    assert httpx.get(f"{url}{key}/0").content == b"a,b\r\n1,2\r\n"
    assert httpx.get(f"{url}/../secrets.json").status_code == 404


def test_stack_env_is_enough_for_a_shell(stack: LiveStack) -> None:
    script = 'set -a; . "$0"; set +a; airflow connections get kafka_default -o json'
    clean = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}", "HOME": str(stack.home)}
    shell = subprocess.run(
        ["sh", "-c", script, str(stack.home / "stack.env")],
        env=clean,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert shell.returncode == 0, shell.stderr
    assert stack.bootstrap_servers in shell.stdout


def test_scheduler_preloads_modules_and_api_server_does_not(stack: LiveStack) -> None:
    def holds(part: str) -> bool:
        return "/pyarrow/" in Path(f"/proc/{stack.pid(part)}/maps").read_text()

    assert holds("scheduler")
    assert not holds("api-server")
