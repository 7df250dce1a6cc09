"""Settings of librdkafka in a connection are converted, or rejected by name at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

import pytest

from fraud_scoring.airflow_connections import kafka_config
from include.errors import SettingError
from include.kafka.admin import Admin
from include.kafka.client_config import read_client_config
from include.kafka.cluster import Cluster
from include.kafka.connection_extra import to_client_config
from include.producer.delivery import KafkaSink

HOST = {"bootstrap.servers": "127.0.0.1:1"}


@pytest.mark.parametrize(
    ("extra", "settings"),
    [
        ({"bootstrap.servers": ["a:1", " b:2 "]}, {"bootstrap.servers": "a:1,b:2"}),
        ({"bootstrap.servers": ["a:1"]}, {"bootstrap.servers": "a:1"}),
        ({"bootstrap.servers": "a:1, [::1]:2,SASL_SSL://c.d-e:3,f"}, None),
        (HOST | {"debug": ["broker", "security"]}, HOST | {"debug": "broker,security"}),
        (HOST | {"ssl.providers": ["default", "legacy"]}, HOST | {"ssl.providers": "default,legacy"}),
        (HOST | {"sasl.oauthbearer.extensions": ["a=b", "c=d"]}, HOST | {"sasl.oauthbearer.extensions": "a=b,c=d"}),
        (HOST | {"ssl.ca.location": None}, HOST),
        ({"bootstrap.servers": "a:1,b:65535"}, None),
        (HOST | {"enable.auto.commit": False, "retries": 3, "socket.timeout.ms": 5.0}, None),
    ],
)
def test_lists_are_joined_by_commas(extra: dict[str, Any], settings: dict[str, Any] | None) -> None:
    assert to_client_config(extra) == (extra if settings is None else settings)


REFUSED = [
    ({"stats_cb": "my.module.stats"}, "stats_cb takes a Python function"),
    ({"error_cb": "my.module.stats"}, "error_cb takes a Python function"),
    ({"throttle_cb": "my.module.stats"}, "throttle_cb takes a Python function"),
    ({"log_cb": "my.module.stats"}, "log_cb takes a Python function"),
    ({"oauth_cb": "my.module.stats"}, r"oauth_cb takes a Python function.*sasl\.oauthbearer\.method=oidc"),
    ({"on_commit": "my.module.stats"}, "on_commit takes a Python function"),
    ({"logger": "my.module.stats"}, "logger takes a Python function"),
    ({"default.topic.config": {"acks": 1}}, r"default\.topic\.config is a JSON object"),
    ({"sasl.password": {"hunter2": 1}}, r"sasl\.password is a JSON object"),
    ({"sasl.mechanisms": [["hunter2"]]}, r"sasl\.mechanisms is a list"),
    ({"sasl.password": ["hunter2", "hunter2"]}, r"sasl\.password is a list, .* give one string"),
    ({"sasl.password": ["hunter2"]}, r"sasl\.password is a list"),
    ({"ssl.ca.pem": ["-----BEGIN CERTIFICATE-----", "hunter2"]}, r"ssl\.ca\.pem is a list"),
    ({"ssl.sigalgs.list": ["RSA+SHA256", "hunter2"]}, r"ssl\.sigalgs\.list is a list"),
    ({"plugin.library.paths": ["hunter2"]}, r"plugin\.library\.paths is a list"),
    ({"bootstrap.servers": "a:99999999"}, "bootstrap.servers contains 'a:99999999', whose port is not 1 to 65535"),
    ({"bootstrap.servers": ["a:1", "SASL_SSL://b:0"]}, "contains 'SASL_SSL://b:0', whose port is not 1 to 65535"),
    ({"bootstrap.servers": "[::1]:65536"}, "whose port is not 1 to 65535"),
    ({"metadata.broker.list": "a:0"}, "metadata.broker.list contains 'a:0', whose port"),
    ({"bootstrap.servers": "a:\u0663"}, "which is not a broker address"),
    ({"bootstrap.servers": " , "}, "bootstrap.servers contains no broker address"),
    ({"metadata.broker.list": "b:2"}, "bootstrap.servers and metadata.broker.list, its alias, name different brokers"),
    ({"debug": [["hunter2"]]}, "debug is a list with values other than strings"),
    ({"bootstrap.servers": '"a:1"'}, "bootstrap.servers contains '\"a:1\"', which is not a broker address"),
    ({"bootstrap.servers": "['a:1']"}, "which is not a broker address"),
    ({"bootstrap.servers": "a:1;b:2"}, "bootstrap.servers contains 'a:1;b:2', which is not a broker address"),
    ({"bootstrap.servers": "http://a:1"}, "bootstrap.servers contains 'http://a:1', which is not a broker address"),
    ({"bootstrap.servers": "a:1 b:2"}, "bootstrap.servers contains 'a:1 b:2', which is not a broker address"),
    ({"bootstrap.servers": "ann:hunter2@a:1"}, "bootstrap.servers contains a login before 'a:1': give host:port only"),
    (
        {"bootstrap.servers": "a:1,SASL_SSL://ann:hunt,hunter2@er@b:2"},
        "bootstrap.servers contains a login before 'b:2'",
    ),
    ({"bootstrap.servers": ["a:1", "ann:hunter2@b:2,c:3"]}, "bootstrap.servers contains a login before 'b:2,c:3'"),
    ({"metadata.broker.list": "ann:hunter2@a:1"}, "metadata.broker.list contains a login before 'a:1'"),
    (
        {"bootstrap.servers": "a:1;sasl.password=hunter2"},
        "bootstrap.servers contains 'a:1;sasl.password=…', which is not a broker address",
    ),
    (
        {"bootstrap.servers": ["a:1", "{{ BROKER }}"]},
        "bootstrap.servers contains '{{ BROKER }}', which is not a broker address",
    ),
]


@pytest.mark.parametrize(("extra", "why"), REFUSED, ids=[why[:30] for _, why in REFUSED])
def test_error_names_setting_that_a_connection_cannot_hold(
    extra: dict[str, Any], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = json.dumps({"conn_type": "kafka", "extra": HOST | extra})
    monkeypatch.setenv("AIRFLOW_CONN_KAFKA_DEFAULT", connection)
    began = time.monotonic()
    for settings in (kafka_config, lambda: read_client_config({"AIRFLOW_CONN_KAFKA_DEFAULT": connection})):
        with pytest.raises(SettingError, match=f"^kafka_default: .*{why}") as error:
            settings()
        assert "hunter2" not in str(error.value)
    assert time.monotonic() - began < 1


def test_airflow_and_environment_join_a_list_of_brokers_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = json.dumps({"conn_type": "kafka", "extra": {"bootstrap.servers": ["a:1", "b:2"]}})
    monkeypatch.setenv("AIRFLOW_CONN_KAFKA_DEFAULT", connection)
    assert kafka_config() == read_client_config(os.environ) == {"bootstrap.servers": "a:1,b:2"}


@pytest.mark.parametrize(
    "extra",
    [
        {"metadata.broker.list": "a:1"},
        {"metadata.broker.list": ["a:1"], "bootstrap.servers": ""},
        {"metadata.broker.list": "a:1", "bootstrap.servers": "a:1"},
        {"metadata.broker.list": None, "bootstrap.servers": "a:1"},
    ],
)
def test_metadata_broker_list_becomes_bootstrap_servers(extra: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    connection = json.dumps({"conn_type": "kafka", "extra": extra})
    monkeypatch.setenv("AIRFLOW_CONN_KAFKA_DEFAULT", connection)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "other:1")
    assert kafka_config() == read_client_config(os.environ) == {"bootstrap.servers": "a:1"}


def test_port_in_kafka_bootstrap_servers_is_checked() -> None:
    with pytest.raises(SettingError, match=r"^KAFKA_BOOTSTRAP_SERVERS: .*'a:70000', whose port is not 1 to 65535"):
        read_client_config({"KAFKA_BOOTSTRAP_SERVERS": "a:70000"})


@pytest.mark.parametrize(
    ("extra", "why"),
    [
        ({"no.such.setting": "x"}, "No such configuration property"),
        ({"socket.timeout.ms": "x"}, "Invalid value for configuration property"),
    ],
)
def test_what_librdkafka_refuses_is_a_setting_and_no_broker_that_is_away(extra: dict[str, Any], why: str) -> None:
    for client in (Admin, lambda config: KafkaSink(Cluster(config), "topic")):
        with pytest.raises(SettingError, match=f"the Kafka client cannot be created: {why}.*: check the"):
            client(HOST | extra)


def test_login_in_bootstrap_servers_option_is_refused_without_quoting_it() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "include.cli.main", "produce", "simulate", "--bootstrap-servers", "ann:hunter2@a:1"],
        env={"PATH": os.defpath}, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode != 0
    assert "--bootstrap-servers: bootstrap.servers contains a login before 'a:1'" in done.stderr
    assert "hunter2" not in done.stderr + done.stdout


def test_command_reports_invalid_setting_in_one_line() -> None:
    extra = HOST | {"stats_cb": "my.module.stats"}
    environment = {"PATH": os.defpath, "AIRFLOW_CONN_KAFKA_DEFAULT": json.dumps({"extra": extra})}
    done = subprocess.run(
        [sys.executable, "-m", "include.cli.main", "offsets", "show"],
        env=environment, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode != 0
    assert done.stderr.strip().splitlines() == [done.stderr.strip()]
    assert "kafka_default: stats_cb takes a Python function" in done.stderr
