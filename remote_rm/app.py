"""The HTTP application: routes, limits, and errors of one sentence.

request ──► gate (token, body) ──► schema ──► Rewarder, all items at once ──► no secrets ──► reply in request order
                                                 │ one semaphore
                                                 ▼
                                            cache, then judge
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from remote_rm import openrlhf
from remote_rm.composing import Composer, FunctionScorer
from remote_rm.consistency import ConsistencyScorer
from remote_rm.functions.pool import FunctionPool
from remote_rm.gate import BearerToken, Bodies
from remote_rm.judges.protocol import Judge, JudgeError, JudgeUnavailable
from remote_rm.metrics import Metrics
from remote_rm.rewarding import Rewarder, fault
from remote_rm.rulebooks import STRICT, Rulebook
from remote_rm.schema import (
    ConsistencyReply,
    ConsistencyRequest,
    Health,
    JudgedItem,
    RewardItem,
    RewardReply,
    RewardRequest,
    ScoredItem,
    Scoring,
)
from remote_rm.secret_words import Secrets
from remote_rm.verdict_cache import VerdictCache

_SHOWN_INPUT = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one service."""

    max_body_bytes: int = 64 * 1024 * 1024
    max_bodies_bytes: int = 512 * 1024 * 1024
    """Of all that are held at once."""
    body_s: float = 60.0
    """In which a body has to arrive."""
    judge_concurrency: int = 32
    judge_deadline_s: float = 50.0
    """One judgement with its queueing and retries; below the client's own timeout of 60 s."""


def create_app(
    judge: Judge,
    cache: VerdictCache | None,
    *,
    limits: Limits | None = None,
    rulebook: Rulebook = STRICT,
    functions: FunctionPool | None = None,
    media_roots: tuple[Path, ...] = (),
    token: str | None = None,
    secrets: Secrets | None = None,
    metrics: Metrics | None = None,
) -> FastAPI:
    """Build the service around a judge; the app owns judge, cache and functions, and closes them at shutdown.

    Args:
        functions: They are the reward, in place of the rulebook.
        media_roots: Folders that requests may name files of images in.
        secrets: What no answer may hold; None is the token.
        metrics: Those of a server, which counts too.
    """
    limits, secrets, metrics = limits or Limits(), secrets or Secrets([token]), metrics or Metrics()
    consistency = ConsistencyScorer(
        judge, cache, metrics, concurrency=limits.judge_concurrency, deadline_s=limits.judge_deadline_s
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if functions is not None:
            await functions.start()
        try:
            yield
        finally:
            await consistency.close()
            if functions is not None:
                await functions.close()

    app = FastAPI(title="raylign reward service", lifespan=lifespan, docs_url=None, redoc_url=None)
    _add_gate(app, limits, metrics, token)
    app.add_exception_handler(RequestValidationError, _refusal(secrets))
    rewarder, scoring = Rewarder(consistency, rulebook), rulebook.name
    composer = None
    if functions is not None:
        count, scoring = len(functions.specs), "functions"
        composer = Composer([FunctionScorer(functions, number, media_roots) for number in range(count)])
    _add_reward_routes(app, composer or rewarder, rewarder, metrics, secrets)
    _add_status_routes(app, judge, scoring, metrics, secrets)
    return app


def _add_gate(app: FastAPI, limits: Limits, metrics: Metrics, token: str | None) -> None:
    app.add_middleware(
        Bodies,
        max_bytes=limits.max_body_bytes,
        max_all_bytes=limits.max_bodies_bytes,
        deadline_s=limits.body_s,
        on_left=metrics.left.inc,
        on_late=metrics.late_connections.inc,
    )
    if token is not None:
        app.add_middleware(BearerToken, token=token)


def _add_reward_routes(
    app: FastAPI, scoring: Rewarder | Composer, rewarder: Rewarder, metrics: Metrics, secrets: Secrets
) -> None:
    async def scored(route: str, items: Sequence[RewardItem]) -> list[ScoredItem]:
        found = await scoring.score_all(items)
        for status, count in Counter(item.status for item in found).items():
            metrics.items.labels(route, status).inc(count)
        return [
            item.model_copy(update={"detail": secrets.scrub(item.detail)}) if item.detail is not None else item
            for item in found
        ]

    @app.post("/v1/rewards")
    async def rewards(request: RewardRequest) -> RewardReply:
        items = await scored("rewards", request.items)
        return RewardReply(request_id=request.request_id, items=items, weights=scoring.weights)

    @app.post("/v1/consistency")
    async def consistency(request: ConsistencyRequest) -> ConsistencyReply:
        found = await asyncio.gather(*(rewarder.judge(item) for item in request.items), return_exceptions=True)
        judged = [
            JudgedItem(id=item.id, verdict="unknown", status="failed", raw=fault(one))
            if isinstance(one, BaseException)
            else one.model_copy(update={"raw": secrets.scrub(one.raw or "")})
            for item, one in zip(request.items, found, strict=True)
        ]
        for item in judged:
            metrics.items.labels("consistency", item.status).inc()
        return ConsistencyReply(items=judged)

    @app.post("/get_reward")
    async def get_reward(request: openrlhf.OpenRlhfRequest) -> openrlhf.OpenRlhfReply:
        return openrlhf.reply_of(await scored("get_reward", openrlhf.items_of(request)), scoring.names)


def _add_status_routes(app: FastAPI, judge: Judge, scoring: Scoring, metrics: Metrics, secrets: Secrets) -> None:
    @app.get("/healthz")
    async def healthz(response: Response) -> Health:
        try:
            await judge.probe()
        except JudgeError as error:
            response.status_code = 503
            passing = isinstance(error, JudgeUnavailable)
            said = "judge_unavailable" if passing else "judge_refuses"
            return Health(status=said, judge=judge.id, scoring=scoring, detail=secrets.scrub(str(error)))
        return Health(status="ok", judge=judge.id, scoring=scoring)

    @app.get("/metrics")
    async def prometheus() -> Response:
        return Response(metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _refusal(secrets: Secrets) -> Callable[[Request, Exception], Awaitable[JSONResponse]]:
    async def refuse(_: Request, error: Exception) -> JSONResponse:
        """Name the first wrong field, and its value where that is one; a whole body is never echoed."""
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"] if part != "body") or "body"
        value = first.get("input")
        shown = f" (got {repr(value)[:_SHOWN_INPUT]})" if isinstance(value, str | int | float) else ""
        # The name of a field may be no text.
        told = secrets.scrub(f"{field}: {first['msg'].removeprefix('Value error, ')}{shown}")
        return JSONResponse({"detail": told}, 422)

    return refuse
