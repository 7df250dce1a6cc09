"""Merge confirmed payments, from files that the export itself writes, into the other training data."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import boto3
import pandas as pd
import pytest
from typer.testing import CliRunner

from include.cli.main import app
from include.errors import SettingError, TrainingError
from include.models.payment_features import COLUMNS as MODEL_COLUMNS
from include.payments.columns import COLUMNS, MEASURED
from include.producer.simulator import Simulator
from include.reviews.confirmed_file import ConfirmedFile, ConfirmedPayment
from include.training.confirmed_data import ConfirmedPayments, read_confirmed
from include.training.training_data import read_csv, validate
from tests.support.payments import payment


def exported(**verdicts: bool) -> bytes:
    """Return a Parquet file of payments with these trans_num and verdicts."""
    return exported_payments([(payment(1.5, trans_num=name).scored(1), fraud) for name, fraud in verdicts.items()])


def exported_payments(payments: list[tuple[dict[str, Any], bool]]) -> bytes:
    """Return a Parquet file of payments and whether each is fraud."""
    file = ConfirmedFile()
    file.add([ConfirmedPayment(str(row["trans_num"]), fraud, json.dumps(row)) for row, fraud in payments])
    return file.bytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "confirmed"
    folder.mkdir()
    (folder / "confirmed-20260102T000000000000Z.parquet").write_bytes(exported(a=True, b=False))
    (folder / "confirmed-20260103T000000000000Z.parquet").write_bytes(exported(b=True, c=False))
    (folder / "notes.txt").touch()
    return folder


def verdicts(confirmed: ConfirmedPayments) -> dict[str, int]:
    return dict(zip(confirmed.frame["trans_num"], confirmed.frame["is_fraud"], strict=True))


def test_newest_file_counts_for_a_payment(folder: Path) -> None:
    confirmed = read_confirmed(str(folder))
    assert verdicts(confirmed) == {"a": 1, "b": 1, "c": 0}
    assert tuple(confirmed.frame.columns) == COLUMNS
    assert confirmed.to_params() == {
        "confirmed": folder.as_uri(), "confirmed_sha256": confirmed.source.sha256, "confirmed_payments": 3,
        "confirmed_frauds": 2, "confirmed_left_out": 0,
    }  # fmt: skip


def test_confirmed_payments_replace_others_of_the_same_trans_num(
    folder: Path, tmp_path: Path, payments: pd.DataFrame
) -> None:
    file = tmp_path / "reference.csv"
    reference = payments.head(50).copy()
    reference.loc[reference.index[7], ["trans_num", "is_fraud", "amt"]] = ["a", 0, 99.0]
    reference.assign(note="x").to_csv(file)
    confirmed = read_confirmed(str(folder))

    joined = confirmed.append_to(read_csv(file)[0])

    assert len(joined) == 52
    assert joined["trans_num"].is_unique
    assert joined.iloc[-3:]["trans_num"].tolist() == ["a", "b", "c"]
    assert joined.iloc[-3:]["amt"].tolist() == [1.5] * 3
    assert joined["note"].isna().sum() == 3
    checked = validate(joined, MODEL_COLUMNS, MEASURED)
    assert checked["is_fraud"].sum() == reference.drop(index=reference.index[7])["is_fraud"].sum() + 2
    assert {len(card) for card in joined["cc_num"].iloc[-3:]} == {19}


def test_confirmed_payments_are_appended_to_simulated_ones(folder: Path) -> None:
    simulated = Simulator(seed=1, per_day=500).frame(days=1)
    joined = read_confirmed(str(folder)).append_to(simulated)
    assert len(joined) == len(simulated) + 3
    assert set(joined["cc_num"].map(type)) == {str}
    validate(joined, MODEL_COLUMNS, MEASURED)


def test_missing_column_of_reference_data_is_an_error_with_confirmed_payments(
    folder: Path, payments: pd.DataFrame
) -> None:
    joined = read_confirmed(str(folder)).append_to(payments.drop(columns=["dob", "trans_num"]))
    with pytest.raises(TrainingError, match="lack the column dob"):
        validate(joined, MODEL_COLUMNS, MEASURED)


def test_unusable_confirmed_payments_are_left_out(tmp_path: Path) -> None:
    changes = [
        {"trans_num": "no time", "trans_date_trans_time": None},
        {"trans_num": "bad time", "trans_date_trans_time": "yesterday"},
        {"trans_num": "bad birthday", "dob": "17/11/1964"},
        {"trans_num": "no birthday", "dob": None},
        {"trans_num": "no number", "lat": "north"},
        {"trans_num": "good"},
    ]
    content = exported_payments([(payment(1.5, **values).scored(1), True) for values in changes])
    (tmp_path / "confirmed.parquet").write_bytes(content)
    confirmed = read_confirmed(str(tmp_path))
    assert set(verdicts(confirmed.drop_unusable())) == {"no birthday", "no number", "good"}
    assert set(verdicts(confirmed.drop_unusable(required=MEASURED))) == {"no birthday", "good"}
    assert confirmed.drop_unusable().to_params()["confirmed_left_out"] == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there are no confirmed payments at {folder}: it has no Parquet file"),
        (b"", "confirmed.parquet at {folder} is not a Parquet file"),
        (b"PAR1 and so on", "confirmed.parquet at {folder} is not a Parquet file"),
        (exported(), "there are no confirmed payments at {folder}: its 1 files are empty"),
    ],
)
def test_error_names_folder_without_payments(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "confirmed.parquet").write_bytes(content)
    with pytest.raises(TrainingError) as caught:
        read_confirmed(str(tmp_path))
    assert message.format(folder=tmp_path) in str(caught.value)


def test_error_names_file_without_payment_columns(tmp_path: Path) -> None:
    pd.DataFrame({"trans_num": ["a"]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(TrainingError, match=r"other.parquet at .* lacks the column trans_date_trans_time, cc_num"):
        read_confirmed(str(tmp_path))


@pytest.mark.parametrize("url", ["s3://", "ftp://host/x", "s3://key:open-sesame@"])
def test_error_for_invalid_url_names_option_and_hides_keys(url: str) -> None:
    with pytest.raises(SettingError, match="--confirmed") as caught:
        read_confirmed(url)
    assert "open-sesame" not in str(caught.value)


def test_confirmed_payments_are_read_from_s3(
    service_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = f"{uuid.uuid4().hex[:12]}/confirmed"
    url = f"s3://staging/{prefix}"
    with pytest.raises(TrainingError, match=f"there are no confirmed payments at {url}: "):
        read_confirmed(url)
    for name, content in (("2", exported(a=False)), ("1", exported(a=True, b=True))):
        boto3.client("s3").put_object(Bucket="staging", Key=f"{prefix}/{name}.parquet", Body=content)
    confirmed = read_confirmed(f"{url}/")
    assert verdicts(confirmed) == {"b": 1, "a": 0}
    assert confirmed.source.name == f"{url}/"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(TrainingError, match=f"cannot read confirmed payments at {url}: .*AWS_SECRET_ACCESS_KEY"):
        read_confirmed(url)


def test_command_names_empty_folder(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["train", "--rows", "100", "--confirmed", str(tmp_path)])
    assert done.exit_code == 1
    assert f"there are no confirmed payments at {tmp_path}" in done.stderr
