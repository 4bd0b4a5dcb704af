"""An OpenAI-compatible endpoint as the judge that writes.

question ──► pictures as data: addresses ──► one of so many slots ──► retried with jitter ──► text, or why there is none

A failure of the endpoint is waited out as long as ``Outage`` says, one of a question alone for a few times. Parameters
that the endpoint refuses are left out from then on. The key is in no word that leaves this file.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import openai
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from orchestrator.config.addresses import minds_proxies
from orchestrator.errors import RefusedInput
from orchestrator.rewards.asking import Answer, Question
from orchestrator.rewards.bounded_http import BoundedClient, TooLong
from orchestrator.rewards.chat import EndpointError, Unavailable, answer_in, content_of, refusal, without_refused
from orchestrator.rewards.outage import Outage
from orchestrator.rewards.reward import one_line
from orchestrator.rewards.secret_words import SecretWords
from workers.multimodal.media import MediaError

_AT_ONCE = 32
_OWN_ATTEMPTS = 4
"""Of a question that fails while others are answered."""
_LONGEST_WAIT_S = 8.0
_NO_KEY = "EMPTY"


class EndpointWriter:
    """One model at one address."""

    def __init__(
        self,
        url: str,
        model: str,
        *,
        key: str | None = None,
        max_new_tokens: int,
        timeout_s: float,
        max_outage_s: float,
    ) -> None:
        """
        Args:
            timeout_s: Longest wait for one answer, however slowly its bytes drip in, seconds.
            max_outage_s: Longest time in which an endpoint that does not answer is waited for, seconds.
        """
        self._url, self._model, self._key = url, model, key
        self._secret = SecretWords(key)
        self._timeout_s, self._max_outage_s = timeout_s, max_outage_s
        self._parameters: dict[str, Any] = {"max_tokens": max_new_tokens, "temperature": None, "seed": None}
        """Those that the endpoint takes, as far as is known; None is each question's own."""
        self.left_out: set[str] = set()
        """Names of those that it refused."""

    def write(self, questions: Sequence[Question]) -> list[Answer]:
        """An answer to each.

        Raises:
            RefusedInput: the proxy that the environment names for the address cannot be used.
        """
        return asyncio.run(self._write(questions))

    async def _write(self, questions: Sequence[Question]) -> list[Answer]:
        async with self._client() as client:
            asking = _Asking(client, Outage(self._max_outage_s))
            return await asyncio.gather(*(self._answer(question, asking) for question in questions))

    def _client(self) -> openai.AsyncOpenAI:
        try:
            http = BoundedClient(
                timeout=self._timeout_s,
                trust_env=minds_proxies(self._url),
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            )
        except ImportError as error:
            raise RefusedInput(
                f"reward.judge_url cannot be asked through the proxy of the environment: {error}"
            ) from error
        except Exception:  # noqa: BLE001 - the client's own HTTP library has errors of its own
            # What is said of an address may hold a piece of the proxy's password.
            raise RefusedInput(
                "reward.judge_url cannot be asked through the proxy of the environment: it is no address"
            ) from None
        # The client's own retries are off: ours have a deadline.
        return openai.AsyncOpenAI(
            base_url=self._url,
            api_key=self._key or _NO_KEY,
            timeout=self._timeout_s,
            max_retries=0,
            http_client=http,  # pyright: ignore[reportArgumentType] - httpx and its successor are both taken
        )

    async def _answer(self, question: Question, asking: "_Asking") -> Answer:
        async with asking.slots:
            try:
                content = await asyncio.to_thread(content_of, question)
            except (MediaError, UnicodeEncodeError) as error:
                return Answer(None, one_line(f"it cannot be asked: {error}"), is_refused=True)
            tries = _Tries(asking.outage, self._max_outage_s)
            retrying = AsyncRetrying(
                retry=retry_if_exception_type(Unavailable), wait=_wait_s, stop=tries.are_enough, reraise=True
            )
            try:
                answer = await retrying(self._attempt, (question, content), asking, tries)
                return replace(answer, text=self._without_key(answer.text or ""))
            except EndpointError as error:
                waited = f" (waited for reward.max_outage_s = {self._max_outage_s:g})" if tries.took_too_long else ""
                return Answer(None, self._told(str(error)) + waited, is_refused=error.is_refused)

    async def _attempt(self, asked: "_Asked", asking: "_Asking", tries: "_Tries") -> Answer:
        outage = asking.outage
        while outage.is_down and not outage.is_over:
            async with asking.trial:
                if outage.is_down and not outage.is_over:
                    return await self._try(asked, asking, tries)
        if outage.is_over:
            raise Unavailable(outage.reason)
        return await self._try(asked, asking, tries)

    async def _try(self, asked: "_Asked", asking: "_Asking", tries: "_Tries") -> Answer:
        try:
            answer = await self._call(asked, asking.client)
        except Unavailable as error:
            tries.failed(error)
            asking.outage.failed(str(error))
            raise
        except EndpointError:
            asking.outage.answered()  # it refused this question, so it is there
            raise
        asking.outage.answered()
        return answer

    async def _call(self, asked: "_Asked", client: openai.AsyncOpenAI) -> Answer:
        question, content = asked
        own = {"temperature": question.temperature, "seed": question.seed}
        while True:
            taken = self._parameters
            filled = {name: own[name] if value is None else value for name, value in taken.items()}
            sent = {name: value for name, value in filled.items() if value is not None}
            try:
                async with asyncio.timeout(self._timeout_s):
                    reply = await client.chat.completions.with_raw_response.create(
                        model=self._model, messages=[{"role": "user", "content": content}], extra_body=sent
                    )
                return answer_in(reply.content)
            except (TimeoutError, openai.APITimeoutError) as error:
                raise Unavailable(f"gave no answer within reward.timeout_s = {self._timeout_s:g}") from error
            except openai.APIConnectionError as error:
                cause = error.__cause__ or error
                raise Unavailable(f"cannot be reached: {type(cause).__name__} {cause}") from error
            except openai.APIStatusError as error:
                lesser = without_refused(sent, error)
                if lesser is None:
                    raise refusal(error) from error
                if self._parameters is taken:
                    self._parameters = _kept(taken, sent, lesser)
                    self.left_out |= sent.keys() - lesser.keys()
            except TooLong as error:
                raise EndpointError(str(error)) from error
            except openai.OpenAIError as error:
                raise EndpointError(f"cannot be asked: {error}") from error

    def _told(self, words: str) -> str:
        """A line of bounded length. Cut after the key is out of it, or a piece of it stays."""
        return one_line(f"{self._model} {self._without_key(words)}")

    def _without_key(self, words: str) -> str:
        return self._secret.without(words)


