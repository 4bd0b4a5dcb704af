"""The door: addresses without secrets in them, a bearer token, and a bound on the body checked before any is parsed.

No proxy stands before this machine itself.
"""

import hmac
import socket
from ipaddress import IPv6Address, ip_address
from urllib.parse import unquote, urlsplit

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class BearerToken:
    """Answers 401 to every request without the token."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry."""
        if scope["type"] == "http":
            given = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(given, self._expected):
                refusal = {"detail": "a bearer token is required in the Authorization header"}
                await JSONResponse(refusal, 401, {"WWW-Authenticate": "Bearer"})(scope, receive, send)
                return
        await self._app(scope, receive, send)


class BodyLimit:
    """Answers 413 to a body over the limit, whether or not it announces its length."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        body = None if not announced.isdigit() or int(announced) > self._max_bytes else await self._read(receive)
        if body is None:
            refusal = {"detail": f"the body is larger than {self._max_bytes} bytes"}
            # Unread bytes may follow on this connection; it cannot serve another request.
            await JSONResponse(refusal, 413, {"Connection": "close"})(scope, receive, send)
            return
        await self._app(scope, _replay(body, receive), send)

    async def _read(self, receive: Receive) -> bytes | None:
        chunks, size = [], 0
        while True:
            message = await receive()
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            if size > self._max_bytes:
                return None
            if not message.get("more_body", False):
                return b"".join(chunks)


def _replay(body: bytes, receive: Receive) -> Receive:
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return pending.pop() if pending else await receive()

    return replayed


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
