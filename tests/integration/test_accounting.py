"""100,000 payments and every kind of rough input: each is published once, unchanged, with the bare model's score.

The checks import nothing of the product, and an oracle scores with the bare model in a process of its own: every rough
payment and a sample of the ordinary ones in a frame of one row each, the other ordinary payments in one frame.
"""

from __future__ import annotations

import gc
import itertools
import logging
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pytest
from confluent_kafka import Producer

from include.batch.predict import predict
from include.models.model_run import ModelRun
from include.models.resolve import RUN_CONFIGURATION, resolve
from include.payments.columns import COLUMNS
from include.producer.simulator import Simulator
from include.settings import Settings
from include.training.train import train
from tests.models.zoo import seed_pipeline, signature
from tests.support import accounting, kafka_log
from tests.support.accounting import Expected
from tests.support.live_stack import LiveStack
from tests.support.rough_payments import Incoming, mixed, tokens
from tests.support.scoring import Scoring

log = logging.getLogger(__name__)

PAYMENTS = 100_000
PARTITIONS = 3
SHARES = (1, 0.3, 1.1, 1.7, 4)
DECOY = b'{"columns":["amt"],"index":[0],"data":[["aborted"]]}'
# Ordinary payments that the oracle scores in a frame of one row.
SAMPLE = 500
# Batches of these sizes end anywhere: among aborted payments, on a control record, on the last payment.
LIMITS = (1, 2, 17, 4_001, 9_999, 25_000)


@dataclass(frozen=True)
class Input:
    topic: str
    sent: list[Incoming]
    opened: list[Producer]
    """Producers whose kafka transactions, one for each partition, are still open."""
    last: int
    """How many of `sent` are in these transactions."""


@pytest.fixture(scope="module")
def servers(services: LiveStack) -> Iterator[LiveStack]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in services.env.items():
            if name.startswith(("AWS_", "MLFLOW_")):
                patch.setenv(name, value)
        yield services


