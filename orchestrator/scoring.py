"""The client of the reward service: completions in, values with a status out, while generation is still running."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal
from uuid import uuid4

import httpx
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

RewardStatus = Literal["scored", "cached", "unknown", "failed"]
_BATCH_ITEMS = 32
_CONCURRENT_POSTS = 4
_ATTEMPTS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardItem:
    """What the service is asked about one completion."""

    uid: str
    sample_index: int
    prompt: str
    response: str
    label: str | None
    media: tuple[str, ...]
    """SHA-256 of each image."""

    @property
    def id(self) -> str:
        """The item's id on the wire."""
        return f"{self.uid}/{self.sample_index}"

    def to_json(self) -> dict[str, Any]:
        """The item as the service's schema has it."""
        return {
            "id": self.id,
            "prompt": self.prompt,
            "response": self.response,
            "label": self.label,
            "media": [{"sha256": digest} for digest in self.media],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Reward:
    """A reward is a value with a status; ``failed`` carries no value and is masked out of the advantage."""

    value: float | None
    format: float | None
    accuracy: float | None
    consistency: float | None
    status: RewardStatus
    detail: str | None = None


class _Retryable(Exception):
    """The service could not answer this time."""


class RewardClient:
    """Posts batches concurrently; a batch that cannot be had becomes ``failed`` rewards, never an exception."""

    def __init__(self, url: str, *, timeout_s: float, token: str | None = None) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(base_url=url, timeout=timeout_s, headers=headers)
        self._threads = ThreadPoolExecutor(max_workers=_CONCURRENT_POSTS, thread_name_prefix="reward")
        self._timeout_s = timeout_s

    def open_stream(self) -> "RewardStream":
        """Start collecting items of one step."""
        return RewardStream(self)

    def healthy(self) -> bool:
        """True when the service and its judge answer."""
        try:
            return self._http.get("/healthz").status_code == 200
        except httpx.HTTPError:
            return False

    def close(self) -> None:
        """Finish running posts and drop the connections."""
        self._threads.shutdown(wait=True)
        self._http.close()

    def post(self, items: Sequence[RewardItem]) -> "Future[dict[str, Reward]]":
        """Score one batch in the background."""
        return self._threads.submit(self._score, list(items))

    def _score(self, items: list[RewardItem]) -> dict[str, Reward]:
        retrying = Retrying(
            stop=stop_after_attempt(_ATTEMPTS),
            wait=wait_random_exponential(multiplier=0.2, max=5),
            retry=retry_if_exception_type(_Retryable),
            reraise=True,
        )
        try:
            answer = retrying(self._post, items)
        except _Retryable as error:
            return {item.id: _failed(str(error)) for item in items}
        return {item.id: answer.get(item.id, _failed("the service left this item out")) for item in items}

    def _post(self, items: list[RewardItem]) -> dict[str, Reward]:
        body = {"request_id": uuid4().hex, "items": [item.to_json() for item in items]}
        try:
            response = self._http.post("/v1/rewards", json=body)
        except httpx.HTTPError as error:
            raise _Retryable(f"{type(error).__name__}: {error}") from error
        if response.status_code != 200:
            raise _Retryable(f"HTTP {response.status_code}: {response.text[:200]}")
        return {item["id"]: _reward(item) for item in response.json()["items"]}


class RewardStream:
    """Collects the completions of one step into batches and posts each batch as soon as it is full."""

    def __init__(self, client: RewardClient) -> None:
        self._client = client
        self._buffer: list[RewardItem] = []
        self._posted: list[Future[dict[str, Reward]]] = []

    def add(self, item: RewardItem) -> None:
        """Queue one item."""
        self._buffer.append(item)
        if len(self._buffer) == _BATCH_ITEMS:
            self._flush()

    def results(self) -> dict[str, Reward]:
        """Wait for every posted batch; return rewards by item id."""
        self._flush()
        merged: dict[str, Reward] = {}
        for future in self._posted:
            merged.update(future.result())
        return merged

    def _flush(self) -> None:
        if self._buffer:
            self._posted.append(self._client.post(self._buffer))
            self._buffer = []


def _reward(item: dict[str, Any]) -> Reward:
    parts = item.get("parts") or {}
    return Reward(
        value=item["reward"],
        format=parts.get("format"),
        accuracy=parts.get("accuracy"),
        consistency=parts.get("consistency"),
        status=item["status"],
        detail=item.get("detail"),
    )


def _failed(detail: str) -> Reward:
    return Reward(value=None, format=None, accuracy=None, consistency=None, status="failed", detail=detail)
