"""The HTTP application: routes, limits, and errors of one sentence.

request ──► gate (token, size) ──► schema ──► Rewarder, all items at once ──► reply in request order
                                                 │ one semaphore
                                                 ▼
                                            cache, then judge
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from remote_rm import openrlhf
from remote_rm.gate import BearerToken, BodyLimit
from remote_rm.judges.protocol import Judge, JudgeError, JudgeUnavailable
from remote_rm.rewarding import ConsistencyScorer, Metrics, Rewarder, failed
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
)
from remote_rm.verdict_cache import VerdictCache

_log = logging.getLogger(__name__)
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
    token: str | None = None,
) -> FastAPI:
    """Build the service around a judge; the app owns judge and cache, and closes them at shutdown."""
    limits = limits or Limits()
    metrics = Metrics()
    consistency = ConsistencyScorer(
        judge, cache, metrics, concurrency=limits.judge_concurrency, deadline_s=limits.judge_deadline_s
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await consistency.close()

    app = FastAPI(title="raylign reward service", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_middleware(BodyLimit, max_bytes=limits.max_body_bytes)
    if token is not None:
        app.add_middleware(BearerToken, token=token)
    app.add_exception_handler(RequestValidationError, _refuse)
    _add_reward_routes(app, Rewarder(consistency, rulebook), metrics)
    _add_status_routes(app, judge, rulebook, metrics)
    return app


def _add_reward_routes(app: FastAPI, rewarder: Rewarder, metrics: Metrics) -> None:
    async def score_all(route: str, items: list[RewardItem]) -> list[ScoredItem]:
        # An item that ends in an exception fails alone, whatever the exception is.
        found = await asyncio.gather(*(rewarder.score(item) for item in items), return_exceptions=True)
        scored = [
            failed(item.id, _fault(one)) if isinstance(one, BaseException) else one
            for item, one in zip(items, found, strict=True)
        ]
        for item in scored:
            metrics.items.labels(route, item.status).inc()
        return scored

    @app.post("/v1/rewards")
    async def rewards(request: RewardRequest) -> RewardReply:
        return RewardReply(request_id=request.request_id, items=await score_all("rewards", request.items))

    @app.post("/v1/consistency")
    async def consistency(request: ConsistencyRequest) -> ConsistencyReply:
        found = await asyncio.gather(*(rewarder.judge(item) for item in request.items), return_exceptions=True)
        judged = [
            JudgedItem(id=item.id, verdict="unknown", status="failed", raw=_fault(one))
            if isinstance(one, BaseException)
            else one
            for item, one in zip(request.items, found, strict=True)
        ]
        for item in judged:
            metrics.items.labels("consistency", item.status).inc()
        return ConsistencyReply(items=judged)

    @app.post("/get_reward")
    async def get_reward(request: openrlhf.OpenRlhfRequest) -> openrlhf.OpenRlhfReply:
        return openrlhf.reply_of(await score_all("get_reward", openrlhf.items_of(request)))


def _add_status_routes(app: FastAPI, judge: Judge, rulebook: Rulebook, metrics: Metrics) -> None:
    @app.get("/healthz")
    async def healthz(response: Response) -> Health:
        try:
            await judge.probe()
        except JudgeError as error:
            response.status_code = 503
            passing = isinstance(error, JudgeUnavailable)
            said = "judge_unavailable" if passing else "judge_refuses"
            return Health(status=said, judge=judge.id, scoring=rulebook.name, detail=str(error))
        return Health(status="ok", judge=judge.id, scoring=rulebook.name)

    @app.get("/metrics")
    async def prometheus() -> Response:
        return Response(metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _fault(error: BaseException) -> str:
    """Log a defect of ours; the client gets its name."""
    if not isinstance(error, Exception):
        raise error
    _log.error("an item could not be scored", exc_info=error)
    return f"{type(error).__name__} in the reward service; its log says where"


async def _refuse(_: Request, error: Exception) -> JSONResponse:
    """Name the first wrong field, and its value where that is one; a whole body is never echoed."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"] if part != "body") or "body"
    field = field.encode(errors="replace").decode()  # the name of a field may be no text
    value = first.get("input")
    shown = f" (got {repr(value)[:_SHOWN_INPUT]})" if isinstance(value, str | int | float) else ""
    return JSONResponse({"detail": f"{field}: {first['msg'].removeprefix('Value error, ')}{shown}"}, 422)