@pytest.fixture(scope="module", autouse=True)
def _paused_collector() -> Iterator[None]:
    """Pause the garbage collector: it would traverse a million small objects again and again."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(scope="module")
def messages() -> list[Incoming]:
    simulated = Simulator(seed=11, fraud_share=0.05, cards=500).payments(20_000)
    payments = [tokens(COLUMNS, row) for row in simulated]
    # The same payments five times, each time with other amounts.
    many = [
        payment | {"amt": f"{float(payment['amt']) * (1 + turn / 7):.2f}"} for turn in range(5) for payment in payments
    ]
    return mixed(many[:PAYMENTS], seed=5, each=4, few=1)


def fill(servers: str, topic: str, messages: list[Incoming]) -> Input:
    """Send messages by a plain and a transactional producer in turns, with aborted transactions in between."""
    rng = random.Random(3)
    plain = kafka_log.producer(servers)
    careful = kafka_log.producer(servers, f"careful-{topic}")
    left = iter(messages)
    partitions = itertools.cycle(range(PARTITIONS))
    last = 60

    def send(client: Producer, count: int) -> None:
        for message in itertools.islice(left, count):
            client.produce(topic, message.value, message.key, next(partitions), headers=message.headers)
            client.poll(0)

    whole = len(messages) - last
    done = 0
    while done < whole:
        count = min(rng.choice((1, 300, 3_000)), whole - done)
        send(plain, count)
        plain.flush()
        done += count
        careful.begin_transaction()
        for _ in range(rng.choice((1, 40, 400))):
            careful.produce(topic, DECOY, b"aborted", next(partitions))
        careful.flush()
        careful.abort_transaction()
        count = min(rng.choice((1, 30, 1_000)), whole - done)
        careful.begin_transaction()
        send(careful, count)
        careful.commit_transaction()
        done += count
    opened = []
    rest = list(left)
    for partition in range(PARTITIONS):
        client = kafka_log.producer(servers, f"open-{topic}-{partition}")
        client.begin_transaction()
        for message in rest[partition::PARTITIONS]:
            client.produce(topic, message.value, message.key, partition, headers=message.headers)
        client.flush()
        # Messages after an open kafka transaction are not stable yet.
        opened.append(client)
    return Input(topic, messages, opened, last)


@pytest.fixture
def filled(servers: LiveStack, messages: list[Incoming]) -> Iterator[Input]:
    topic = kafka_log.make_topic(servers.bootstrap_servers, PARTITIONS, prefix="payments")
    yield fill(servers.bootstrap_servers, topic, messages)
    kafka_log.delete_topics(servers.bootstrap_servers, [topic])


def payment_model() -> str:
    """Train a model as `fraud train` does, which computes features in its pipeline, and return its run id."""
    history = Simulator(seed=3, per_day=2000, fraud_share=0.04, cards=200).frame(days=2)
    return train(history, experiment="accounting", name="accounting", trees=11).run_id


def seed_model() -> str:
    """Log a cloudpickled pipeline whose signature names all 21 columns, and return its run id."""
    mlflow.set_experiment("accounting of the seed project's form")
    with mlflow.start_run() as run:
        mlflow.sklearn.log_model(
            seed_pipeline(trees=11),
            name="model",
            signature=signature(),
            serialization_format="cloudpickle",
            pip_requirements=["scikit-learn"],
        )
    return str(run.info.run_id)


@pytest.mark.parametrize(
    ("make_model", "in_s3"),
    [
        pytest.param(payment_model, False, id="payment form, staged in a folder", marks=pytest.mark.long),
        pytest.param(seed_model, True, id="seed project's form, staged in S3"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_each_payment_is_published_once_unchanged_with_the_bare_models_score(
    servers: LiveStack, filled: Input, tmp_path: Path, make_model: Callable[[], str], in_s3: bool
):
    run_id = make_model()
    broker = servers.bootstrap_servers
    out, dead = (kafka_log.make_topic(broker, PARTITIONS, prefix=prefix) for prefix in ("scored", "dead"))
    settings = Settings(
        input_topic=filled.topic,
        output_topic=out,
        dead_letter_topic=dead,
        group=f"group of {filled.topic}",
        staging_url=f"s3://staging/{filled.topic}" if in_s3 else str(tmp_path / "staging"),
        model_cache=tmp_path / "models",
    )
    scoring = Scoring({"bootstrap.servers": broker}, settings)
    run = resolve(run_id, experiment=None, chosen_by=RUN_CONFIGURATION)

    kinds = {message.value: message.kind or "ordinary" for message in filled.sent}
    alone = sample_for_single_rows(kinds)
    with ThreadPoolExecutor(1) as beside:
        asked = beside.submit(
            accounting.ask_oracle, kinds, alone, f"runs:/{run_id}/model", tmp_path / "payments", dict(servers.env)
        )
        began = time.monotonic()
        counted = score_all(scoring, run)
        settled = len(kafka_log.read_all(broker, out)) + len(kafka_log.read_all(broker, dead))
        assert settled == counted
        for client in filled.opened:
            client.commit_transaction()
        counted += score_all(scoring, run)
        seconds = time.monotonic() - began
        assert not scoring.drain().partitions
        answers = asked.result()

    def kind_of(one: Expected) -> str:
        return kinds[one.message.value()]

    came_in = kafka_log.read_all(broker, filled.topic)
    assert len(came_in) == len(filled.sent)
    scored, refused = kafka_log.read_all(broker, out), kafka_log.read_all(broker, dead)
    assert len(scored) + len(refused) == counted
    wanted = accounting.expected(came_in)
    accounting.check_each_once(wanted, scored, refused, kind_of)
    predictions = accounting.check_scored(wanted, scored, run_id)
    codes = accounting.check_dead(wanted, refused)
    accounting.check_predictions(wanted, answers, predictions, kind_of)
    assert 0.005 < sum(predictions.values()) / len(predictions) < 0.5
    log.info(
        "%d messages, %d scored, dead letters %s, %.1f s, %.0f/s",
        *(len(came_in), len(scored), dict(codes), seconds, counted / seconds),
    )
    kafka_log.delete_topics(broker, [out, dead])


def score_all(scoring: Scoring, run: ModelRun) -> int:
    """Run batch after batch until nothing waits, and return how many messages were published."""
    count = 0
    for limit in itertools.chain(LIMITS, itertools.repeat(LIMITS[-1])):
        limited = scoring.change(max_payments=limit)
        manifest = limited.drain()
        if not manifest.partitions:
            return count
        predict(limited.settings, limited.storage, manifest, run)
        published = limited.publish(manifest)
        count += published.predictions + published.dead_letters
    raise AssertionError


def sample_for_single_rows(kinds: dict[bytes | None, str]) -> Callable[[bytes], bool]:
    ordinary = [value for value, kind in kinds.items() if kind == "ordinary"]
    sample = set(random.Random(1).sample(ordinary, SAMPLE))
    return lambda value: kinds[value] != "ordinary" or value in sample
