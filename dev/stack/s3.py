"""Run an S3 server: SeaweedFS in one process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import boto3
from botocore.config import Config

from dev.stack.home import LOOPBACK, StackHome
from dev.stack.part import BIN, Part, Say
from dev.stack.stack_errors import StackError

ACCESS_KEY = "fraud-scoring"
REGION = "us-east-1"
BUCKETS = ("mlflow", "staging")
LOGS = "logs"
_FLAGS = {
    "s3": "-s3.port", "s3_grpc": "-s3.port.grpc", "s3_master": "-master.port", "s3_master_grpc": "-master.port.grpc",
    "s3_volume": "-volume.port", "s3_volume_grpc": "-volume.port.grpc", "s3_filer": "-filer.port",
    "s3_filer_grpc": "-filer.port.grpc", "s3_admin": "-admin.port", "s3_admin_grpc": "-admin.port.grpc",
}  # fmt: skip


class S3(Part):
    """Run `weed mini`."""

    name = "s3"
    ports = tuple(_FLAGS)

    def prepare(self, home: StackHome, say: Say) -> None:
        """Raise StackError if the program is missing."""
        if not (BIN / "weed").exists():
            raise StackError(self.name, f"{BIN / 'weed'} is missing: run `make install`", home.log(self.name))

    def command(self, home: StackHome) -> list[str]:
        """Return the command."""
        ports = [f"{flag}={home.port(name)}" for name, flag in _FLAGS.items()]
        return [
            str(BIN / "weed"), "mini", f"-dir={home.data(self.name)}", f"-ip={LOOPBACK}", f"-ip.bind={LOOPBACK}",
            *ports, "-s3.port.iceberg=0", "-s3.port.lance=0", "-webdav=false", "-admin.ui=false",
            "-master.telemetry=false", "-s3.iam.readOnly=false", f"-bucket={','.join(_buckets(home))}",
        ]  # fmt: skip

    def environment(self, home: StackHome) -> Mapping[str, str]:
        """Return the keys for clients, and those that SeaweedFS's own parts use among themselves."""
        # SeaweedFS's parts sign their requests to each other with these keys, so its other ports refuse anyone else.
        signed = ("SIGNING", "SIGNING_READ", "FILER_SIGNING", "FILER_SIGNING_READ")
        internal = {f"WEED_JWT_{name}_KEY": home.secret("s3_internal") for name in signed}
        return {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": home.secret("s3"), **internal}

    def exports(self, home: StackHome) -> Mapping[str, str]:
        """Return address, region and keys."""
        return {
            "AWS_ENDPOINT_URL_S3": f"http://{home.address('s3')}",
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": home.secret("s3"),
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REGION": REGION,
        }

    def check(self, home: StackHome, started: float) -> None:
        """List the buckets. Raises OSError while one is missing."""
        client = boto3.client(
            "s3",
            endpoint_url=f"http://{home.address('s3')}",
            region_name=REGION,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=home.secret("s3"),
            config=Config(connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 1}),
        )
        made = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
        if missing := set(_buckets(home)) - made:
            raise OSError(f"the buckets {missing} do not exist yet")

    def clean_up(self, home: StackHome) -> None:
        """Remove the sockets that SeaweedFS leaves in /tmp."""
        for name in self.ports:
            for socket in Path("/tmp").glob(f"seaweedfs-*-{home.port(name)}.sock"):  # noqa: S108
                socket.unlink(missing_ok=True)


def _buckets(home: StackHome) -> tuple[str, ...]:
    return (*BUCKETS, LOGS) if home.options.celery else BUCKETS
