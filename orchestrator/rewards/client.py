"""The client of the reward service: completions in, values with a status out, while generation is still running."""

import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Literal
from uuid import uuid4

import httpx
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from orchestrator.config.addresses import minds_proxies
from orchestrator.errors import RefusedInput
from orchestrator.rewards.openrlhf import body_of, read_openrlhf, speaks_openrlhf
from orchestrator.rewards.replies import LOOKED_AT, read_rewards
from orchestrator.rewards.reward import Reward, RewardItem, failed_reward, one_line
from orchestrator.rewards.secret_words import SecretWords

BATCH_ITEMS = 32
_CONCURRENT_POSTS = 4
MOST_ASKED_AT_ONCE = BATCH_ITEMS * _CONCURRENT_POSTS
_MAX_BODY_BYTES = 64 << 20
_WORTH_A_RETRY = (408, 425, 429)
_MAY_BE_ONE_ITEM = (400, 413, 422)
_NO_SUCH_ROUTE = (404, 405, 501)

Locate = Callable[..., str]
"""Returns the service's address; called with one that has just failed, it may first start the service again.

Raises ConnectionError where it could not.
"""


class _Retryable(Exception):
    """The service could not answer this time."""


@dataclass(frozen=True, slots=True)
class ServiceHealth:
    """What the service says of itself and its judge."""

    state: Literal["well", "passing", "lasting"]
    """Not well for now, or until somebody changes something."""
    words: str = ""
    scoring: str | None = None
    """Rules that a service of ours scores by; None of another."""


