"""Which of the caller's settings reach the local stack."""

from __future__ import annotations

from pathlib import Path

import pytest

from dev.stack import settings


def test_a_real_staging_area_is_not_taken_from_a_shell_or_env_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("FRAUD_STAGING_URL=s3://real/written\nFRAUD_SHARDS=2\nFRAUD_GROUP=written\n")
    monkeypatch.setattr(settings, "ROOT", tmp_path)
    monkeypatch.delenv("FRAUD_STACK_ENV_FILE")
    monkeypatch.setenv("FRAUD_STAGING_URL", "s3://real/exported")
    monkeypatch.setenv("FRAUD_GROUP", "exported")
    ours = settings.product_settings()
    assert ours == settings.DEFAULTS | {"FRAUD_SHARDS": "2", "FRAUD_GROUP": "exported"}
    monkeypatch.setenv("FRAUD_STACK_ENV_FILE", str(tmp_path / ".env"))
    assert settings.product_settings()["FRAUD_STAGING_URL"] == "s3://real/written"
