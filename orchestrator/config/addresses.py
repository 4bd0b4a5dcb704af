"""Addresses in the configuration: no secrets in them, and no proxy before this machine."""

import socket
from ipaddress import IPv6Address, ip_address
from urllib.parse import unquote, urlsplit

_LONGEST_HOST, _LONGEST_LABEL = 253, 63


def address_fault(url: str, *, secret: str) -> str | None:
    """What is wrong with an address, as the end of a sentence; None where nothing is.

    Whatever stands in ``url`` may be a secret, which must not reach a log, so none of it is said.

    Args:
        secret: The option that takes a secret instead.
    """
    if not (url.isascii() and url.isprintable()) or " " in url:
        return (
            "is no address: it holds a blank or a character that no address has; a host of other letters has a name "
            "that begins with xn--"
        )
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "is no address: its host or port cannot be read"
    if "@" in unquote(parts.netloc):
        return f"holds credentials, which config.json, logs and lists of processes would show; put them into {secret}"
    if parts.query or parts.fragment:
        return f"holds a query string or a fragment; a key belongs into {secret}"
    if parts.scheme not in ("http", "https") or not host:
        return "should start with http:// or https:// and name a host"
    if not _is_host(host):
        return f"is no address: a host has at most {_LONGEST_HOST} characters, and {_LONGEST_LABEL} between two dots"
    return "is no address: its port is 0" if port == 0 else None


def _is_host(host: str) -> bool:
    labels = host.removesuffix(".").split(".")
    return len(host) <= _LONGEST_HOST and all(0 < len(label) <= _LONGEST_LABEL for label in labels)


def store_fault(url: str) -> str | None:
    """The same of an address of files, of whatever kind of store."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "is no address: its host or port cannot be read"
    if "@" in unquote(parts.netloc) or parts.query or parts.fragment:
        return "holds credentials or a query, which config.json and logs would show; leave them to the environment"
    return None


def minds_proxies(url: str) -> bool:
    """Whether proxy variables count for ``url``: a proxy elsewhere cannot reach this machine's loopback."""
    return not is_loopback(urlsplit(url).hostname or "")


def is_loopback(host: str) -> bool:
    """Whether ``host`` is this machine's own loopback, as a name or an address in any spelling."""
    host = host.rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ip_address(host)
    except ValueError:
        try:
            address = ip_address(socket.inet_aton(host))  # 127.1
        except OSError:
            return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback
