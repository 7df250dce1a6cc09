"""Parse mail addresses from settings and encode them for SMTP."""

from __future__ import annotations

import re
from email.utils import formataddr, getaddresses

from include.errors import SettingError

_ADDRESS = re.compile(r"[^\s@<>,;:\"]+@[^\s@<>,;:\"]+")
_NAMED = re.compile(r"(.*?)\s*<([^<>]*)>")


def parse_addresses(name: str, text: str) -> tuple[str, ...]:
    """Return the addresses in `text`, the value of setting `name`: `a@x.org` or `Some Name <a@x.org>`, separated by
    commas or semicolons; bare ones by spaces as well. A domain beyond ASCII is encoded by IDNA.

    Raises SettingError, naming the setting and the address, where one is invalid or cannot be sent to.
    """
    # The parser joins words without a separator, and returns an empty address for an invalid one.
    separated = re.sub(r"(@[^\s@<>,;]+>?)\s|\s(?=[^\s@<>,;]+@)", r"\1,", text)
    listed = re.sub(r"[\s,;]*[,;][\s,;]*", ", ", separated).strip(", ")
    found = [address for _, address in getaddresses([listed] if listed else [])]
    return tuple(_ascii(name, address, text) for address in found)


def encode_sender(name: str, text: str) -> str:
    """Return `text` as the header From takes it: a display name beyond ASCII encoded, and the address in plain sight.

    Raises SettingError as `parse_addresses` does.
    """
    text = " ".join(text.split())
    named = _NAMED.fullmatch(text)
    display, address = (named[1].strip(' "'), named[2].strip()) if named else ("", text)
    return formataddr((display, _ascii(name, address, text)))


def _ascii(name: str, address: str, text: str) -> str:
    if not _ADDRESS.fullmatch(address):
        raise SettingError(f"{name}={text!r}: {address or text!r} is not a mail address")
    local, _, domain = address.partition("@")
    if not local.isascii():
        raise SettingError(
            f"{name}: mail cannot be sent to {address}: the part before @ is not ASCII, which few mail servers accept. "
            "Use another address of this mailbox"
        )
    return address if domain.isascii() else f"{local}@{_encoded(name, address, domain)}"


def _encoded(name: str, address: str, domain: str) -> str:
    # Python's own codec is IDNA 2003: it makes strasse of straße, which is another domain.
    import idna

    try:
        return idna.encode(domain, uts46=True).decode()
    except idna.IDNAError as error:
        raise SettingError(
            f"{name}: mail cannot be sent to {address}: {domain} is not a domain name ({error}). Correct the address"
        ) from error
