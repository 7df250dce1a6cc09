"""Settings that are read from a secrets.ps1, a client.properties, an .env or a shell script."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from include.deployment.earlier_settings import read_earlier
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
def test_powershell_script_is_read(tmp_path: Path, encoding: str, end: str):
    assert read(tmp_path, "secrets.ps1", POWERSHELL.replace("\n", end).encode(encoding)) == WANTED


HIDDEN = "hunter2"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('$env:SASL_USERNAME = "start$hunter2"', "refers to another variable"),
        ('$env:SASL_USERNAME = "$(hunter2)"', "refers to another variable"),
        ('$env:SASL_USERNAME = "hunter2" + "b"', "not set to one plain quoted value"),
        ("$env:SASL_USERNAME = 'hunter2' +\n  'b'", "not set to one plain quoted value"),
        ('$env:SASL_USERNAME = "{0}-hunter2" -f 5', "not set to one plain quoted value"),
        ('$env:SASL_USERNAME = ("hunter2")', "not set to one plain quoted value"),
        ('$env:SASL_USERNAME = "hunter2 ".Trim()', "not set to one plain quoted value"),
        ("$env:SASL_USERNAME = hunter2", "not set to one plain quoted value"),
        ("$env:SASL_USERNAME = $hunter2", "not set to one plain quoted value"),
        ('$env:SASL_USERNAME = @"\nhunter2\n"@', "not set to one plain quoted value"),
        ('$env:SASL_USERNAME = 0hunter2"', "not set to one plain quoted value"),
        ('$env:SASL_USERNAME += "hunter2"', "not set to one plain quoted value"),
        ('SASL_USERNAME = "hunter2"', "not set to one plain quoted value"),
        ('$it.SASL_USERNAME = "hunter2"', "not set to one plain quoted value"),
        ('Set-Item Env:SASL_USERNAME "hunter2"', "not set to one plain quoted value"),
        ("[Environment]::SetEnvironmentVariable('SASL_USERNAME', 'hunter2')", "not set to one plain quoted value"),
        (
            'if ($a) { $env:SASL_USERNAME = "hunter2" } else { $env:SASL_USERNAME = "b" }',
            "is set again to another value",
        ),
        ('$env:SASL_USERNAME = "hunter2`u{41}"', "PowerShell versions"),
        ('$env:SASL_USERNAME = "{{ hunter2 }}"', "contains a placeholder"),
        ("$env:SASL_USERNAME = '<HUNTER2>'", "contains a placeholder"),
    ],
)
def test_computed_powershell_value_is_rejected_with_line_and_name(tmp_path: Path, line: str, message: str):
    text = f'$env:AWS_REGION = "eu-central-1"\n{line}\n'
    with pytest.raises(SettingError, match=message) as error:
        read(tmp_path, "secrets.ps1", text.encode())
    assert "SASL_USERNAME" in str(error.value)
    assert ", line 2: " in str(error.value) or "placeholder" in message
    assert HIDDEN not in str(error.value).lower()


def test_powershell_accepts_typographic_quotes(tmp_path: Path):
    text = (
        "$env:SMTP_USER = \u201cABC123\u201d   \n$env:SASL_USERNAME = \u2018it''s a \u201d\u2019 # \u2019\n"
        "$env:AWS_REGION = \u201eeu\u201c\n"
    )
    wanted = {"SMTP_USER": "ABC123", "SASL_USERNAME": "it's a \u201d", "AWS_REGION": "eu"}
    assert read(tmp_path, "secrets.ps1", text.encode("utf-8-sig")) == wanted


def test_powershell_text_that_looks_like_an_assignment_is_ignored(tmp_path: Path):
    text = """\
    $env:SASL_USERNAME = "right"
    if ($env:SASL_USERNAME -eq "x") { Write-Host "SASL_USERNAME = 'wrong'" }
    $text = @"
    $env:SASL_USERNAME = "wrong"
