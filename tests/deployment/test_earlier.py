"""What is taken over of a secrets.ps1 or a client.properties."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.deployment.earlier import read_earlier
from include.errors import SettingError

POWERSHELL = r"""
# Confluent Cloud
$env:SASL_USERNAME = "ABC123"          # the key
$SASL_PASSWORD="a`"b`$c``d""e"
${env:AWS_REGION} = 'eu-central-1'; $env:AWS_ACCESS_KEY_ID='AKIA''1'
<# $env:SMTP_USER = "old"
   $env:SMTP_PASSWORD = "old" #>
# $env:SMTP_SERVER = "commented.example.com"
$Env:SMTP_PORT = 587
$env:SMTP_SERVER="smtp.example.com"
$env:EMAIL_RECIPIENT = "a@x.org; b@x.org"
$env:AWS_SECRET_ACCESS_KEY = 'x#$y`z'
$env:LOGGER_SQL_URI = "postgresql+psycopg2://me:p%40`$s@db:5432/fraud"
$env:OTHER = "$env:HOME/x"
Write-Host "$env:SMTP_PASSWORD = 'not an assignment'"
"""
WANTED = {
    "SASL_USERNAME": "ABC123",
    "SASL_PASSWORD": 'a"b$c`d"e',
    "AWS_REGION": "eu-central-1",
    "AWS_ACCESS_KEY_ID": "AKIA'1",
    "SMTP_PORT": "587",
    "SMTP_SERVER": "smtp.example.com",
    "EMAIL_RECIPIENT": "a@x.org; b@x.org",
    "AWS_SECRET_ACCESS_KEY": "x#$y`z",
    "LOGGER_SQL_URI": "postgresql+psycopg2://me:p%40$s@db:5432/fraud",
}


def read(tmp_path: Path, name: str, content: bytes) -> dict[str, str]:
    (tmp_path / name).write_bytes(content)
    return read_earlier(tmp_path / name)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_powershell(tmp_path: Path, encoding: str, end: str):
    assert read(tmp_path, "secrets.ps1", POWERSHELL.replace("\n", end).encode(encoding)) == WANTED


def test_a_value_that_powershell_would_put_together_is_named(tmp_path: Path):
    with pytest.raises(SettingError, match=r"secrets.ps1: SASL_PASSWORD refers to something else") as error:
        read(tmp_path, "secrets.ps1", b'$env:SASL_PASSWORD = "start$rest"')
    assert "start" not in str(error.value)


PROPERTIES = r"""
# Required connection configs for Kafka producer, consumer, and admin
bootstrap.servers=pkc-1.eu.confluent.cloud:9092
security.protocol=SASL_SSL
sasl.mechanisms=PLAIN
sasl.username=ABC123
sasl.password=a+b/c=d
! another comment
session.timeout.ms=45000
"""
JAVA = r"""
bootstrap.servers : pkc-1.eu.confluent.cloud:9092
security.protocol = SASL_SSL
sasl.mechanism = PLAIN
sasl.jaas.config = org.apache.kafka.common.security.plain.PlainLoginModule required \
    username="ABC123" password="a+b/c\u003dd";
"""


@pytest.mark.parametrize("text", [PROPERTIES, JAVA, PROPERTIES.replace("\n", "\r\n")])
def test_client_properties(tmp_path: Path, text: str):
    assert read(tmp_path, "client.properties", text.encode()) == {
        "KAFKA_BOOTSTRAP_SERVERS": "pkc-1.eu.confluent.cloud:9092",
        "SASL_USERNAME": "ABC123",
        "SASL_PASSWORD": "a+b/c=d",
    }


def test_another_login_is_not_guessed_at(tmp_path: Path):
    text = PROPERTIES.replace("PLAIN", "SCRAM-SHA-512")
    with pytest.raises(
        SettingError, match=r"SASL_SSL with SCRAM-SHA-512 cannot be taken over.*AIRFLOW_CONN_KAFKA_DEFAULT"
    ):
        read(tmp_path, "client.properties", text.encode())


@pytest.mark.parametrize("content", [b"", b"nothing here", b"a=b"])
def test_a_file_without_any_of_it_is_refused(tmp_path: Path, content: bytes):
    with pytest.raises(SettingError, match="holds none of KAFKA_BOOTSTRAP_SERVERS"):
        read(tmp_path, "client.properties", content)


def test_other_text_is_refused(tmp_path: Path):
    with pytest.raises(SettingError, match="neither UTF-8 nor UTF-16"):
        read(tmp_path, "secrets.ps1", b"\x80\x81")
