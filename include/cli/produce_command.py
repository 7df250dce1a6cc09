"""`fraud produce`: payments to the input topic, simulated, from a CSV file or from an HTTP API."""

from __future__ import annotations

import datetime
import logging
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from include.producer.message import PaymentStream

app = typer.Typer(
    name="produce",
    help="Send payments to the input topic until stopped (Ctrl-C), from one of three sources.",
    no_args_is_help=True,
)

Rate = Annotated[float, typer.Option(min=0, help="Payments a second; 0 is as fast as the broker takes them.")]
Count = Annotated[int | None, typer.Option(min=1, help="Stop after this many payments. Without it: until stopped.")]
Topic = Annotated[
    str | None, typer.Option(help="Topic to send to; it must exist. Default: FRAUD_INPUT_TOPIC, else topic_1.")
]
Servers = Annotated[
    str | None,
    typer.Option(
        help="Kafka brokers as host:port, several with commas. Default: the connection in AIRFLOW_CONN_KAFKA_DEFAULT, "
        "else KAFKA_BOOTSTRAP_SERVERS; its other settings, such as a login, are used in any case."
    ),
]
Print = Annotated[bool, typer.Option("--print", help="Print the messages instead of sending them: no Kafka is needed.")]


@app.command()
def simulate(
    rate: Rate = 10,
    fraud_share: Annotated[float, typer.Option(min=0, max=1, help="Share of payments that are fraud.")] = 0.01,
    cards: Annotated[int, typer.Option(min=1, help="Number of cards that pay.")] = 1_000,
    seed: Annotated[
        int | None, typer.Option(min=0, help="The same number gives the same payments. Default: a new one each time.")
    ] = None,
    count: Count = None,
    start: Annotated[
        datetime.datetime | None,
        typer.Option(
            formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S"],
            help="Begin a simulated calendar here (UTC), with busy and quiet hours and frauds mostly at night. "
            "Without it payments carry the real time, and every hour is like every other.",
        ),
    ] = None,
    per_day: Annotated[
        float,
        typer.Option(min=1, help="Payments in one simulated day: with --rate it says how fast such a day passes."),
    ] = 20_000,
    topic: Topic = None,
    bootstrap_servers: Servers = None,
    print_: Print = False,
) -> None:
    """Make up believable payments: people, merchants, and bursts of fraud on stolen cards."""
    from include.producer.simulated import SimulatedPayments

    _set_up_logging()
    if seed is None:
        seed = secrets.randbelow(1_000_000)
        logging.getLogger(__name__).info("seed %s (--seed %s sends the same payments again)", seed, seed)
    source = SimulatedPayments(
        rate=rate, seed=seed, fraud_share=fraud_share, cards=cards, count=count, start=start, per_day=per_day
    )
    _produce(source, topic, bootstrap_servers, print_)


@app.command()
def csv(
    file: Annotated[Path, typer.Argument(help="CSV file with a header and the 22 columns of a payment, in any order.")],
    rate: Rate = 10,
    count: Count = None,
    loop: Annotated[bool, typer.Option("--loop", help="Begin again at the end of the file.")] = False,
    now: Annotated[
        bool, typer.Option("--now", help="Give each payment the time at which it is sent instead of the file's.")
    ] = False,
    topic: Topic = None,
    bootstrap_servers: Servers = None,
    print_: Print = False,
) -> None:
    """Replay a file of payments, such as the public fraud-detection data, every value as it is written there."""
    from include.producer.csv_file import CsvPayments

    _set_up_logging()
    _produce(CsvPayments(file, rate=rate, count=count, loop=loop, now=now), topic, bootstrap_servers, print_)


@app.command()
def api(
    url: Annotated[str, typer.Argument(help="Address that answers with current payments as JSON in split form.")],
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds from one request to the next.")] = 15,
    count: Count = None,
    topic: Topic = None,
    bootstrap_servers: Servers = None,
    print_: Print = False,
) -> None:
    """Poll a payments API; when it fails, wait longer and longer and try again."""
    from include.producer.api import ApiPayments

    _set_up_logging()
    _produce(ApiPayments(url, interval=interval, count=count), topic, bootstrap_servers, print_)


def _produce(source: PaymentStream, topic: str | None, servers: str | None, printed: bool) -> None:
    from include.producer.delivery import KafkaDelivery, MessageSink, Printed
    from include.producer.produce import produce
    from include.settings import Settings

    delivery: MessageSink = Printed()
    if not printed:
        from include.kafka.client_config import read_client_config
        from include.kafka.cluster import Cluster
        from include.kafka.connection_extra import to_client_config

        environment = dict(os.environ) | ({"KAFKA_BOOTSTRAP_SERVERS": servers} if servers else {})
        config = read_client_config(environment) | (to_client_config({"bootstrap.servers": servers}) if servers else {})
        delivery = KafkaDelivery(Cluster(config), topic or Settings.from_environment().input_topic)
    typer.echo(produce(source, delivery), err=printed)


def _set_up_logging() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    # One line a request, with the whole address, would drown ours and show the keys in it.
    logging.getLogger("httpx").setLevel(logging.WARNING)
