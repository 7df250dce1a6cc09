"""The operators of the DAG housekeeping. `include/` does the work, and the settings say what is old."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import BaseOperator, Context
from airflow.sdk.configuration import conf

from fraud_scoring.airflow_connections import staging
from fraud_scoring.failures import translate_permanent_errors
from fraud_scoring.operators.batch_operator import log_counts
from include.settings import Settings


class TrimOperator(BaseOperator):
    """A task that removes what is old."""

    def execute(self, context: Context) -> None:
        """Trim, and push the XCom `counts`."""
        with translate_permanent_errors():
            location, counts = self.trim(Settings.from_environment())
        log_counts(self, context, location, counts)

    def trim(self, settings: Settings) -> tuple[str, Mapping[str, int]]:
        """Remove what is old, and return its location and how much was removed."""
        raise NotImplementedError


class TrimStagingOperator(TrimOperator):
    """Remove old batches and records from the staging area."""

    def trim(self, settings: Settings) -> tuple[str, Mapping[str, int]]:
        """Return the staging area's URL, and the numbers of removed batches and records."""
        from include.batch.cleaning import remove_old_batches, remove_old_records

        # Keep a batch longer than its run may take: Airflow ends a run a quarter of an hour after it is late.
        hours = max(settings.staging_hours, settings.late_minutes / 60 + 1)
        storage = staging(settings)
        batches, records = remove_old_batches(storage, hours), remove_old_records(storage, settings.record_hours)
        return settings.staging_url, {"batches": batches, "records": records}


class TrimModelsOperator(TrimOperator):
    """Remove unused models from this machine's model cache."""

    def trim(self, settings: Settings) -> tuple[str, Mapping[str, int]]:
        """Return the cache's folder, and the number of removed models."""
        from include.models.model_cache import ModelCache

        cache = ModelCache.from_settings(settings)
        return str(cache.folder), {"models": cache.trim()}


class TrimLogsOperator(TrimOperator):
    """Remove old logs of all DAGs from this machine's log folder and, if Airflow uploads them, from S3."""

    def trim(self, settings: Settings) -> tuple[str, Mapping[str, int]]:
        """Return the log folder, and the numbers of removed files and bytes, also on S3."""
        from include.housekeeping.logs import trim_logs

        folder = Path(conf.get_mandatory_value("logging", "base_log_folder")).expanduser()
        try:
            trimmed = trim_logs(folder, settings.log_days)
        finally:
            # Trim both even if one fails.
            remote = self._trim_remote(settings)
        return str(folder), {"files": trimmed.files, "bytes": trimmed.bytes, **remote}

    def _trim_remote(self, settings: Settings) -> Mapping[str, int]:
        """Remove old logs from S3, and return the counts; nothing if Airflow does not upload logs there."""
        folder = conf.get("logging", "remote_base_log_folder", fallback="")
        if not conf.getboolean("logging", "remote_logging") or not folder.startswith("s3://"):
            return {}
        from airflow.providers.amazon.aws.hooks.s3 import S3Hook

        from include.housekeeping.remote_logs import trim_remote_logs

        # As Airflow's handler that uploads them. Without a connection id, boto3's default credential chain applies.
        client: Any = S3Hook(aws_conn_id=conf.get("logging", "remote_log_conn_id", fallback="")).get_conn()
        trimmed = trim_remote_logs(client, folder, datetime.now(UTC) - timedelta(days=settings.log_days))
        self.log.info("%s: files %s, bytes %s", folder, trimmed.files, trimmed.bytes)
        return {"remote_files": trimmed.files, "remote_bytes": trimmed.bytes}
