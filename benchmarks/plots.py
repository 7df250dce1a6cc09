"""Draw plots of the results as SVG files that are small enough for the repository."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.tables import label_of

Result = dict[str, Any]
_STEPS = ("drain", "predict", "publish", "chain")


def draw(found: dict[str, Result], folder: Path) -> list[str]:
    """Write the plots, and return their links for the docs."""
    # The same results give the same file.
    matplotlib.rcParams["svg.hashsalt"] = "benchmarks"
    links = []
    for name, plot in (("chain", _chain), ("age", _age), ("backlog", _backlog)):
        if name in found:
            figure = Figure(figsize=(7, 3.4), layout="constrained")
            axes = figure.add_subplot()
            axes.spines[["top", "right"]].set_visible(False)
            text = plot(axes, found[name])
            figure.savefig(folder / f"benchmark_{name}.svg", metadata={"Date": None})
            links.append(f"![{text}](images/benchmark_{name}.svg)")
    return links


def _chain(axes: Axes, result: Result) -> str:
    contenders = result["contenders"]
    width = 0.8 / len(contenders)
    for number, (name, one) in enumerate(contenders.items()):
        who, shards = name.split()
        rates = [one["per_second"][step] for step in _STEPS]
        middles = [rate["median"] for rate in rates]
        spread = list(
            zip(*((rate["median"] - rate["least"], rate["most"] - rate["median"]) for rate in rates), strict=True)
        )
        places = [place + number * width for place in range(len(_STEPS))]
        axes.bar(places, middles, width, yerr=spread, label=label_of(name), color=_color(who, shards))
    axes.set_xticks([place + 0.4 - width / 2 for place in range(len(_STEPS))], [*_STEPS[:3], "drain to commit"])
    axes.set_ylabel("payments a second")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    # Above the bars, which may reach into each corner.
    axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    return "Payments a second of each step, beside bare loops"


def _color(who: str, shards: str) -> str:
    dark, light = ("#1f5fa8", "#7fb0e0") if who == "product" else ("#6b6b6b", "#b9b9b9")
    return dark if shards == "1" else light


def _age(axes: Axes, result: Result) -> str:
    for rate, one in result["by_rate"].items():
        axes.plot(one["percentiles"], range(101), label=f"{float(rate):,.0f} a second")
    axes.set_xlabel("age in seconds when the prediction can be read")
    axes.set_ylabel("% of the payments")
    axes.set_xlim(left=0)
    axes.legend(frameon=False)
    return "Age of payments by percentile"


def _backlog(axes: Axes, result: Result) -> str:
    seconds, done = zip(*_steps(result["points"]), strict=True)
    axes.plot(seconds, done)
    axes.set_xlabel("seconds")
    axes.set_ylabel("payments committed")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    return "A backlog is worked off: payments committed over time"


def _steps(points: list[list[float]]) -> Iterator[tuple[float, float]]:
    """Yield the points of a step function: the number of commits is constant between two commits."""
    before = 0.0
    for second, done in points:
        yield second, before
        yield second, done
        before = done
