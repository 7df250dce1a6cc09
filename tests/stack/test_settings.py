"""The caller's settings that reach the local stack."""

from __future__ import annotations

from pathlib import Path

import pytest

from dev.stack import stack_settings
from dev.stack.stack_errors import StackError


def test_stack_ignores_staging_url_of_shell_and_env_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("FRAUD_STAGING_URL=s3://real/written\nFRAUD_SHARDS=2\nFRAUD_GROUP=written\n")
    monkeypatch.setattr(stack_settings, "ROOT", tmp_path)
    monkeypatch.delenv("FRAUD_STACK_ENV_FILE")
    monkeypatch.setenv("FRAUD_STAGING_URL", "s3://real/exported")
    monkeypatch.setenv("FRAUD_GROUP", "exported")
    ours = stack_settings.product_settings()
    assert ours == stack_settings.DEFAULTS | {"FRAUD_SHARDS": "2", "FRAUD_GROUP": "exported"}
    monkeypatch.setenv("FRAUD_STACK_ENV_FILE", str(tmp_path / ".env"))
    assert stack_settings.product_settings()["FRAUD_STAGING_URL"] == "s3://real/written"


def test_env_file_of_windows_is_read_like_docker_compose(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = "FRAUD_SHARDS: 2\r\nFRAUD_GROUP='own' # mine\r\nFRAUD_MODEL=latest\r\n"
    for encoding in ("utf-8-sig", "utf-16"):
        (tmp_path / "mine.env").write_bytes(text.encode(encoding))
        monkeypatch.setenv("FRAUD_STACK_ENV_FILE", str(tmp_path / "mine.env"))
        found = stack_settings.product_settings()
        wanted = {"FRAUD_SHARDS": "2", "FRAUD_GROUP": "own", "FRAUD_MODEL": "latest"}
        assert found.items() >= wanted.items()


def test_ambiguous_env_file_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "mine.env").write_text('FRAUD_GROUP="own\nFRAUD_SHARDS=2\n')
    monkeypatch.setenv("FRAUD_STACK_ENV_FILE", str(tmp_path / "mine.env"))
    with pytest.raises(StackError, match=r"settings: .*mine.env, line 1: FRAUD_GROUP: the quotation mark"):
        stack_settings.product_settings()
