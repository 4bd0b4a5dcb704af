"""A judge behind any OpenAI-compatible endpoint: one constrained token, retried with jitter, behind a breaker.

What an endpoint does not take is left out of the request as soon as it says so, and a judge that thinks first is given
the room to; both are found out once and remembered for as long as the process lasts.
"""

import asyncio
import math
from dataclasses import replace
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from time import time

import openai
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from remote_rm.addresses import check_address, minds_proxies
from remote_rm.judges.bounded_http import BoundedClient, TooLong
from remote_rm.judges.protocol import ABANDONED, CircuitBreaker, JudgeError, Judgement, JudgeUnavailable
from remote_rm.judges.request import CONSISTENT, INCONSISTENT, ROOM, RequestShape, refused_parameters
from remote_rm.judges.words import SHOWN, STRICT, Manner, Reply, conclusion_of, messages, passes, read_reply
from remote_rm.secret_words import Secrets

_ATTEMPTS = 4
_LONGEST_WAIT_S = 8.0
_LONGEST_ASKED_WAIT_S = 20.0
_MORE_TIME_TO_THINK = 3.0
_ABOUT_A_PARAMETER = {400, 404, 422}
_NO_KEY = "EMPTY"
_PROBE = ("Response 1 is the better one.", "Response 1 is better.")


class _ParametersRefused(JudgeError):
    """The endpoint names parameters that it can be asked without."""

    def __init__(self, told: str, named: set[str]) -> None:
        super().__init__(told)
        self.named = named


