from __future__ import annotations

import pytest

from include.errors import SettingError
from include.kafka.cluster import Cluster


def test_admin_client_is_created_once_on_first_use():
    cluster = Cluster({"bootstrap.servers": "127.0.0.1:1", "log_level": 0})
    assert "admin" not in vars(cluster)
    assert cluster.admin is cluster.admin


def test_invalid_configuration_is_a_setting_error():
    cluster = Cluster({"bootstrap.servers": "127.0.0.1:1", "no.such.setting": "x"})
    with pytest.raises(SettingError, match=r'the Kafka client cannot be created: .*"no\.such\.setting"'):
        _ = cluster.admin
