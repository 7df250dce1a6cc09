"""Scores payments with a bare model, as a program of its own that knows nothing of the product.

python -I oracle.py model_uri payments.jsonl > predictions.json

Each line is a list: whether to predict alone, a message in split form, its rows. Alone means one frame of one row;
the others share one frame. The answers, in order: 0 or 1, or the name of the exception that was raised.
"""

from __future__ import annotations

import json
import sys
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def with_times(payment: dict[str, Any]) -> dict[str, Any]:
    """Older producers' `current_time`, in milliseconds, stands for two columns."""
    if "current_time" not in payment:
        return payment
    try:
        moment = int(payment["current_time"])
    except (ValueError, TypeError, OverflowError):
        return payment
    payment = {"unix_time": moment, **payment}
    if "trans_date_trans_time" not in payment:
        try:
            text = datetime.fromtimestamp(int(payment["current_time"]) / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
        except (ValueError, OverflowError, OSError):
            return payment
        payment["trans_date_trans_time"] = text
    return payment


def main() -> None:
    warnings.simplefilter("ignore")
    import mlflow.sklearn
    import pandas as pd

    sys.set_int_max_str_digits(0)
    model = mlflow.sklearn.load_model(sys.argv[1])
    names = list(model.feature_names_in_)
    # Changes no prediction: starting threads for one row takes longer than asking all the trees.
    model.steps[-1][1].n_jobs = 1
    answers: list[int | str] = []
    together: list[dict[str, Any]] = []
    places: list[int] = []
    with Path(sys.argv[2]).open() as lines:
        for line in lines:
            alone, message, rows = json.loads(line)
            content = json.loads(message)
            for row in rows:
                payment = with_times(dict(zip(content["columns"], content["data"][row], strict=True)))
                if not alone:
                    places.append(len(answers))
                    together.append(payment)
                    answers.append("")
                    continue
                try:
                    frame = pd.DataFrame([payment])[names]
                    answers.append(int(model.predict(frame)[0]))
                except Exception as error:
                    answers.append(type(error).__name__)
    if together:
        frame = pd.DataFrame([[payment[name] for name in names] for payment in together], columns=names)
        for place, label in zip(places, model.predict(frame), strict=True):
            answers[place] = int(label)
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
