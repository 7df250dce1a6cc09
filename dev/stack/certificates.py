"""A certificate authority of the stack's own, and a certificate of it for loopback."""

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

from dev.stack.home import LOOPBACK, Home, write_private

# Parts start side by side.
_making = threading.Lock()


@dataclass(frozen=True)
class Certificates:
    authority: Path
    """What a client must trust."""
    server: Path
    """Key and certificate chain, as Kafka and Python's ssl read them."""


def certificates(home: Home) -> Certificates:
    """Made when they are first asked for, and kept."""
    folder = home.data("certificates")
    made = Certificates(folder / "authority.pem", folder / "server.pem")
    with _making:
        if not made.server.exists():
            _make(made)
    return made


def _make(made: Certificates) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert(LOOPBACK)
    # Kafka reads no other kind of private key.
    key = load_pem_private_key(issued.private_key_pem.bytes(), None).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    chain = [certificate.bytes() for certificate in issued.cert_chain_pems]
    write_private(made.authority, authority.cert_pem.bytes().decode())
    write_private(made.server, b"".join([key, *chain]).decode())