class OpenAiJudge:
    """One connection pool to one endpoint."""

    def __init__(
        self,
        url: str,
        model: str,
        *,
        api_key: str = _NO_KEY,
        timeout_s: float,
        breaker: CircuitBreaker | None = None,
        manner: Manner = STRICT,
        secrets: Secrets | None = None,
    ) -> None:
        """
        Args:
            timeout_s: Of one call for a bare answer, however slowly its bytes drip in.
            secrets: What is not passed on when the endpoint repeats it; None is the key.
        Raises:
            ValueError: ``url`` is no plain http address, or the environment's proxy for it cannot be used.
        """
        check_address(url, name="--judge-url", secret="--judge-key-file")
        self._model, self._manner = model, manner
        self._secrets = secrets or Secrets([api_key if api_key != _NO_KEY else None])
        self._timeout_s = timeout_s
        self._breaker = breaker or CircuitBreaker()
        self._shape, self._is_shape_known = manner.shape, False
        self._finding_out = asyncio.Lock()
        try:
            http = BoundedClient(
                timeout=timeout_s,
                trust_env=minds_proxies(url),
                # None is kept: one that is no ASCII could not even be sent back.
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            )
        except ImportError as error:
            raise ValueError(f"--judge-url cannot be asked through the proxy of the environment: {error}") from error
        except Exception:  # noqa: BLE001 - the client's own HTTP library has errors of its own
            # What is said of an address may hold a piece of the proxy's password.
            raise ValueError(
                "--judge-url cannot be asked through the proxy of the environment: it is no address"
            ) from None
        # The client's own retries are off: ours have a deadline and feed the breaker.
        self._client = openai.AsyncOpenAI(
            base_url=url,
            api_key=api_key,
            timeout=timeout_s,
            max_retries=0,
            http_client=http,  # pyright: ignore[reportArgumentType] - httpx and its successor are both taken
        )

    @property
    def id(self) -> str:
        """The model's name, not its address: a judge that moves keeps its verdicts, a changed one needs a new name."""
        return f"openai/{self._model}"

    @property
    def rubric_version(self) -> str:
        """Of the words it is asked with, and of how its own are read."""
        return self._manner.rubric_version

    async def judge(self, tail: str, answer: str) -> Judgement:
        """Ask for one verdict; a reply that cannot be read is ``unknown``, never guessed at."""
        self._breaker.admit()
        try:
            judgement = await self._judge(tail, answer)
        except JudgeUnavailable:
            self._breaker.failed()
            raise
        except asyncio.CancelledError as cancelled:
            if ABANDONED in cancelled.args:
                self._breaker.released()
            else:
                self._breaker.failed()  # its deadline has passed
            raise
        except JudgeError:
            # It refused this input, so it is there.
            self._breaker.succeeded()
            raise
        except BaseException:
            self._breaker.released()
            raise
        self._breaker.succeeded()
        return judgement

    async def probe(self) -> None:
        """Ask one easy question; its answer must be readable."""
        judgement = await self._judge(*_PROBE, attempts=1)
        if judgement.verdict == "unknown":
            raise JudgeError(f"{self.id} answered {judgement.raw!r} instead of {INCONSISTENT} or {CONSISTENT}")
        self._breaker.succeeded()  # whoever was told to wait need not any longer

    async def close(self) -> None:
        """Drop connections."""
        await self._client.close()

    async def _judge(self, tail: str, answer: str, *, attempts: int = _ATTEMPTS) -> Judgement:
        judgement = Judgement("unknown", "")
        for _ in range(self._manner.most_asks):
            reply = await self._ask_patiently(tail, answer, attempts)
            shown = conclusion_of(self._secrets.scrub(reply.text or reply.stands_for))
            judgement = Judgement(self._manner.read(reply.text), shown)
            if judgement.verdict != "unknown":
                break
        return judgement

    async def _ask_patiently(self, tail: str, answer: str, attempts: int) -> Reply:
        retrying = AsyncRetrying(
            stop=stop_after_attempt(attempts),
            wait=_wait_s,
            retry=retry_if_exception_type(JudgeUnavailable),
            reraise=True,
        )
        return await retrying(self._ask, tail, answer)

    async def _ask(self, tail: str, answer: str) -> Reply:
        tried = None
        if self._is_shape_known:
            tried = self._shape
            try:
                reply = await self._call(tried, tail, answer)
            except _ParametersRefused:
                pass
            else:
                if not self._wants_room(reply, tried):
                    return reply
        # One finds out what the endpoint takes; whoever asks meanwhile waits for that instead of being refused too.
        async with self._finding_out:
            if not self._is_shape_known or self._shape is tried:
                return await self._find_out(tail, answer)
        return await self._find_out(tail, answer)

    async def _find_out(self, tail: str, answer: str) -> Reply:
        """Ask with less, or with more room, until there is an answer, and keep what has worked."""
        began = shape = self._shape
        while True:
            try:
                reply = await self._call(shape, tail, answer)
            except _ParametersRefused as refused:
                lesser = shape.without(refused.named)
                if lesser is None:
                    raise
                shape = lesser
                continue
            self._is_shape_known = True
            if shape is not began:
                self._shape = shape
            if not self._wants_room(reply, shape):
                return reply
            shape = replace(shape, tokens=ROOM)

    def _wants_room(self, reply: Reply, shape: RequestShape) -> bool:
        return reply.is_cut and shape.tokens < ROOM and self._manner.read(reply.text) == "unknown"

    async def _call(self, shape: RequestShape, tail: str, answer: str) -> Reply:
        timeout_s = self._timeout_s * (_MORE_TIME_TO_THINK if shape.tokens > 1 else 1.0)
        try:
            async with asyncio.timeout(timeout_s):
                reply = await self._client.chat.completions.with_raw_response.create(
                    model=self._model,
                    messages=messages(tail, answer),  # pyright: ignore[reportArgumentType]
                    extra_body=shape.parameters(),
                    timeout=timeout_s,
                )
            return read_reply(reply.content)
        except (TimeoutError, openai.APITimeoutError) as error:
            raise JudgeUnavailable(f"{self.id} gave no answer within {timeout_s:g} s") from error
        except TooLong as error:
            raise JudgeError(f"{self.id} {error}") from error
        except openai.APIConnectionError as error:
            why = str(error.__cause__ or "") or str(error)
            raise JudgeUnavailable(self._told(f"cannot be reached: {why}")) from error
        except openai.APIStatusError as error:
            raise self._refusal(error) from error
        except JudgeUnavailable as error:
            raise JudgeUnavailable(self._told(str(error))) from error
        except JudgeError as error:
            raise JudgeError(self._told(str(error))) from error

    def _refusal(self, error: openai.APIStatusError) -> JudgeError:
        body = error.response.content
        told = self._told(f"answered HTTP {error.status_code}: {error.message}")
        if passes(error.status_code, error.code):
            return JudgeUnavailable(told, wait_s=_asked_wait_s(error.response.headers.get("retry-after")))
        named = refused_parameters(body) if error.status_code in _ABOUT_A_PARAMETER else set()
        return _ParametersRefused(told, named) if named else JudgeError(told)

    def _told(self, words: str) -> str:
        """A line of bounded length, cut after a key that the endpoint repeats is out of it."""
        return f"{self.id} {' '.join(self._secrets.scrub(words).split())[:SHOWN]}"


def _wait_s(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome is not None else None
    asked = error.wait_s if isinstance(error, JudgeUnavailable) else 0.0
    return max(asked, wait_random_exponential(multiplier=1.0, max=_LONGEST_WAIT_S)(state))


def _asked_wait_s(header: str | None) -> float:
    """``Retry-After`` in seconds, within bounds; 0 where there is none or it cannot be read."""
    if header is None:
        return 0.0
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - time()
        except (ValueError, OverflowError):  # the offset of its time zone is as long as they like
            return 0.0
    return min(max(seconds, 0.0), _LONGEST_ASKED_WAIT_S) if math.isfinite(seconds) else 0.0
