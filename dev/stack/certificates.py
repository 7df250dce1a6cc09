"""Create the stack's certificate authority, and a server certificate for 127.0.0.1."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from dev.stack.home import LOOPBACK, StackHome, write_private

# Parts start in parallel threads.
_creation = threading.Lock()


@dataclass(frozen=True)
class Certificates:
    """Hold the paths of the PEM files."""

    authority: Path
    """Certificate that a client must trust."""
    server: Path
    """Private key and certificate chain in one file, as Kafka and Python's ssl read them."""


def certificates(home: StackHome) -> Certificates:
    """Return the stack's certificates. The first call creates them."""
    folder = home.data("certificates")
    made = Certificates(folder / "authority.pem", folder / "server.pem")
    with _creation:
        if not made.server.exists():
            _make(made)
    return made


def _make(made: Certificates) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert(LOOPBACK)
    # Kafka reads private keys in PKCS #8 only.
    key = load_pem_private_key(issued.private_key_pem.bytes(), None).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    chain = [certificate.bytes() for certificate in issued.cert_chain_pems]
    write_private(made.authority, authority.cert_pem.bytes().decode())
    write_private(made.server, b"".join([key, *chain]).decode())
