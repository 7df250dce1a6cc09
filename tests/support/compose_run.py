"""One batch through the whole compose file, without Docker. Run in namespaces of its own: see test_parity.py.

Prints what it saw as JSON on the last line.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote

import httpx
import psycopg2

from dev.airflow_api import AirflowApi
from include.deployment import env_writer
from include.deployment.env_file import parse
from tests.support import compose, stand_ins, topics
from tests.support.containers import Project, enter_namespaces
from tests.support.leaks import Leaks
from tests.support.mail import Inbox
from tests.support.waiting import wait_until

DAG, RECORDER = "score_payments", "record_predictions"


def main(folder: Path, env: Path, compose_file: Path) -> None:
    file = compose.load(compose_file)
    variables = parse(env.read_text())
    services = compose.project(file, variables)
    enter_namespaces(folder / "machine", list(services))
    maildir = folder / "maildir"
    inbox = Inbox(maildir)
    stands = {
        "kafka": stand_ins.KafkaImage(),
        "s3": stand_ins.S3Image(),
        "postgres": stand_ins.PostgresImage(folder / "postgres-home"),
        "ledger": stand_ins.PostgresImage(folder / "ledger-home"),
        "valkey": stand_ins.ValkeyImage(folder),
        "mail": stand_ins.MailImage(maildir),
    }
    began = time.monotonic()
    project = Project(services, stands, folder)
    project.up(seconds=700)
    up = time.monotonic() - began

    here = "http://localhost:8080"
    login = {"AIRFLOW_URL": here, "AIRFLOW_USERNAME": "admin", "AIRFLOW_PASSWORD": variables["AIRFLOW_ADMIN_PASSWORD"]}
    wrong = httpx.post(f"{here}/auth/token", json={"username": "admin", "password": "wrong"}, timeout=30)
    api = AirflowApi(login)
    api.wait_for_dag(DAG)
    api.wait_for_dag(RECORDER)
    api.pause(RECORDER, False)
    reader = topics.Reader("kafka:9092", "topic_2")
    api.pause(DAG, False)
    scored = wait_until(reader.arrived, "nothing came out on topic_2", 240)
    mails = inbox.wait(matching=lambda mail: mail["To"] == variables["EMAIL_RECIPIENT"], seconds=120)
    api.pause(DAG, True)
    run = api.runs(DAG)[-1]["dag_run_id"]
    api.wait_for_run(DAG, run)
    of_ledger = {"dbname": "ledger", "user": "ledger", "password": variables["LEDGER_DB_PASSWORD"], "host": "ledger"}
    recorded = wait_until(lambda: _recorded(of_ledger), "no batch and its payments in the ledger", 240)
    tries = api.tasks(DAG, run)["plan"]["try_number"]
    path = f"dags/{DAG}/dagRuns/{quote(run, safe='')}/taskInstances/plan/logs/{tries}"
    log = json.dumps(api.request("GET", path, params={"full_content": True})["content"])
    cli = compose.project(file, variables, named=["cli"])["cli"]
    check = project.run("cli", cli, ["fraud", "check"], 120)
    lasting = [name for name, service in services.items() if service["restart"] != "no"]
    names = env_writer.generate_secrets("local")
    secrets = {variables[name] for name in names}
    cards = {str(one.payment["cc_num"]) for one in scored}
    kept = {
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql://airflow:{variables['AIRFLOW_DB_PASSWORD']}@postgres/airflow",
        "MLFLOW_BACKEND_STORE_URI": f"postgresql://mlflow:{variables['MLFLOW_DB_PASSWORD']}@postgres/mlflow",
        "LOGGER_SQL_URI": f"postgresql://ledger:{variables['LEDGER_DB_PASSWORD']}@ledger/ledger",
        "AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER": f"s3://{variables['S3_BUCKET']}/logs",
        "AWS_ENDPOINT_URL_S3": variables["AWS_ENDPOINT_URL_S3"],
        "AWS_ACCESS_KEY_ID": variables["AWS_ACCESS_KEY_ID"],
        "AWS_SECRET_ACCESS_KEY": variables["AWS_SECRET_ACCESS_KEY"],
    }
    leaks = Leaks(SimpleNamespace(home=folder, maildir=maildir, env=kept), mail=True)
    print(  # noqa: T201
        json.dumps(
            {
                "up": round(up, 1),
                "all": round(time.monotonic() - began, 1),
                "seconds": project.seconds,
                "scored": len(scored),
                "models": sorted({one.headers["model_name"] for one in scored}),
                "mails": [str(mail["Subject"]) for mail in mails],
                "wrong_password": wrong.status_code,
                "recorded": recorded,
                "known": [one.payment["trans_num"] for one in scored],
                "foreign_database": _may_connect("postgres", "mlflow", "airflow", variables["AIRFLOW_DB_PASSWORD"]),
                "own_database": _may_connect("postgres", "airflow", "airflow", variables["AIRFLOW_DB_PASSWORD"]),
                "not_the_ledger": _may_connect("ledger", "ledger", "airflow", variables["AIRFLOW_DB_PASSWORD"]),
                "wrong_valkey_password": stand_ins.ValkeyImage.answer("wrong"),
                "worker_preloads": "sklearn" in Path(f"/proc/{project.pid('airflow-worker')}/maps").read_text(),
                "log": log,
                "left": sorted(leaks.find(secrets, cards) | leaks.find_in_ledger(secrets)),
                "looked_at": len(leaks.looked_at),
                "cards": len(cards),
                "check": check,
                # Whom `docker stop` tells first.
                "first_processes": {
                    name: Path(f"/proc/{project.pid(name)}/comm").read_text().strip() for name in lasting
                },
                # Now, instead of within an hour.
                "cleaned": project.containers["airflow-history"].run(["fraud", "clean-history"], 120).stdout,
            }
        )
    )


def _recorded(login: dict[str, str]) -> dict[str, object] | None:
    """A batch all of whose payments are recorded, by which model, and their trans_nums."""
    with closing(psycopg2.connect(**login)) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT batch_id, dag_run_id, batches.model_name, scored, array_agg(trans_num) "
            "FROM ledger.batches JOIN ledger.payments USING (batch_id) GROUP BY batch_id HAVING count(*) = scored"
        )
        found = cursor.fetchone()
    return dict(zip(("batch", "run", "model", "scored", "trans_nums"), found, strict=True)) if found else None


def _may_connect(host: str, database: str, user: str, password: str) -> str:
    try:
        psycopg2.connect(host=host, dbname=database, user=user, password=password).close()
    except psycopg2.OperationalError as error:
        return str(error)
    return "yes"


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
