"""Payments that people have confirmed, as `fraud export-confirmed` stores them, beside the other training data."""

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
    """One row a payment, with its newest verdict; several payments may have one trans_num. `left_out`: those that no
    model can learn from."""

    frame: pd.DataFrame
    source: DataSource
    left_out: int = 0

    def usable(self, *, complete: tuple[str, ...] = ()) -> ConfirmedPayments:
        """Without payments that have no time, or nothing in one of these columns: nobody can mend what was published,
        and it must not stop the training on all others."""
        good = parse_dates(self.frame[TIME]).notna() & (
            parse_dates(self.frame["dob"]).notna() | self.frame["dob"].isna()
        )
        good &= self.frame[list(complete)].notna().all(axis="columns")
        left_out = len(self.frame) - int(good.sum())
        if left_out:
            log.warning("%d confirmed payments are left out: a time or a number is missing, or is none", left_out)
        return replace(self, frame=self.frame[good], left_out=self.left_out + left_out)

    def join(self, payments: pd.DataFrame) -> pd.DataFrame:
        """The others, but for those that are confirmed, and then these: in the others' columns."""
        if PAYMENT_ID in payments.columns:
            payments = payments[~self._replaces(payments)]
        confirmed = self.frame.reindex(columns=payments.columns)
        texts = [name for name, kind in confirmed.dtypes.items() if kind == "str"]
        return pd.concat([payments.astype(dict.fromkeys(texts, "str")), confirmed], ignore_index=True)

    def _replaces(self, payments: pd.DataFrame) -> pd.Series[bool]:
        """Tell which payments are confirmed: by trans_num, and where several have the same one, also by their time."""
        names = payments[PAYMENT_ID].astype("str").where(payments[PAYMENT_ID].notna())
        replaced = names.isin(self.frame[PAYMENT_ID])
        shared = replaced & (
            names.duplicated(keep=False) | names.isin(self.frame[PAYMENT_ID][self.frame[PAYMENT_ID].duplicated()])
        )
        if shared.any() and TIME in payments.columns:
            known = pd.MultiIndex.from_arrays([self.frame[PAYMENT_ID], parse_dates(self.frame[TIME])])
            own = pd.MultiIndex.from_arrays([names[shared], parse_dates(payments.loc[shared, TIME])])
            replaced[shared] = own.isin(known)
        return replaced

    def describe(self) -> dict[str, Any]:
        """As MLflow parameters."""
        return {
            "confirmed": self.source.name,
            "confirmed_sha256": self.source.sha256,
            "confirmed_payments": len(self.frame),
            "confirmed_frauds": int(self.frame[PREDICTION].sum()),
            "confirmed_left_out": self.left_out,
        }


def read_confirmed(url: str) -> ConfirmedPayments:
    """All Parquet files in a folder or at s3://bucket/prefix; of a trans_num in several files, the newest counts."""
    shown = without_login(url)
    try:
        filesystem, root = open_url(url, _OPTION)
        files = _list_files(filesystem, root)
        if not files:
            raise TrainingError(
                f"there are no confirmed payments at {shown}: no Parquet file. `fraud export-confirmed` stores them "
                "at FRAUD_CONFIRMED_URL"
            )
        frames = [_read(filesystem, file, shown) for file in files]
    except OSError as error:
        raise TrainingError(f"cannot read confirmed payments at {shown}: {_S3.with_remedy(error)}") from error
    frame = _newest(frames)
    if frame.empty:
        raise TrainingError(f"there are no confirmed payments at {shown}: its {len(files)} files hold none")
    log.info("%d confirmed payments from %d files at %s", len(frame), len(files), shown)
    return ConfirmedPayments(frame, DataSource(without_login(whole_url(url, _OPTION)), digest(frame)))


def _newest(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """An export stores all payments of a trans_num in one file, so that they replace what an older file says of it."""
    whole = pd.concat(frames, keys=range(len(frames)), names=["file", None]).reset_index(level="file")
    newest = whole[whole["file"] == whole.groupby(PAYMENT_ID)["file"].transform("max")]
    return newest.drop(columns="file").reset_index(drop=True)


def _list_files(filesystem: FileSystem, root: str) -> list[FileInfo]:
    """By name, and so by time."""
    from pyarrow.fs import FileSelector

    found = filesystem.get_file_info(FileSelector(root.rstrip("/"), allow_not_found=True))
    files = [info for info in found if info.is_file and info.extension == "parquet"]
    return sorted(files, key=lambda info: info.base_name)


def _read(filesystem: FileSystem, file: FileInfo, shown: str) -> pd.DataFrame:
    from pyarrow import ArrowException
    from pyarrow.parquet import read_table

    try:
        with filesystem.open_input_file(file.path) as opened:
            table = read_table(opened)
    except ArrowException as error:
        raise TrainingError(f"{file.base_name} at {shown} is no Parquet file: {first_line(error)}") from error
    missing = [name for name in COLUMNS if name not in table.column_names]
    if missing:
        raise TrainingError(f"{file.base_name} at {shown} lacks the column {', '.join(missing)}")
    frame: pd.DataFrame = table.select(list(COLUMNS)).to_pandas()
    return frame