"@
    connect -User $env:SASL_USERNAME -Password "$env:SASL_USERNAME" `
        -Text 'it''s $env:SASL_USERNAME = "wrong"'
    """
    assert read(tmp_path, "secrets.ps1", text.encode()) == {"SASL_USERNAME": "right"}


def test_unclosed_quotation_mark_is_rejected(tmp_path: Path):
    with pytest.raises(SettingError, match=r"line 1: a quotation mark is not closed"):
        read(tmp_path, "secrets.ps1", b'$env:OTHER = "eu\n$env:S3_BUCKET = 5')


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


CLOUD = {
    "KAFKA_BOOTSTRAP_SERVERS": "pkc-1.eu.confluent.cloud:9092",
    "SASL_USERNAME": "ABC123",
    "SASL_PASSWORD": "a+b/c=d",
}


@pytest.mark.parametrize("name", ["client.properties", "librdkafka.config", "kafka.txt", "client"])
@pytest.mark.parametrize(
    "text", [PROPERTIES, JAVA, PROPERTIES.replace("\n", "\r\n"), PROPERTIES.replace("\n", " \t\n")]
)
def test_properties_file_is_read(tmp_path: Path, text: str, name: str):
    assert read(tmp_path, name, text.encode()) == CLOUD
    assert read(tmp_path, name, text.encode("utf-16")) == CLOUD


def test_escaped_space_at_the_end_of_a_property_is_kept(tmp_path: Path):
    text = "sasl.password=p\nsasl.username=a\\\\b\\   \nbootstrap.servers=\\\n   b:1,\\\n   c:2 \n"
    wanted = {"KAFKA_BOOTSTRAP_SERVERS": "b:1,c:2", "SASL_USERNAME": "a\\b ", "SASL_PASSWORD": "p"}
    assert read(tmp_path, "client.properties", text.encode()) == wanted


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('sasl.username="hunter2"', "in quotes"),
        ("sasl.username='hunter2'", "in quotes"),
        ("sasl.username=\u201chunter2\u201d", "in quotes"),
        ("sasl.username=hunter2 # mine", "a comment after"),
        ("export SASL_USERNAME=hunter2", "belongs to shell scripts"),
        ("sasl.username={{ HUNTER2 }}", "contains a placeholder"),
        ("sasl.username=<HUNTER2>", "contains a placeholder"),
        ('sasl.jaas.config=Plain required password="b" username="{{ hunter2 }}";', "contains a placeholder"),
        ('sasl.jaas.config=Plain required username="a" password=hunter-2;', "password without quotes"),
        ('sasl.jaas.config=Plain required password="b" username="hunter2"; # mine', "a comment after"),
    ],
)
def test_quotes_and_comments_in_properties_are_rejected_by_name(tmp_path: Path, line: str, message: str):
    text = f"bootstrap.servers=b:1\n{line}\n"
    with pytest.raises(SettingError, match=message) as error:
        read(tmp_path, "client.properties", text.encode())
    assert re.search("(?i)username|jaas|export", str(error.value))
    assert ", line 2: " in str(error.value) or "placeholder" in message
    assert not re.search("hunter-?2", str(error.value).lower())


def test_hash_in_a_quoted_login_is_no_comment(tmp_path: Path):
    text = 'sasl.jaas.config=Plain required username="a #b" password="p";\n'
    assert read(tmp_path, "x.properties", text.encode()) == {"SASL_USERNAME": "a #b", "SASL_PASSWORD": "p"}


ENV = r"""
# Confluent Cloud
SASL_USERNAME=ABC123          # the key
SASL_PASSWORD="a\"b\$c\\d"   # and this
  AWS_REGION='eu-central-1'
AWS_ACCESS_KEY_ID = AKIA1
SMTP_PORT: 587
SMTP_PASSWORD=~a&b|c>d<e(f)g h
EMAIL_RECIPIENT=a@x.org, b@x.org
LOGGER_SQL_URI=postgresql://me:p%40ss@db:5432/fraud?sslmode=require&x=#y
AWS_SECRET_ACCESS_KEY='x#$y`z "\n'
S3_BUCKET=
OTHER="$HOME/x
export and ./more of it"
NAME_OF_THE_ENVIRONMENT
"""
SHELL = r"""#!/bin/sh
# Confluent Cloud
set -a
export SASL_USERNAME=ABC123          # the key
SASL_PASSWORD="a\"b\$c\\d"   # and this
  AWS_REGION='eu-central-1'
