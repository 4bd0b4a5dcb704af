"""Addresses: none with a secret in it, and no proxy before this machine itself."""

import socket
from ipaddress import IPv6Address, ip_address
from urllib.parse import unquote, urlsplit


def check_address(url: str, *, name: str, secret: str) -> None:
    """Refuse what is no plain http address. Whatever stands in ``url`` may be a secret, so none of it is said.

    Args:
        name: The option that holds it.
        secret: The option that takes a secret instead.
    Raises:
        ValueError: naming the option.
    """
    try:
        parts = urlsplit(url)
        has_host, _ = bool(parts.hostname), parts.port
    except ValueError as error:
        raise ValueError(f"{name} is no address: its host or port cannot be read") from error
    if "@" in unquote(parts.netloc):
        raise ValueError(f"{name} holds credentials, which every list of processes shows; put the key into {secret}")
    if parts.query or parts.fragment:
        raise ValueError(f"{name} holds a query string or a fragment; a key belongs into {secret}")
    if parts.scheme not in ("http", "https") or not has_host:
        raise ValueError(f"{name} should start with http:// or https:// and name a host")


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


def minds_proxies(url: str) -> bool:
    """Whether proxy variables count for ``url``: a proxy elsewhere cannot reach this machine's loopback."""
    return not is_loopback(urlsplit(url).hostname or "")
