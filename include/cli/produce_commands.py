"""The commands `fraud produce simulate`, `csv` and `api`: payments to the input topic."""

from __future__ import annotations

import datetime
import logging
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from include.cli.console import StderrHandler, TextOutput, progress, write_error
from include.cli.registration import add_command

if TYPE_CHECKING:
    from include.producer.delivery import MessageSink
    from include.producer.message import PaymentStream

app = typer.Typer(
    name="produce",
    help="Send payments from one of three sources to the input topic until stopped (Ctrl-C).",
    no_args_is_help=True,
)

_PROGRESS_SECONDS = 10.0

Rate = Annotated[float, typer.Option(min=0, help="Payments a second; 0: as fast as the broker accepts them.")]
Count = Annotated[int | None, typer.Option(min=1, help="Stop after this many payments. Default: never.")]
Topic = Annotated[
    str | None, typer.Option(help="Topic to send to; it must exist. Default: FRAUD_INPUT_TOPIC, else topic_1.")
]
Servers = Annotated[
    str | None,
    typer.Option(
        help="Kafka brokers as host:port, separated by commas. Default: the connection in AIRFLOW_CONN_KAFKA_DEFAULT, "
        "else KAFKA_BOOTSTRAP_SERVERS; its other settings, such as a login, are always used."
    ),
]
Print = Annotated[bool, typer.Option("--print", help="Print the messages instead of sending them; needs no Kafka.")]


def simulate(
    rate: Rate = 10,
    fraud_share: Annotated[float, typer.Option(min=0, max=1, help="Share of payments that are fraud.")] = 0.01,
    cards: Annotated[int, typer.Option(min=1, help="Number of cards.")] = 1_000,
    seed: Annotated[
        int | None, typer.Option(min=0, help="The same seed gives the same payments. Default: random.")
    ] = None,
    count: Count = None,
    start: Annotated[
        datetime.datetime | None,
        typer.Option(
            formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S"],
            help="Begin of a simulated calendar (UTC) with busy and quiet hours and frauds mostly at night. "
            "Default: payments have the real time, and all hours are alike.",
        ),
    ] = None,
    per_day: Annotated[
        float,
        typer.Option(min=1, help="Payments in a simulated day. With --rate it determines how fast the days pass."),
    ] = 20_000,
    topic: Topic = None,
    bootstrap_servers: Servers = None,
    print_: Print = False,
) -> None:
    """Simulate payments of cardholders at merchants, with bursts of fraud on stolen cards."""
    from include.producer.simulated import SimulatedPayments

    _set_up_logging()
    sink = _sink(topic, bootstrap_servers, print_)
    if seed is None:
        seed = secrets.randbelow(1_000_000)
        logging.getLogger(__name__).info("seed %s (--seed %s sends the same payments again)", seed, seed)
    source = SimulatedPayments(
        rate=rate, seed=seed, fraud_share=fraud_share, cards=cards, count=count, start=start, per_day=per_day
    )
    _produce(source, sink)


def csv(
    file: Annotated[Path, typer.Argument(help="CSV file with a header and the 22 columns of a payment, in any order.")],
    rate: Rate = 10,
    count: Count = None,
    loop: Annotated[bool, typer.Option("--loop", help="Start again at the end of the file.")] = False,
    now: Annotated[
        bool, typer.Option("--now", help="Replace each payment's time by the time at which it is sent.")
    ] = False,
    topic: Topic = None,
    bootstrap_servers: Servers = None,
    print_: Print = False,
) -> None:
    """Replay a CSV file of payments, such as the public fraud-detection data, with every value as it is in the file."""
    from include.producer.csv_file import CsvPayments

    _set_up_logging()
    sink = _sink(topic, bootstrap_servers, print_)
    _produce(CsvPayments(file, rate=rate, count=count, loop=loop, now=now), sink)


def api(
    url: Annotated[str, typer.Argument(help="URL that returns current payments as JSON in split form.")],
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds from one request to the next.")] = 15,
    count: Count = None,
    topic: Topic = None,
    bootstrap_servers: Servers = None,
    print_: Print = False,
) -> None:
    """Poll an HTTP API for payments. After a failure it waits increasingly longer and tries again."""
    from include.producer.api import ApiPayments

    _set_up_logging()
    sink = _sink(topic, bootstrap_servers, print_)
    _produce(ApiPayments(url, interval=interval, count=count), sink)


add_command(app, simulate)
add_command(app, csv)
add_command(app, api)


def _sink(topic: str | None, servers: str | None, printed: bool) -> MessageSink:
    from include.producer.delivery import KafkaSink, StdoutSink

    if printed:
        return StdoutSink()

    from include.kafka.client_config import read_client_config
    from include.kafka.cluster import Cluster
    from include.kafka.connection_extra import to_client_config
    from include.settings import Settings

    option = to_client_config({"bootstrap.servers": servers}, "--bootstrap-servers") if servers else {}
    environment = dict(os.environ) | ({"KAFKA_BOOTSTRAP_SERVERS": servers} if servers else {})
    config = read_client_config(environment) | option
    return KafkaSink(Cluster(config), topic or Settings.from_environment().input_topic)


def _produce(source: PaymentStream, sink: MessageSink) -> None:
    from include.producer.delivery import StdoutSink
    from include.producer.produce import produce

    with progress(_PROGRESS_SECONDS) as show:
        counts = produce(source, sink, show)
    if isinstance(sink, StdoutSink):
        write_error(counts)
    else:
        TextOutput().line(counts)


def _set_up_logging() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", handlers=[StderrHandler()])
    # httpx logs each request with its whole URL, which may hold keys.
    logging.getLogger("httpx").setLevel(logging.WARNING)