class RewardClient:
    """Posts batches concurrently; a batch that cannot be had becomes ``failed`` rewards, never an exception.

    A service or judge that is down is waited for; one that refuses is not, nor is an answer that is none.
    """

    def __init__(
        self,
        locate: Locate,
        *,
        timeout_s: float,
        max_outage_s: float,
        token: str | None = None,
        group_size: int | None = None,
    ) -> None:
        """
        Args:
            group_size: Samples of a prompt, where what is asked compares them: they are then always asked about
                together; None where every sample is looked at by itself.
        Raises:
            RefusedInput: the service's address or the proxy that the environment names for it cannot be used.
        """
        self._url, self._secret, self._timeout_s = locate(), SecretWords(token), timeout_s
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            httpx.URL(self._url)
        except httpx.InvalidURL as error:
            raise RefusedInput(f"reward.url is no address: {error}") from error
        try:
            self._http = httpx.Client(
                timeout=timeout_s,
                headers=headers,
                trust_env=minds_proxies(self._url),
                # None is kept: one that is no ASCII could not even be sent back.
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            )
        except ImportError as error:
            raise RefusedInput(f"reward.url cannot be asked through the proxy of the environment: {error}") from error
        except (httpx.InvalidURL, ValueError):
            # What is said of an address may hold a piece of the proxy's password.
            raise RefusedInput(
                "reward.url cannot be asked through the proxy of the environment: it is no address"
            ) from None
        self._threads = ThreadPoolExecutor(max_workers=_CONCURRENT_POSTS, thread_name_prefix="reward")
        self._locate, self._max_outage_s, self.group_size = locate, max_outage_s, group_size

    def open_stream(self) -> "RewardStream":
        """Start collecting items of one step."""
        return RewardStream(self)

    def health(self) -> ServiceHealth:
        """Ask the service how it and its judge are; one without such a route is taken to be well."""
        try:
            status, body = self._exchange("GET", "healthz")
        except httpx.DecodingError as error:
            return ServiceHealth("lasting", self._told(f"{type(error).__name__}: {error}"))
        except httpx.HTTPError as error:
            return ServiceHealth("passing", self._told(f"{type(error).__name__}: {error}"))
        own = _own_words(body)
        if status in _NO_SUCH_ROUTE or status < 400:
            return ServiceHealth("well", scoring=own.get("scoring"))
        lasting = own.get("status") == "judge_refuses" or (status < 500 and status not in _WORTH_A_RETRY)
        return ServiceHealth(
            "lasting" if lasting else "passing", self._told(own.get("detail") or _http_words(status, body))
        )

    def close(self) -> None:
        """Finish running posts and drop the connections."""
        self._threads.shutdown(wait=True)
        self._http.close()

    def post(self, items: Sequence[RewardItem]) -> "Future[dict[str, Reward]]":
        """Score one batch in the background."""
        return self._threads.submit(self._score, list(items))

    def _score(self, items: list[RewardItem]) -> dict[str, Reward]:
        answers = {item.id: why for item in items if (why := _unspeakable(item)) is not None}
        pending = {item.id: item for item in items if item.id not in answers}
        was_well = False

        def attempt() -> None:
            nonlocal was_well
            answers.update(self._post(list(pending.values())))
            again = [item for item in pending.values() if _may_pass(answers[item.id])]
            groups = {item.group for item in again} if self.group_size is not None else {None}
            for item in list(pending.values()):
                if item not in again and item.group not in groups - {None}:
                    del pending[item.id]
            # What failed counts as the item's own fault only if the judge was well before it was asked.
            health = self.health() if pending else ServiceHealth("well")
            before, was_well = was_well, health.state == "well"
            if pending and health.state != "lasting" and not (before and was_well):
                raise _Retryable(f"the judge does not answer: {health.words or 'it was away a moment ago'}")

        retrying = Retrying(
            stop=stop_after_delay(self._max_outage_s),
            wait=wait_random_exponential(multiplier=0.2, max=5),
            retry=retry_if_exception_type(_Retryable),
            reraise=True,
        )
        reason = "it was not asked about"
        try:
            if pending:
                retrying(attempt)
        except _Retryable as error:
            reason = f"{error} (for {self._max_outage_s:g} s)"
        return {item.id: answers.get(item.id) or failed_reward(reason) for item in items}

    def _post(self, items: list[RewardItem]) -> dict[str, Reward]:
        ids = [item.id for item in items]
        body: dict[str, Any] = {"request_id": uuid4().hex, "items": [item.to_json() for item in items]}
        url, route, read = self._url, "v1/rewards", read_rewards
        if speaks_openrlhf(url):
            body, route, read = body_of(items), "", read_openrlhf
        try:
            status, answer = self._exchange("POST", route, json.dumps(body, ensure_ascii=False).encode())
        except httpx.DecodingError as error:
            return dict.fromkeys(ids, failed_reward(f"the service's answer cannot be decoded: {error}"))
        except httpx.HTTPError as error:
            try:
                self._url = self._locate(url)
            except ConnectionError as gone:
                raise _Retryable(str(gone)) from gone
            raise _Retryable(self._told(f"{type(error).__name__}: {error}")) from error
        if status == 200:
            return read(answer, ids, told=self._told)
        said = self._told(_http_words(status, answer))
        if status >= 500 or status in _WORTH_A_RETRY:
            raise _Retryable(said)
        whole = list(_grouped(items).values()) if self.group_size is not None else [[item] for item in items]
        if status in _MAY_BE_ONE_ITEM and len(whole) > 1:
            # One item can spoil its batch: the halves are asked about by themselves.
            half = len(whole) // 2
            parts = ([item for group in some for item in group] for some in (whole[:half], whole[half:]))
            return {uid: reward for part in parts for uid, reward in self._post(part).items()}
        return dict.fromkeys(ids, failed_reward(said))

    def _exchange(self, method: str, route: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Status and body of one answer.

        Raises:
            httpx.HTTPError: there was none, or more than anybody should read, or it dripped in too slowly.
        """
        deadline = time.monotonic() + self._timeout_s
        headers = {"Content-Type": "application/json"} if body is not None else {}
        url = f"{self._url.rstrip('/')}/{route}" if route else self._url
        with self._http.stream(method, url, content=body, headers=headers) as response:
            chunks, size = [], 0
            for chunk in response.iter_bytes():
                chunks.append(chunk)
                size += len(chunk)
                if time.monotonic() > deadline:
                    raise httpx.ReadTimeout(f"no whole answer in {self._timeout_s:g} s", request=response.request)
                if size > _MAX_BODY_BYTES:
                    raise httpx.DecodingError(f"it is longer than {_MAX_BODY_BYTES} bytes", request=response.request)
            moved = response.headers.get("location")
            if response.has_redirect_location and moved is not None:
                return response.status_code, f"it has moved to {moved}".encode()
            return response.status_code, b"".join(chunks)

    def _told(self, words: str) -> str:
        """A service that repeats the token does not get it into a log. Cut afterwards, or a piece of it stays."""
        return one_line(self._secret.without(words))


class RewardStream:
    """Collects the completions of one step into batches and posts each batch as soon as it is full."""

    def __init__(self, client: RewardClient) -> None:
        self._client = client
        self._buffer: list[RewardItem] = []
        self._open: dict[str | None, list[RewardItem]] = {}
        self._posted: list[Future[dict[str, Reward]]] = []

    def add(self, item: RewardItem) -> None:
        """Queue one item, and post what waits once it is a batch; samples that are compared wait for each other."""
        group = self._open.setdefault(item.group, [])
        group.append(item)
        if len(group) == (self._client.group_size or 1):
            self._buffer += self._open.pop(item.group)
        if len(self._buffer) >= BATCH_ITEMS:
            self._flush()

    def results(self) -> dict[str, Reward]:
        """Wait for every posted batch; return rewards by item id."""
        self._buffer += [item for group in self._open.values() for item in group]
        self._open = {}
        self._flush()
        merged: dict[str, Reward] = {}
        for future in self._posted:
            merged.update(future.result())
        return merged

    def _flush(self) -> None:
        if self._buffer:
            self._posted.append(self._client.post(self._buffer))
            self._buffer = []


def _may_pass(reward: Reward) -> bool:
    return reward.status == "failed" and not reward.is_final


def _grouped(items: Sequence[RewardItem]) -> dict[str | None, list[RewardItem]]:
    groups: dict[str | None, list[RewardItem]] = {}
    for item in items:
        groups.setdefault(item.group, []).append(item)
    return groups


def _unspeakable(item: RewardItem) -> Reward | None:
    """A failed reward for an item that cannot be sent: half of a character is no UTF-8."""
    for name, text in (("id", item.id), ("prompt", item.prompt), ("response", item.response), ("label", item.label)):
        try:
            (text or "").encode()
        except UnicodeEncodeError as error:
            half = f"U+{ord(error.object[error.start]):04X}"
            return failed_reward(f"the {name} holds {half} at character {error.start}, half of a character")
    return None


def _http_words(status: int, body: bytes) -> str:
    return f"HTTP {status}: {body[:LOOKED_AT].decode(errors='replace') or 'nothing more'}"


def _own_words(body: bytes) -> dict[str, str]:
    """What a health answer in our own format says; nothing where it is another."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    fields = answer.items() if isinstance(answer, dict) else ()
    return {name: value for name, value in fields if isinstance(value, str)}
