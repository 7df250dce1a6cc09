from __future__ import annotations

import importlib.metadata
from pathlib import Path

from dev.stack.airflow import Scheduler, airflow_home
from dev.stack.home import StackHome


def test_scheduler_gets_site_settings_unless_it_has_its_own(tmp_path: Path) -> None:
    home = StackHome(tmp_path)
    home.create([])
    (airflow_home(home) / f"migrated-{importlib.metadata.version('apache-airflow')}").touch()
    settings = airflow_home(home) / "config" / "airflow_local_settings.py"
    Scheduler().prepare(home, print)
    assert "preload()" in settings.read_text()
    settings.write_text("# somebody's own")
    Scheduler().prepare(home, print)
    assert settings.read_text() == "# somebody's own"
