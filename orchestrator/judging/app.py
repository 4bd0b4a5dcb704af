"""The HTTP application of a served judge: routes, bounds, and errors of one sentence in OpenAI's shape.

request ──► token ──► body of bounded size ──► ChatRequest ──► pictures on disk ──► Served.read ──► Desk ──► completion
"""

import asyncio
import hmac
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, HTTPException, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as AnyHttpException

from orchestrator.errors import RefusedInput
from orchestrator.judging.chat import Reply, completion, prompt_of, request_in
from orchestrator.judging.desk import Desk, DeskError
from orchestrator.judging.served import Served

_BAD, _UNKNOWN_TOKEN, _NOT_FOUND, _TOO_LARGE, _UNAVAILABLE = 400, 401, 404, 413, 503


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a request may hold."""

    max_body_bytes: int = 64 << 20
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
    _add_routes(app, _Reader(served, bounds, folder), desk, model, _gate(token))
    return app


class _Reader:
    """From a body to what the workers are asked; one at a time, for a tokenizer is not for two threads."""

    def __init__(self, served: Served[Any], bounds: Bounds, folder: Path) -> None:
        self._served, self._folder, self.bounds = served, folder, bounds
        self._lock, self._numbers = asyncio.Lock(), itertools.count(1)

    async def answer(self, body: bytes, desk: Desk, model: str) -> Reply:
        """
        Raises:
            RefusedInput: the request cannot be asked.
            HTTPException: it is to another model.
            DeskError: nobody answers.
        """
        request = request_in(body)
        if request.model != model:
            raise HTTPException(_NOT_FOUND, f"model {request.model[:100]!r} is not served, {model!r} is")
        number, bounds = next(self._numbers), self.bounds
        with TemporaryDirectory(dir=self._folder) as folder:

            def read() -> Any:
                prompt = prompt_of(
                    request.messages,
                    f"request-{number:08d}",
                    folder=Path(folder),
                    max_images=bounds.max_images,
                    max_pixels=bounds.max_pixels,
                )
                return self._served.read(request, prompt)

            async with self._lock:
                work = await asyncio.to_thread(read)
            return await desk.ask(work)


def _add_routes(app: FastAPI, reader: _Reader, desk: Desk, model: str, gate: Any) -> None:
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
            reply = await reader.answer(await _body(request, reader.bounds.max_body_bytes), desk, model)
        except RefusedInput as refusal:
            raise HTTPException(_BAD, str(refusal)) from refusal
        except DeskError as fault:
            raise HTTPException(_UNAVAILABLE, str(fault)) from fault
        return completion(model, reply)


def _gate(token: str | None) -> Any:
    expected = None if token is None else f"Bearer {token}".encode()

    async def check(authorization: Annotated[str, Header()] = "") -> None:
        if expected is not None and not hmac.compare_digest(authorization.encode(), expected):
            refusal = "a bearer token is required in the Authorization header"
            raise HTTPException(_UNKNOWN_TOKEN, refusal, {"WWW-Authenticate": "Bearer"})

    return Depends(check)


async def _body(request: Request, most: int) -> bytes:
    """The whole body, whether or not it announces its length.

    Raises:
        HTTPException: it is larger than ``most`` bytes, of which no more is read.
    """
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > most:
            # Unread bytes may follow on this connection; it cannot serve another request.
            raise HTTPException(_TOO_LARGE, f"the body is larger than {most} bytes", {"Connection": "close"})
        chunks.append(chunk)
    return b"".join(chunks)


async def _refuse(_: Request, error: Any) -> JSONResponse:
    kind = "invalid_request_error" if error.status_code < _UNAVAILABLE else "server_error"
    told = {"message": error.detail, "type": kind, "param": None, "code": error.status_code}
    return JSONResponse({"error": told}, error.status_code, error.headers)
