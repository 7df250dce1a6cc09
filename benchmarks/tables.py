"""Turn results into tables of text, with ratios."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import Any

Result = dict[str, Any]
_STEPS = ("drain", "predict", "publish", "chain")


@dataclass(frozen=True)
class Table:
    """Hold one table of the docs."""

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    note: str = ""


def tables(found: dict[str, Result]) -> list[Table]:
    """Return the tables of all results."""
    return [table for name, make in _MAKERS.items() if name in found for table in make(found[name])]


def _chain(result: Result) -> Iterator[Table]:
    """Yield the tables of the chain. A step is compared with bare loops in the same number of processes."""
    contenders = result["contenders"]
    rows = []
    for name, one in contenders.items():
        who, shards = name.split()
        rates = one["per_second"]
        peak = max(one["peak_mb"].values())
        rows.append((label_of(name), *(_rate(rates[step]) for step in _STEPS), f"{peak:,.0f} MB"))
        if who == "bare":
            ours = contenders.get(f"product {shards}")
            if ours:
                rows.append(("— product : bare", *(_ratio(ours, one, step) for step in _STEPS), ""))
    load = max((one["model_seconds"] or 0 for one in contenders.values()), default=0)
    yield Table(
        f"The chain: payments a second, {result['payments']:,} of {result['message_bytes']:.0f} bytes",
        ("", *_STEPS[:3], "drain to commit", "peak memory of a process"),
        rows,
        f"Median (least to most) of the sittings. Forest: mean depth {result['forest']['depth']:.1f}, "
        f"{result['forest']['nodes']:,.0f} nodes a tree. Imports and loading the model ({load:.1f} s) come on top, "
        "once a run; a bare chain stages nothing and survives nothing.",
    )
    yield Table(
        "Processor time of a payment, in microseconds",
        ("", *_STEPS[:3], "in sum"),
        [_processor_time(name, one, result["payments"]) for name, one in contenders.items()],
        "Medians, all threads of the contender's own processes; the broker's come on top. The difference to the bare "
        "loops is what it costs to keep each payment on disk between two tasks, as it came and as it goes out.",
    )


def label_of(contender: str) -> str:
    """Return the name of a contender for readers."""
    who, shards = contender.split()
    return f"{who}, {shards} {'process' if shards == '1' else 'processes'}"


def _processor_time(name: str, one: Result, payments: int) -> tuple[str, ...]:
    each = [median(sitting["cpu_seconds"][step] for sitting in one["sittings"]) for step in _STEPS[:3]]
    return (label_of(name), *(f"{seconds / payments * 1e6:.1f}" for seconds in (*each, sum(each))))


def _ratio(ours: Result, bare: Result, step: str) -> str:
    """Return the ratio as text, computed for each sitting: both contenders were measured then."""
    pairs = zip(ours["sittings"], bare["sittings"], strict=True)
    ratios = sorted(other["seconds"][step] / one["seconds"][step] for one, other in pairs)
    return f"{ratios[len(ratios) // 2]:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"


def _rate(rates: Result) -> str:
    return f"{rates['median']:,.0f} ({rates['least']:,.0f} to {rates['most']:,.0f})"


def _runs(result: Result) -> Iterator[Table]:
    rows = []
    for count, one in result["by_payments"].items():
        tasks = ", ".join(f"{name} {seconds:.1f}" for name, seconds in one["tasks"].items() if seconds >= 0.05)
        rows.append(
            (
                f"{int(count):,}",
                f"{one['seconds']:.1f}",
                f"{one['empty_seconds']:.1f}",
                f"{one['more_seconds']:+.1f}",
                tasks,
            )
        )
    yield Table(
        f"Seconds of a run, {_shards(result)}",
        ("payments", "score_payments", "empty DAG of that shape", "more", "of these, seconds in tasks"),
        rows,
        f"Medians of {result['sittings']} pairs, from the run's first moment to its last.",
    )


def _worker_shards(result: Result) -> Iterator[Table]:
    found = result["by_shards"]
    first = next(iter(found.values()))
    yield Table(
        f"Seconds of a run by shards, {result['payments']:,} payments on two Celery workers that share no disk",
        ("shards", "seconds", "to the first row", "of these, seconds in tasks, of several shards the longest"),
        [
            (number, _seconds(one["seconds"]), _ratios(one["seconds"], first["seconds"]), _in_tasks(one["tasks"]))
            for number, one in found.items()
        ],
        f"Median (least to most) of {result['sittings']} sittings, contenders in turn; ratios by sitting. Workers, "
        "broker, S3 and Airflow share the machine's cores, and two processes at work fill two of them.",
    )
    preload = result["preload"]
    yield Table(
        f"Preload on Celery workers: a run with {result['few']:,} payments, 1 shard",
        ("", "seconds", "processor seconds of workers and tasks", "of these, seconds in tasks"),
        [
            (f"{name} preload", _seconds(one["seconds"]), _seconds(one["cpu"]), _in_tasks(one["tasks"]))
            for name, one in preload.items()
        ],
        f"With to without: {_ratios(preload['with']['seconds'], preload['without']['seconds'])} of the time, "
        f"{_ratios(preload['with']['cpu'], preload['without']['cpu'])} of the processor time.",
    )


def _ledger(result: Result) -> Iterator[Table]:
    ours = result["seconds"]["product"]
    rows = [("the product, from the first offset to the last commit", _rates(result["rows"], ours), "")]
    rows += [
        (f"bare COPY into {name}", _rates(result["rows"], each), _ratios(each, ours))
        for name, each in result["seconds"].items()
        if name != "product"
    ]
    yield Table(
        f"The ledger: rows a second, {result['rows']:,} of {result['row_bytes']:.0f} bytes",
        ("", "rows a second", "product to it"),
        rows,
        f"Median (least to most) of {result['sittings']} sittings, contenders in turn, each on an empty database; "
        "ratios by sitting. The rows of a bare COPY lie in memory, ready made.",
    )


def _rates(count: int, seconds: list[float]) -> str:
    return f"{count / median(seconds):,.0f} ({count / max(seconds):,.0f} to {count / min(seconds):,.0f})"


def _seconds(seconds: list[float]) -> str:
    return f"{median(seconds):.1f} ({min(seconds):.1f} to {max(seconds):.1f})"


def _ratios(ours: list[float], others: list[float]) -> str:
    return f"{median(one / other for one, other in zip(ours, others, strict=True)):.2f}"


def _in_tasks(tasks: dict[str, float]) -> str:
    return ", ".join(f"{name} {seconds:.1f}" for name, seconds in tasks.items())


def _idle(result: Result) -> Iterator[Table]:
    hour, resting = result["hour_seconds"], result["resting_hour_seconds"]
    rows = [(part, f"{hour[part]:,.0f}", f"{resting[part]:,.0f}") for part in hour]
    rows.append(("all", f"{sum(hour.values()):,.0f}", f"{sum(resting.values()):,.0f}"))
    yield Table(
        "An idle hour: processor seconds of each part",
        ("part", "with a run a minute that finds nothing", "DAG paused"),
        rows,
        f"From {result['minutes']:g} minutes each, scaled to an hour of 3,600 seconds a core. One idle run: "
        f"{_run(result['run_seconds'])}. Reading the DAG file: {_parses(result['parse_seconds'])}.",
    )


def _run(seconds: float) -> str:
    """Return seconds as text. Other work on the machine can turn round a difference of two long measurements."""
    return f"{seconds:.1f} processor seconds" if seconds > 0 else "less than what the two stretches differ by"


def _parses(seconds: list[float]) -> str:
    return f"{median(seconds):.2f} s, at most {max(seconds):.2f} of {len(seconds)} times"


def _age(result: Result) -> Iterator[Table]:
    rows = [
        (
            f"{float(rate):,.0f}",
            f"{one['payments']:,}",
            f"{one['median']:.1f}",
            f"{one['p99']:.1f}",
            f"{one['most']:.1f}",
        )
        for rate, one in result["by_rate"].items()
    ]
    yield Table(
        "Age of a payment when its prediction can be read, seconds",
        ("payments a second", "payments", "median", "99th percentile", "oldest"),
        rows,
        f"{result['minutes']:g} minutes each, a run every minute: half a minute of the median is waiting for it.",
    )


def _backlog(result: Result) -> Iterator[Table]:
    rate = result["per_second_after_first_commit"]
    rows = [
        ("seconds until all was committed", f"{result['seconds']:,.0f}"),
        ("payments a second", f"{result['per_second']:,.0f}"),
        ("payments a second after the first commit", f"{rate:,.0f}" if rate else "-"),
        ("payments a second of each run, in turn", " → ".join(f"{rate:,.0f}" for rate in result["run_rates"])),
    ]
    rows += [
        (f"peak memory of {task}", f"{peak['rss']:,.0f} MiB, {peak['uss']:,.0f} of them its own")
        for task, peak in result["peak_mib"].items()
    ]
    yield Table(f"A backlog of {result['payments']:,} payments, {_shards(result)}", ("", ""), rows)


def _peers(result: Result) -> Iterator[Table]:
    spark = result["spark"]
    rows = [
        (f"this project, shards {shards}", _spread(rates), _times(rates, spark["per_second"]), "exactly once")
        for shards, rates in result["product"].items()
    ]
    rows.append(("Spark Structured Streaming, warm", _spread(spark["sittings"]), "1", spark["guarantee"]))
    for form, one in result["operators"].items():
        rate = one["per_second"]
        name = f"Airflow's Kafka operators, {'as documented' if form == 'plain' else 'batches'}"
        rows.append((name, f"{rate:,.0f}", f"{rate / spark['per_second']:.2g}", one["guarantee"]))
    void = (
        " **Void**: Spark is far below the 34,000 a second that were once seen on two cores." if result["void"] else ""
    )
    yield Table(
        "Peers: payments a second, the same topic, forest and machine",
        ("", "payments a second", "to Spark", "delivers"),
        rows,
        f"{result['payments']:,} payments a measurement, median (least to most).{void}",
    )


def _sampling(result: Result) -> Iterator[Table]:
    counts = result["counts"]
    rows = []
    for name, sittings in result["contenders"].items():
        cells = [_mean(sittings, metric, digits) for metric, digits in _JUDGED.items()]
        rows.append((name, *cells))
    train, held_out = (
        f"{_least_to_most([one[f'{part}_payments'] for one in counts])} payments with "
        f"{_least_to_most([one[f'{part}_frauds'] for one in counts])} frauds"
        for part in ("train", "held_out")
    )
    yield Table(
        "Sampling and calibration, judged on later payments",
        (
            "",
            "average precision",
            "Brier score",
            f"recall of the {result['alerts']:.0%} of payments with the highest probability",
            "precision at 0.5",
            "recall at 0.5",
            "calibration error",
            "expected / actual frauds",
            "seconds of training",
        ),
        rows,
        f"Mean (least to most) of {len(counts)} seeds, each with simulated payments of its own: trained on {train}, "
        f"judged on {held_out}. Forests of {result['trees']} trees, features `payment`, one core; of seconds the "
        "median. Calibration error: the expected one, ten bins of equal width. Expected frauds: the sum of the "
        "probabilities.",
    )


_JUDGED = {
    "average_precision": 3,
    "brier_score": 5,
    "recall_of_alerts": 3,
    "precision": 3,
    "recall": 3,
    "calibration_error": 4,
    "expected_frauds": 2,
    "training_seconds": 1,
}


def _mean(sittings: list[Result], metric: str, digits: int) -> str:
    values = [one[metric] for one in sittings]
    # Other work on the machine makes single trainings slow.
    average = median(values) if metric == "training_seconds" else mean(values)
    middle, least, most = (f"{value:.{digits}f}" for value in (average, min(values), max(values)))
    return f"{middle} ({least} to {most})"


def _least_to_most(numbers: list[int]) -> str:
    return f"{min(numbers):,} to {max(numbers):,}"


def _spread(rates: list[float]) -> str:
    ordered = sorted(rates)
    return f"{ordered[len(ordered) // 2]:,.0f} ({ordered[0]:,.0f} to {ordered[-1]:,.0f})"


def _times(rates: list[float], other: float) -> str:
    return f"{sorted(rates)[len(rates) // 2] / other:.2f}"


def _shards(result: Result) -> str:
    return "1 shard" if result["shards"] == 1 else f"{result['shards']} shards"


_MAKERS: dict[str, Callable[[Result], Iterator[Table]]] = {
    "chain": _chain,
    "ledger": _ledger,
    "peers": _peers,
    "shards": _worker_shards,
    "runs": _runs,
    "age": _age,
    "backlog": _backlog,
    "idle": _idle,
    "sampling": _sampling,
}
