"""The HTTP application: routes, limits, and errors of one sentence.

request ──► gate (token, size) ──► schema ──► Rewarder, all items at once ──► reply in request order
                                                 │ one semaphore
                                                 ▼
                                            cache, then judge
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from remote_rm import openrlhf
from remote_rm.composing import Composer, FunctionScorer
from remote_rm.functions.pool import FunctionPool
from remote_rm.gate import BearerToken, BodyLimit
from remote_rm.judges.protocol import Judge, JudgeError, JudgeUnavailable
from remote_rm.rewarding import ConsistencyScorer, Metrics, Rewarder, fault
from remote_rm.rulebooks import STRICT, Rulebook
from remote_rm.schema import (
    ConsistencyReply,
    ConsistencyRequest,
    Health,
    JudgedItem,
    RewardReply,
    RewardRequest,
    ScoredItem,
    Scoring,
)
from remote_rm.verdict_cache import VerdictCache

_SHOWN_INPUT = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one service."""

    max_body_bytes: int = 64 * 1024 * 1024
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
) -> FastAPI:
    """Build the service around a judge; the app owns judge, cache and functions, and closes them at shutdown.

    Args:
        functions: They are the reward, in place of the rulebook.
        media_roots: Folders that requests may name files of images in.
    """
    limits = limits or Limits()
    metrics = Metrics()
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
    app.add_middleware(BodyLimit, max_bytes=limits.max_body_bytes)
    if token is not None:
        app.add_middleware(BearerToken, token=token)
    app.add_exception_handler(RequestValidationError, _refuse)
    rewarder, scoring = Rewarder(consistency, rulebook), rulebook.name
    composer = None
    if functions is not None:
        count, scoring = len(functions.specs), "functions"
        composer = Composer([FunctionScorer(functions, number, media_roots) for number in range(count)])
    _add_reward_routes(app, composer or rewarder, rewarder, metrics)
    _add_status_routes(app, judge, scoring, metrics)
    return app


def _add_reward_routes(app: FastAPI, scoring: Rewarder | Composer, rewarder: Rewarder, metrics: Metrics) -> None:
    def counted(route: str, scored: list[ScoredItem]) -> list[ScoredItem]:
        for item in scored:
            metrics.items.labels(route, item.status).inc()
        return scored

    @app.post("/v1/rewards")
    async def rewards(request: RewardRequest) -> RewardReply:
        scored = counted("rewards", await scoring.score_all(request.items))
        return RewardReply(request_id=request.request_id, items=scored, weights=scoring.weights)

    @app.post("/v1/consistency")
    async def consistency(request: ConsistencyRequest) -> ConsistencyReply:
        found = await asyncio.gather(*(rewarder.judge(item) for item in request.items), return_exceptions=True)
        judged = [
            JudgedItem(id=item.id, verdict="unknown", status="failed", raw=fault(one))
            if isinstance(one, BaseException)
            else one
            for item, one in zip(request.items, found, strict=True)
        ]
        for item in judged:
            metrics.items.labels("consistency", item.status).inc()
        return ConsistencyReply(items=judged)

    @app.post("/get_reward")
    async def get_reward(request: openrlhf.OpenRlhfRequest) -> openrlhf.OpenRlhfReply:
        scored = await scoring.score_all(openrlhf.items_of(request))
        return openrlhf.reply_of(counted("get_reward", scored), scoring.names)


def _add_status_routes(app: FastAPI, judge: Judge, scoring: Scoring, metrics: Metrics) -> None:
    @app.get("/healthz")
    async def healthz(response: Response) -> Health:
        try:
            await judge.probe()
        except JudgeError as error:
            response.status_code = 503
            passing = isinstance(error, JudgeUnavailable)
            said = "judge_unavailable" if passing else "judge_refuses"
            return Health(status=said, judge=judge.id, scoring=scoring, detail=str(error))
        return Health(status="ok", judge=judge.id, scoring=scoring)

    @app.get("/metrics")
    async def prometheus() -> Response:
        return Response(metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def _refuse(_: Request, error: Exception) -> JSONResponse:
    """Name the first wrong field, and its value where that is one; a whole body is never echoed."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"] if part != "body") or "body"
    field = field.encode(errors="replace").decode()  # the name of a field may be no text
    value = first.get("input")
    shown = f" (got {repr(value)[:_SHOWN_INPUT]})" if isinstance(value, str | int | float) else ""
    return JSONResponse({"detail": f"{field}: {first['msg'].removeprefix('Value error, ')}{shown}"}, 422)
