"""The HTTP application of a served judge: routes, bounds, and errors of one sentence in OpenAI's shape.

request ──► token ──► place ──► body of bounded size ──► ChatRequest ──► pictures on disk ──► Served.read
                                                                                  ──► Desk ──► completion
"""

import asyncio
import hmac
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, HTTPException, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as AnyHttpException
from starlette.requests import ClientDisconnect

from orchestrator.data.content_files import UnwritableFolder
from orchestrator.errors import RefusedInput
from orchestrator.judging.chat import Reply, completion, prompt_of, request_in
from orchestrator.judging.desk import Desk, DeskError
from orchestrator.judging.served import Served

_BAD, _UNKNOWN_TOKEN, _NOT_FOUND, _LATE, _TOO_LARGE, _HUNG_UP, _UNAVAILABLE = 400, 401, 404, 408, 413, 499, 503
_GONE = "the client has hung up"
_MOST_BODIES = 32
"""In memory at once; those of others who have a place are not read yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a request may hold."""

    max_body_bytes: int = 16 << 20
    body_s: float = 60.0
    """Seconds in which a body has to arrive, once it is its turn to be read."""
    max_images: int = 8
    max_pixels: int | None = None
    """Of an image; None is the bound of every run."""


def create_app(
    served: Served[Any], desk: Desk, *, model: str, bounds: Bounds, folder: Path, token: str | None = None
) -> FastAPI:
    """Build the service around workers that are up.

    Args:
        model: Its name for those who ask.
        folder: For the pictures of requests, each for as long as its request.
        token: What every request must carry but those about health.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        serving = asyncio.create_task(desk.serve())
        try:
            yield
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)

    app = FastAPI(title="raylign judge", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_exception_handler(AnyHttpException, _refuse)
    _add_routes(app, _Reader(served, bounds, model), desk, model, folder, _gate(token))
    return app


class _Reader:
    """From requests to what the workers are asked; one at a time, for a tokenizer is not for two threads."""

    def __init__(self, served: Served[Any], bounds: Bounds, model: str) -> None:
        self._served, self._bounds, self._model = served, bounds, model
        self._bodies, self._lock, self._numbers = asyncio.Semaphore(_MOST_BODIES), asyncio.Lock(), itertools.count(1)

    async def work(self, request: Request, folder: Path) -> Any:
        """What the workers are asked; nothing else of the request is kept.

        Args:
            folder: For its pictures.
        Raises:
            RefusedInput: the request cannot be asked.
            HTTPException: it is to another model, its body is too large or late, or who asks has hung up.
        """
        async with self._bodies:
            body = await _body(request, self._bounds)
            async with self._lock:
                if await request.is_disconnected():
                    raise HTTPException(_HUNG_UP, _GONE)
                return await asyncio.to_thread(self._read, body, folder)

    def _read(self, body: bytes, folder: Path) -> Any:
        request = request_in(body)
        if request.model != self._model:
            raise HTTPException(_NOT_FOUND, f"model {request.model[:100]!r} is not served, {self._model!r} is")
        prompt = prompt_of(
            request.messages,
            f"request-{next(self._numbers):08d}",
            folder=folder,
            max_images=self._bounds.max_images,
            max_pixels=self._bounds.max_pixels,
        )
        return self._served.read(request, prompt)


def _add_routes(app: FastAPI, reader: _Reader, desk: Desk, model: str, folder: Path, gate: Any) -> None:
    @app.get("/health")
    async def health() -> dict[str, str]:
        if desk.fault is not None:
            raise HTTPException(_UNAVAILABLE, "the workers are lost")
        return {"status": "ok"}

    @app.get("/v1/models", dependencies=[gate])
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": model, "object": "model", "created": 0, "owned_by": "raylign"}]}

    @app.post("/v1/chat/completions", dependencies=[gate])
    async def completions(request: Request) -> dict[str, Any]:
        try:
            with desk.place(), _pictures_in(folder) as pictures:
                asked = asyncio.ensure_future(desk.ask(await reader.work(request, pictures)))
                reply = await _unless_hung_up(asked, request)
        except UnwritableFolder as full:
            raise HTTPException(_UNAVAILABLE, "the pictures of a request cannot be kept here now") from full
        except RefusedInput as refusal:
            raise HTTPException(_BAD, str(refusal)) from refusal
        except DeskError as fault:
            raise HTTPException(_UNAVAILABLE, str(fault)) from fault
        return completion(model, reply)


@contextmanager
def _pictures_in(folder: Path) -> Iterator[Path]:
    """A folder for the pictures of one request.

    Raises:
        UnwritableFolder: it cannot be made.
    """
    try:
        own = TemporaryDirectory(dir=folder, ignore_cleanup_errors=True)
    except OSError as error:
        raise UnwritableFolder(f"{str(folder)!r} cannot be written ({error.strerror})") from error
    with own as name:
        yield Path(name)


async def _unless_hung_up(asked: "asyncio.Future[Reply]", request: Request) -> Reply:
    """The reply; nobody is asked for it once who wants it has gone.

    Raises:
        HTTPException: who asked has hung up, and does not hear of it.
    """
    gone = asyncio.ensure_future(_hung_up(request))
    try:
        await asyncio.wait((asked, gone), return_when=asyncio.FIRST_COMPLETED)
        if not asked.done():
            raise HTTPException(_HUNG_UP, _GONE)
        return asked.result()
    finally:
        asked.cancel()
        gone.cancel()


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _gate(token: str | None) -> Any:
    expected = None if token is None else f"Bearer {token}".encode()

    async def check(authorization: Annotated[str, Header()] = "") -> None:
        if expected is not None and not hmac.compare_digest(authorization.encode(), expected):
            refusal = "a bearer token is required in the Authorization header"
            raise HTTPException(_UNKNOWN_TOKEN, refusal, {"WWW-Authenticate": "Bearer"})

    return Depends(check)


async def _body(request: Request, bounds: Bounds) -> bytes:
    """The whole body, whether or not it announces its length.

    Raises:
        HTTPException: it is larger or takes longer than ``bounds`` say, and no more of it is read; or it ends early.
    """
    chunks, size, most = [], 0, bounds.max_body_bytes
    # Unread bytes may follow on this connection; it cannot serve another request.
    last = {"Connection": "close"}
    try:
        async with asyncio.timeout(bounds.body_s):
            async for chunk in request.stream():
                size += len(chunk)
                if size > most:
                    raise HTTPException(_TOO_LARGE, f"the body is larger than {most} bytes", last)
                chunks.append(chunk)
    except TimeoutError as error:
        raise HTTPException(_LATE, f"the body took longer than {bounds.body_s:g} s", last) from error
    except ClientDisconnect as error:
        raise HTTPException(_HUNG_UP, _GONE, last) from error
    return b"".join(chunks)


async def _refuse(_: Request, error: Any) -> JSONResponse:
    kind = "invalid_request_error" if error.status_code < _UNAVAILABLE else "server_error"
    told = {"message": error.detail, "type": kind, "param": None, "code": error.status_code}
    return JSONResponse({"error": told}, error.status_code, error.headers)
