"""Mail addresses: parses them from settings and encodes them for SMTP."""

from __future__ import annotations

import re
from email.utils import formataddr, getaddresses

from include.errors import SettingError

_ADDRESS = re.compile(r"[^\s@<>,;:\"]+@[^\s@<>,;:\"]+")
_NAMED = re.compile(r"(.*?)\s*<([^<>]*)>")


def parse_addresses(name: str, text: str) -> tuple[str, ...]:
    """Return the addresses in `text`, the value of the setting `name`. A domain beyond ASCII is encoded by IDNA.

    Addresses have the form `a@x.org` or `Some Name <a@x.org>`. Commas or semicolons separate them; a space is enough
    after or before an address without a name. Raise SettingError, with the setting and the address, if an address is
    invalid or mail cannot be sent to it.
    """
    # getaddresses joins words without a separator, and returns an empty address for an invalid one.
    separated = re.sub(r"(@[^\s@<>,;]+>?)\s|\s(?=[^\s@<>,;]+@)", r"\1,", text)
    listed = re.sub(r"[\s,;]*[,;][\s,;]*", ", ", separated).strip(", ")
    return tuple(_to_ascii(name, address, text) for _, address in getaddresses([listed] if listed else []))


def encode_sender(name: str, text: str) -> str:
    """Return `text` as a value of the header From: only a display name beyond ASCII is encoded, not the address.

    Raise SettingError as `parse_addresses` does.
    """
    text = " ".join(text.split())
    named = _NAMED.fullmatch(text)
    display, address = (named[1].strip(' "'), named[2].strip()) if named else ("", text)
    return formataddr((display, _to_ascii(name, address, text)))


def _to_ascii(name: str, address: str, text: str) -> str:
    if not _ADDRESS.fullmatch(address):
        raise SettingError(f"{name}={text!r}: {address or text!r} is not a mail address")
    local, _, domain = address.partition("@")
    if not local.isascii():
        raise SettingError(
            f"{name}: mail cannot be sent to {address}: the part before @ is not ASCII, which few mail servers accept. "
            "Use another address of this mailbox"
        )
    return address if domain.isascii() else f"{local}@{_encode_domain(name, address, domain)}"


def _encode_domain(name: str, address: str, domain: str) -> str:
    # Python's own codec follows IDNA 2003: it turns straße into strasse, which is another domain.
    import idna

    try:
        return idna.encode(domain, uts46=True).decode()
    except idna.IDNAError as error:
        raise SettingError(
            f"{name}: mail cannot be sent to {address}: {domain} is not a domain name ({error}). Correct the address"
        ) from error