_Asked = tuple[Question, Any]
"""With its content on the wire."""


def _kept(taken: dict[str, Any], sent: dict[str, Any], lesser: dict[str, Any]) -> dict[str, Any]:
    """What is sent from now on, where of ``sent`` only ``lesser`` may be."""
    kept = {name: value for name, value in taken.items() if name in lesser or name not in sent}
    return kept | {name: value for name, value in lesser.items() if name not in taken}


class _Asking:
    """What the questions of one call share."""

    def __init__(self, client: openai.AsyncOpenAI, outage: Outage) -> None:
        self.client, self.outage = client, outage
        self.slots, self.trial = asyncio.Semaphore(_AT_ONCE), asyncio.Lock()


class _Tries:
    """When a question has been asked often enough."""

    def __init__(self, outage: Outage, most_s: float) -> None:
        self._outage, self._most_s = outage, most_s
        self._own = 0
        """Failures while others were answered, but for those of an endpoint that said it was busy."""
        self._num_answers = outage.num_answers
        self.took_too_long = False

    def failed(self, error: Unavailable) -> None:
        """Count it as the question's own if another was answered since its last: a quick failure has none beside it."""
        self._own += not error.is_busy and self._outage.num_answers > self._num_answers
        self._num_answers = self._outage.num_answers

    def are_enough(self, state: RetryCallState) -> bool:
        self.took_too_long = self._outage.is_over or (state.seconds_since_start or 0.0) >= self._most_s
        return self.took_too_long or self._own >= _OWN_ATTEMPTS


def _wait_s(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome is not None else None
    asked = error.wait_s if isinstance(error, Unavailable) else 0.0
    return max(asked, wait_random_exponential(multiplier=0.5, max=_LONGEST_WAIT_S)(state))
