"""The tasks of the DAG housekeeping: what each trims stands in `include/`, and by how much in the settings."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import BaseOperator, Context
from airflow.sdk.configuration import conf

from fraud_scoring.airflow_connections import staging
from fraud_scoring.failures import plain_failures
from fraud_scoring.operators.batch_operator import log_counts
from include.settings import Settings


class TrimOperator(BaseOperator):
    def execute(self, context: Context) -> None:
        with plain_failures():
            place, counts = self.trim(Settings.from_environment())
        log_counts(self, context, place, counts)

    def trim(self, settings: Settings) -> tuple[str, Mapping[str, int]]:
        """What was trimmed, and what went."""
        raise NotImplementedError


class TrimStagingOperator(TrimOperator):
    def trim(self, settings: Settings) -> tuple[str, Mapping[str, int]]:
        from include.batch.cleaning import remove_old_batches, remove_old_records

        # Not below what a run may take: it is ended a quarter of an hour after it is late.
        hours = max(settings.staging_hours, settings.late_minutes / 60 + 1)
        storage = staging(settings)
        batches, records = remove_old_batches(storage, hours), remove_old_records(storage, settings.record_hours)
        return settings.staging_url, {"batches": batches, "records": records}


class TrimModelsOperator(TrimOperator):
    def trim(self, settings: Settings) -> tuple[str, Mapping[str, int]]:
        from include.models.model_cache import ModelCache

        cache = ModelCache.from_settings(settings)
        return str(cache.folder), {"models": cache.trim()}


class TrimLogsOperator(TrimOperator):
    def trim(self, settings: Settings) -> tuple[str, Mapping[str, int]]:
        from include.housekeeping.logs import trim_logs

        folder = Path(conf.get_mandatory_value("logging", "base_log_folder")).expanduser()
        try:
            trimmed = trim_logs(folder, settings.log_days)
        finally:
            # Neither holds up the other.
            remote = self._trim_remote(settings)
        return str(folder), {"files": trimmed.files, "bytes": trimmed.bytes, **remote}

    def _trim_remote(self, settings: Settings) -> Mapping[str, int]:
        """Where Airflow uploads its tasks' logs to S3."""
        folder = conf.get("logging", "remote_base_log_folder", fallback="")
        if not conf.getboolean("logging", "remote_logging") or not folder.startswith("s3://"):
            return {}
        from airflow.providers.amazon.aws.hooks.s3 import S3Hook

        from include.housekeeping.remote_logs import trim_remote_logs

        # As the handler that uploads them; without a name boto3 looks for keys by itself.
        client: Any = S3Hook(aws_conn_id=conf.get("logging", "remote_log_conn_id", fallback="")).get_conn()
        trimmed = trim_remote_logs(client, folder, datetime.now(UTC) - timedelta(days=settings.log_days))
        self.log.info("%s: files %s, bytes %s", folder, trimmed.files, trimmed.bytes)
        return {"remote_files": trimmed.files, "remote_bytes": trimmed.bytes}
