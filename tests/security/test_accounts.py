"""docker compose with COMPOSE_PROFILES=accounts, as far as it can be had here: what a container makes of the plain
variables of `.env` connects to servers with TLS and logins.

Its environment is the one that compose gives the service. Addresses are the secure stack's; its authority is trusted as
one's own is in an image: among the machine's, where librdkafka looks, and by SSL_CERT_FILE.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from dev.stack.part import BIN, ROOT
from include.deployment import env_file
from include.deployment.env_writer import write_env
from tests.support.compose import load, project
from tests.support.secure_stack import SecureStack

AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
# The image's.
OURS = {"AIRFLOW__CORE__LOAD_EXAMPLES": "false", "PATH": f"{BIN}:/usr/bin:/bin", "PYTHONPATH": str(ROOT)}


@pytest.fixture
def variables(secure: SecureStack, tmp_path: Path) -> dict[str, str]:
    """The `.env` of `fraud env --accounts --from client.properties`, completed by hand."""
    kafka, mail, s3 = (secure.connection(f"{name}_default") for name in ("kafka", "smtp", "aws"))
    (tmp_path / "client.properties").write_text(
        f"bootstrap.servers={kafka['extra']['bootstrap.servers']}\nsecurity.protocol=SASL_SSL\nsasl.mechanisms=PLAIN\n"
        f"sasl.username={kafka['extra']['sasl.username']}\nsasl.password={kafka['extra']['sasl.password']}\n"
    )
    values = {
        "AWS_REGION": s3["extra"]["region_name"],
        "AWS_ACCESS_KEY_ID": s3["login"],
        "AWS_SECRET_ACCESS_KEY": s3["password"],
        "AWS_ENDPOINT_URL_S3": secure.stack.env["AWS_ENDPOINT_URL_S3"],
        "S3_BUCKET": "staging",
        "SMTP_SERVER": mail["host"],
        "SMTP_PORT": str(mail["port"]),
        "SMTP_USER": mail["login"],
        "SMTP_PASSWORD": mail["password"],
        "SMTP_FROM": "fraud@example.com",
        "EMAIL_RECIPIENT": "analysts@example.com",
        "FRAUD_MODEL": secure.models.latest,
    }
    file = tmp_path / ".env"
    file.write_text("".join(env_file.env_line(name, value) for name, value in values.items()))
    written = write_env(file, earlier=tmp_path / "client.properties", accounts=True, replace=False)
    assert written.missing == []
    return env_file.parse(file.read_text())


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("unshare") or not AUTHORITIES.exists(),
    reason="to trust an authority as a machine does needs root, unshare and Debian's file of authorities; CI has them",
)
def test_plain_variables_of_accounts_connect_to_every_server(
    secure: SecureStack, variables: dict[str, str], tmp_path: Path
) -> None:
    given = project(load(), variables)["airflow-worker"]["environment"]
    of_stack = {name: secure.stack.env[name] for name in ("MLFLOW_TRACKING_URI", "SSL_CERT_FILE")}
    trust = f"mount --bind {secure.stack.env['SSL_CERT_FILE']} {AUTHORITIES}"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", f'{trust} && exec "$@"', "sh", BIN / "fraud", "run", "fraud", "check"],
        env=OURS | given | of_stack | {"AIRFLOW_HOME": str(tmp_path)},
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    found = dict(re.findall(r"^ok +([^:]+): (.*)", done.stdout, re.MULTILINE))
    wanted = {"kafka_default", "topic topic_1", "topic topic_2", "group fraud_scoring", "MLflow", "model files"}
    assert wanted | {"staging", "smtp_default"} <= found.keys(), done.stdout + done.stderr
    assert f"as {variables['SASL_USERNAME']}" in found["kafka_default"]
    assert f"STARTTLS, as {variables['SMTP_USER']}" in found["smtp_default"]
    assert not [secret for secret in secure.passwords.values() if secret in done.stdout + done.stderr]
