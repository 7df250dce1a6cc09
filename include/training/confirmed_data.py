"""Read the payments that people have confirmed, and merge them into the other training data."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from include.errors import TrainingError
from include.payments.columns import COLUMNS, PREDICTION
from include.storage.filesystem import open_url, whole_url, without_login
from include.storage.s3_errors import S3Settings, first_line
from include.training.training_data import TIME, DataSource, digest, parse_dates

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo, FileSystem

log = logging.getLogger(__name__)

PAYMENT_ID = "trans_num"
_OPTION = "--confirmed"
_S3 = S3Settings("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", _OPTION, "AWS_ENDPOINT_URL_S3")


@dataclass(frozen=True)
class ConfirmedPayments:
    """Hold one row per payment, with its newest verdict.

    Several payments may have the same trans_num. `left_out` is the number of payments that no model can learn from.
    """

    frame: pd.DataFrame
    source: DataSource
    left_out: int = 0

    def drop_unusable(self, *, required: tuple[str, ...] = ()) -> ConfirmedPayments:
        """Return the payments with a valid time, no invalid date of birth, and a value in each `required` column.

        The others are left out and logged: nobody can correct a published payment, and it must not stop the training.
        """
        dob = self.frame["dob"]
        is_usable = parse_dates(self.frame[TIME]).notna() & (parse_dates(dob).notna() | dob.isna())
        is_usable &= self.frame[list(required)].notna().all(axis="columns")
        left_out = len(self.frame) - int(is_usable.sum())
        if left_out:
            log.warning("%d confirmed payments are left out: a time or a number is missing or invalid", left_out)
        return replace(self, frame=self.frame[is_usable], left_out=self.left_out + left_out)

    def append_to(self, payments: pd.DataFrame) -> pd.DataFrame:
        """Return the other payments without those that are confirmed, then the confirmed ones, in the same columns."""
        if PAYMENT_ID in payments.columns:
            payments = payments[~self._find_confirmed(payments)]
        confirmed = self.frame.reindex(columns=payments.columns)
        text_columns = [name for name, dtype in confirmed.dtypes.items() if dtype == "str"]
        return pd.concat([payments.astype(dict.fromkeys(text_columns, "str")), confirmed], ignore_index=True)

    def _find_confirmed(self, payments: pd.DataFrame) -> pd.Series[bool]:
        """Return whether each payment is confirmed: by trans_num, and also by time if several have the same one."""
        confirmed_ids = self.frame[PAYMENT_ID]
        ids = payments[PAYMENT_ID].astype("str").where(payments[PAYMENT_ID].notna())
        is_confirmed = ids.isin(confirmed_ids)
        is_shared = ids.duplicated(keep=False) | ids.isin(confirmed_ids[confirmed_ids.duplicated()])
        ambiguous = is_confirmed & is_shared
        if ambiguous.any() and TIME in payments.columns:
            confirmed_keys = pd.MultiIndex.from_arrays([confirmed_ids, parse_dates(self.frame[TIME])])
            keys = pd.MultiIndex.from_arrays([ids[ambiguous], parse_dates(payments.loc[ambiguous, TIME])])
            is_confirmed[ambiguous] = keys.isin(confirmed_keys)
        return is_confirmed

    def to_params(self) -> dict[str, Any]:
        """Return the source and the counts as parameters of an MLflow run."""
        return {
            "confirmed": self.source.name,
            "confirmed_sha256": self.source.sha256,
            "confirmed_payments": len(self.frame),
            "confirmed_frauds": int(self.frame[PREDICTION].sum()),
            "confirmed_left_out": self.left_out,
        }


def read_confirmed(url: str) -> ConfirmedPayments:
    """Read all Parquet files that `fraud export-confirmed` stored in a folder or at s3://bucket/prefix.

    If several files hold a trans_num, the newest file counts. Raise TrainingError if there are no payments or a file
    cannot be read, and SettingError if the URL is invalid.
    """
    shown_url = without_login(url)
    try:
        filesystem, root = open_url(url, _OPTION)
        files = _list_files(filesystem, root)
        if not files:
            raise TrainingError(
                f"there are no confirmed payments at {shown_url}: it has no Parquet file. `fraud export-confirmed` "
                "stores them at FRAUD_CONFIRMED_URL"
            )
        frames = [_read(filesystem, file, shown_url) for file in files]
    except OSError as error:
        raise TrainingError(f"cannot read confirmed payments at {shown_url}: {_S3.with_remedy(error)}") from error
    frame = _newest(frames)
    if frame.empty:
        raise TrainingError(f"there are no confirmed payments at {shown_url}: its {len(files)} files are empty")
    log.info("%d confirmed payments from %d files at %s", len(frame), len(files), shown_url)
    return ConfirmedPayments(frame, DataSource(without_login(whole_url(url, _OPTION)), digest(frame)))


def _newest(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """Return the rows of each trans_num from the last frame that has it.

    An export stores all payments of a trans_num in one file, so they replace those of older files.
    """
    rows = pd.concat(frames, keys=range(len(frames)), names=["file", None]).reset_index(level="file")
    newest = rows[rows["file"] == rows.groupby(PAYMENT_ID)["file"].transform("max")]
    return newest.drop(columns="file").reset_index(drop=True)


def _list_files(filesystem: FileSystem, root: str) -> list[FileInfo]:
    """Return the Parquet files by name, the oldest first, because a name begins with the time of the export."""
    from pyarrow.fs import FileSelector

    infos = filesystem.get_file_info(FileSelector(root.rstrip("/"), allow_not_found=True))
    files = [info for info in infos if info.is_file and info.extension == "parquet"]
    return sorted(files, key=lambda info: info.base_name)


def _read(filesystem: FileSystem, file: FileInfo, shown_url: str) -> pd.DataFrame:
    from pyarrow import ArrowException
    from pyarrow.parquet import read_table

    try:
        with filesystem.open_input_file(file.path) as opened:
            table = read_table(opened)
    except ArrowException as error:
        raise TrainingError(f"{file.base_name} at {shown_url} is not a Parquet file: {first_line(error)}") from error
    missing = [name for name in COLUMNS if name not in table.column_names]
    if missing:
        raise TrainingError(f"{file.base_name} at {shown_url} lacks the column {', '.join(missing)}")
    frame: pd.DataFrame = table.select(list(COLUMNS)).to_pandas()
    return frame
