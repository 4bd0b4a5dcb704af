"""The door: a bearer token, bounds on bodies checked before any is parsed, and the end of what nobody waits for.

token ──► body of bounded size, in bounded time, of all bodies so many bytes ──► the request ──► answer
                                                                                    └── client gone ──► cancelled
"""

import asyncio
import contextlib
import hmac
from collections.abc import Callable

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LAST = {"Connection": "close"}
"""Unread bytes may follow on this connection; it cannot serve another request."""


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
                await JSONResponse(refusal, 401, {"WWW-Authenticate": "Bearer", **_LAST})(scope, receive, send)
                return
        await self._app(scope, receive, send)


class _Refused(Exception):
    def __init__(self, status: int, told: str) -> None:
        super().__init__(told)
        self.status = status


class _Gone(Exception):
    """The client has left."""


class Bodies:
    """Reads whole bodies, answers those that it does not read, and cancels what a client does not wait for."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_bytes: int,
        max_all_bytes: int,
        deadline_s: float,
        on_left: Callable[[], None],
        on_late: Callable[[], None],
    ) -> None:
        """
        Args:
            max_bytes: Of one body (413), whether or not it announces its length.
            max_all_bytes: Of all that are held at once; whoever comes then is to come again (503).
            deadline_s: In which a body has to arrive (408).
            on_left, on_late: Called to count them.
        """
        self._app, self._max_bytes, self._max_all_bytes, self._deadline_s = app, max_bytes, max_all_bytes, deadline_s
        self._on_left, self._on_late = on_left, on_late
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = bytearray()
        try:
            await self._read(body, scope, receive)
            await self._answer(bytes(body), scope, receive, send)
        except _Refused as refused:
            await JSONResponse({"detail": str(refused)}, refused.status, _LAST)(scope, receive, send)
        except _Gone:
            self._on_left()
        finally:
            self._held -= len(body)

    async def _read(self, body: bytearray, scope: Scope, receive: Receive) -> None:
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if not announced.isdigit() or int(announced[:20]) > self._max_bytes:
            raise _Refused(413, f"the body is larger than {self._max_bytes} bytes")
        try:
            async with asyncio.timeout(self._deadline_s):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _Gone
                    chunk, more = message.get("body", b""), message.get("more_body", False)
                    self._held += len(chunk)
                    body += chunk
                    if len(body) > self._max_bytes:
                        raise _Refused(413, f"the body is larger than {self._max_bytes} bytes")
                    if self._held > self._max_all_bytes:
                        raise _Refused(503, f"{self._max_all_bytes} bytes of other requests are held; ask again")
        except TimeoutError as error:
            self._on_late()
            raise _Refused(408, f"the body took longer than {self._deadline_s:g} s") from error

    async def _answer(self, body: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        assert task is not None
        pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        has_answered = has_left = False

        async def replayed() -> Message:
            return pending.pop() if pending else await receive()

        async def noted(message: Message) -> None:
            nonlocal has_answered
            has_answered = has_answered or message["type"] == "http.response.start"
            await send(message)

        async def watch() -> None:
            nonlocal has_left
            while (await receive())["type"] != "http.disconnect":
                pass
            if not has_answered:
                has_left = True
                task.cancel()

        watching = asyncio.create_task(watch())
        try:
            await self._app(scope, replayed, noted)
        except asyncio.CancelledError:
            if not has_left or task.uncancel() > 0:
                raise
            raise _Gone from None
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching
