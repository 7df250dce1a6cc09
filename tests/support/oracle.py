"""Scores payments with a bare model, as a program of its own that knows nothing of the product.

python -I oracle.py model_uri payments.jsonl > predictions.json

Each line is a list: whether to predict alone, a message in split form, its rows. Alone means one frame of one row;
the others share one frame. The answers, in order: 0 or 1, or the name of the exception that was raised.
"""

from __future__ import annotations

import json
import sys
import warnings
from datetime import datetime, timedelta
from fractions import Fraction
from math import floor
from pathlib import Path
from typing import Any


def with_times(payment: dict[str, Any]) -> dict[str, Any]:
    """Add the two columns that older producers' `current_time` stands for; its magnitude says its unit."""
    value = payment.get("current_time")
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return payment
    try:
        number = Fraction(str(value).strip())
    except (ValueError, ZeroDivisionError):
        return payment
    units = ((10**11, 1), (10**14, 10**3), (10**17, 10**6), (2**63, 10**9))
    unit = next((unit for limit, unit in units if abs(number) < limit), None)
    if unit is None:
        return payment
    milliseconds = floor(number * 1000 / unit)
    text = (datetime(1970, 1, 1) + timedelta(milliseconds=milliseconds)).strftime("%Y-%m-%d %H:%M:%S")  # noqa: DTZ001
    return {"unix_time": milliseconds, "trans_date_trans_time": text, **payment}


def main() -> None:
    warnings.simplefilter("ignore")
    import mlflow.sklearn
    import pandas as pd
    from mlflow.models import get_model_info
    from mlflow.types import DataType

    sys.set_int_max_str_digits(0)
    model = mlflow.sklearn.load_model(sys.argv[1])
    names = list(model.feature_names_in_)
    texts = {column.name for column in get_model_info(sys.argv[1]).signature.inputs if column.type == DataType.string}
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
                # The values of one row may come without a list of their own.
                flat = not any(isinstance(value, list) for value in content["data"])
                values = content["data"] if flat else content["data"][row]
                payment = with_times(dict(zip(content["columns"], values, strict=True)))
                # In a column of texts of the training frame a number is its digits.
                payment |= {
                    name: json.dumps(payment[name])
                    for name in texts & payment.keys()
                    if isinstance(payment[name], int | float)
                }
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