AWS_ACCESS_KEY_ID=AKIA1
export SMTP_PORT=587
SMTP_PASSWORD='~a&b|c>d<e(f)g h'
EMAIL_RECIPIENT="a@x.org, b@x.org"
LOGGER_SQL_URI='postgresql://me:p%40ss@db:5432/fraud?sslmode=require&x=#y'
AWS_SECRET_ACCESS_KEY='x#$y`z "\n'
S3_BUCKET=
OTHER="$HOME/x"
echo $SASL_PASSWORD ${SASL_USERNAME}
export SASL_USERNAME SASL_PASSWORD
"""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "  \n", "\r"])
@pytest.mark.parametrize(
    ("name", "text"), [(".env", ENV), ("secrets", ENV), ("secrets.sh", SHELL), ("secrets.env", SHELL)]
)
def test_env_file_and_shell_script_are_read(tmp_path: Path, name: str, text: str, encoding: str, end: str):
    assert read(tmp_path, name, text.replace("\n", end).encode(encoding)) == {
        "SASL_USERNAME": "ABC123",
        "SASL_PASSWORD": 'a"b$c\\d',
        "AWS_REGION": "eu-central-1",
        "AWS_ACCESS_KEY_ID": "AKIA1",
        "SMTP_PORT": "587",
        "SMTP_PASSWORD": "~a&b|c>d<e(f)g h",
        "EMAIL_RECIPIENT": "a@x.org, b@x.org",
        "LOGGER_SQL_URI": "postgresql://me:p%40ss@db:5432/fraud?sslmode=require&x=#y",
        "AWS_SECRET_ACCESS_KEY": 'x#$y`z "\\n',
    }


@pytest.mark.parametrize(
    "value",
    [
        "hunter2 b",
        "hunter2&b",
        "hunter2|b",
        "hunter2>b",
        "hunter2<b",
        "(hunter2)",
        "hunter2;b",
        "~hunter2",
        "a:~hunter2",
    ],
)
@pytest.mark.parametrize(
    ("name", "before", "sign", "evidence"),
    [
        ("secrets.env", "", "export SASL_USERNAME=", "line 2"),
        ("secrets.env", "#!/bin/sh", "SASL_USERNAME=", "line 1"),
        ("secrets.env", "set -a", "SASL_USERNAME=", "line 1"),
        ("secrets.env", "export AWS_REGION='eu'", "SASL_USERNAME=", "line 1"),
        ("secrets.sh", "", "SASL_USERNAME=", "its name"),
    ],
)
def test_value_that_a_shell_ends_or_expands_is_rejected_in_a_shell_script(
    tmp_path: Path, name: str, before: str, sign: str, evidence: str, value: str
):
    text = f"{before}\n{sign}{value}\n"
    with pytest.raises(SettingError, match=rf", line 2: SASL_USERNAME .* shell script \({evidence}.*'value'") as error:
        read(tmp_path, name, text.encode())
    assert HIDDEN not in str(error.value)


@pytest.mark.parametrize(
    "line",
    ["SASL_USERNAME = hunter2", "SASL_USERNAME: hunter2", "SASL_USERNAME= hunter2", "export SASL_USERNAME={hunter2,b}"],
)
def test_line_that_is_no_single_assignment_is_rejected_in_a_shell_script(tmp_path: Path, line: str):
    with pytest.raises(SettingError, match=r"line 2: SASL_USERNAME .* shell script \(line 1"):
        read(tmp_path, "secrets.env", f"set -a\n{line}\n".encode())


@pytest.mark.parametrize(
    "line", ["SASL_USERNAME=hunter2\xa0", "SASL_USERNAME=\xa0hunter2", "SASL_USERNAME='hunter2'\u3000"]
)
def test_white_space_that_only_compose_strips_is_rejected(tmp_path: Path, line: str):
    with pytest.raises(SettingError, match="line 1: SASL_USERNAME"):
        read(tmp_path, ".env", line.encode())
    assert read(tmp_path, ".env", b"SASL_USERNAME='a\xc2\xa0'") == {"SASL_USERNAME": "a\xa0"}


@pytest.mark.parametrize(
    "line",
    [
        "SASL_USERNAME=hunter2$x",
        'SASL_USERNAME="hunter2$x"',
        "SASL_USERNAME=hunter2`id`",
        'SASL_USERNAME="hunter2\\n"',
        "SASL_USERNAME='hunter2'\\''s'",
        "SASL_USERNAME='hunter2\\'s'",
        'SASL_USERNAME=hunter2"b"',
        'SASL_USERNAME="hunter2"b',
        'SASL_USERNAME="hunter2"#b',
        'SASL_USERNAME="hunter2',
        "SASL_USERNAME=\u201chunter2\u201d",
        "SASL_USERNAME= # hunter2",
        "SASL_USERNAME=hunter2; AWS_REGION=x",
        "SASL_USERNAME=hunter2;",
        "export SASL_USERNAME=hunter2 AWS_REGION=x",
        "SASL_USERNAME=hunter2 && echo",
        "set SASL_USERNAME=hunter2",
        "setx SASL_USERNAME hunter2",
        "set -x SASL_USERNAME hunter2",
        "readonly SASL_USERNAME=hunter2",
        "AWS_REGION=x; SASL_USERNAME=hunter2",
        "SASL_USERNAME={{ hunter2 }}",
        "SASL_USERNAME='a'\nSASL_USERNAME=hunter2",
    ],
)
def test_value_that_shells_and_compose_read_differently_is_rejected(tmp_path: Path, line: str):
    with pytest.raises(SettingError, match=r"SASL_USERNAME|AWS_REGION") as error:
        read(tmp_path, "secrets.env", f"S3_BUCKET=b\n{line}\n".encode())
    assert re.search(", line [23]: |placeholder", str(error.value))
    assert HIDDEN not in str(error.value)


def test_line_of_a_quoted_value_or_here_document_is_no_assignment(tmp_path: Path):
    text = "NOTE='\nS3_BUCKET=of-the-note\n'\nSASL_USERNAME=a\n"
    assert read(tmp_path, ".env", text.encode()) == {"SASL_USERNAME": "a"}
    document = "cat <<END >x\nS3_BUCKET=of-the-document\nEND\n"
    with pytest.raises(SettingError, match=r"line 2: S3_BUCKET is set in a way .* a shell script"):
        read(tmp_path, "secrets.sh", document.encode())


def test_other_sasl_mechanism_is_rejected(tmp_path: Path):
    text = PROPERTIES.replace("PLAIN", "SCRAM-SHA-512")
    with pytest.raises(SettingError, match=r"SASL_SSL with SCRAM-SHA-512 cannot be copied.*AIRFLOW_CONN_KAFKA_DEFAULT"):
        read(tmp_path, "client.properties", text.encode())


@pytest.mark.parametrize("content", [b"", b"nothing here", b"a=b"])
def test_file_without_settings_is_rejected(tmp_path: Path, content: bytes):
    with pytest.raises(SettingError, match="holds none of KAFKA_BOOTSTRAP_SERVERS"):
        read(tmp_path, "client.properties", content)


@pytest.mark.parametrize("content", [b"# ok\n\x80\x81", "größer".encode("cp1252"), "a=b".encode("utf-32"), b"a=b\0"])
def test_other_encoding_is_rejected(tmp_path: Path, content: bytes):
    with pytest.raises(SettingError, match=r"is neither UTF-8 nor UTF-16 text.*[Ss]ave it as UTF-8"):
        read(tmp_path, "secrets.ps1", content)


def test_line_that_is_not_utf_8_is_named(tmp_path: Path):
    with pytest.raises(SettingError, match=r"secrets.ps1, line 2: is neither"):
        read(tmp_path, "secrets.ps1", b"# ok\n\x80\x81")
