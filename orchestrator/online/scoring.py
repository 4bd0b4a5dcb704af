"""The client of the reward service: completions in, values with a status out, while generation is still running."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal
from uuid import uuid4

import httpx
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

RewardStatus = Literal["scored", "cached", "unknown", "failed"]
_BATCH_ITEMS = 32
_CONCURRENT_POSTS = 4
_WORTH_A_RETRY = (408, 429)

Locate = Callable[..., str]
"""Returns the service's address; called with one that has just failed, it may first start the service again."""


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
    critique: float | None = None
    """What the critique reward model gave, before its weight; None where it is not asked."""


class _Retryable(Exception):
    """The service could not answer this time."""


class RewardClient:
    """Posts batches concurrently; a batch that cannot be had becomes ``failed`` rewards, never an exception.

    A service or judge that is down is waited for; an item that a working judge could not judge is not asked again.
    """

    def __init__(self, locate: Locate, *, timeout_s: float, max_outage_s: float, token: str | None = None) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(timeout=timeout_s, headers=headers)
        self._threads = ThreadPoolExecutor(max_workers=_CONCURRENT_POSTS, thread_name_prefix="reward")
        self._locate, self._max_outage_s = locate, max_outage_s
        self._url = locate()

    def open_stream(self) -> "RewardStream":
        """Start collecting items of one step."""
        return RewardStream(self)

    def healthy(self) -> bool:
        """True when the service and its judge answer."""
        try:
            return self._http.get(f"{self._url}/healthz").status_code == 200
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
        answers: dict[str, Reward] = {}
        pending = {item.id: item for item in items}
        was_healthy = False

        def attempt() -> None:
            nonlocal was_healthy
            answers.update(self._post(list(pending.values())))
            for item in items:
                if item.id in answers and answers[item.id].status != "failed":
                    pending.pop(item.id, None)
            # What failed counts as the item's own fault only if the judge was well before it was asked.
            before, was_healthy = was_healthy, not pending or self.healthy()
            if pending and not (before and was_healthy):
                raise _Retryable("the judge does not answer")

        retrying = Retrying(
            stop=stop_after_delay(self._max_outage_s),
            wait=wait_random_exponential(multiplier=0.2, max=5),
            retry=retry_if_exception_type(_Retryable),
            reraise=True,
        )
        reason = "the service left this item out"
        try:
            retrying(attempt)
        except _Retryable as error:
            reason = f"{error} (for {self._max_outage_s:g} s)"
        return {item.id: answers.get(item.id, _failed(reason)) for item in items}

    def _post(self, items: list[RewardItem]) -> dict[str, Reward]:
        url = self._url
        body = {"request_id": uuid4().hex, "items": [item.to_json() for item in items]}
        try:
            response = self._http.post(f"{url}/v1/rewards", json=body)
        except httpx.HTTPError as error:
            self._url = self._locate(url)
            raise _Retryable(f"{type(error).__name__}: {error}") from error
        if response.status_code != 200:
            said = f"HTTP {response.status_code}: {response.text[:200]}"
            if response.status_code >= 500 or response.status_code in _WORTH_A_RETRY:
                raise _Retryable(said)
            return {item.id: _failed(said) for item in items}
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
