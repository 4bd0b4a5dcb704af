"""A judge behind any OpenAI-compatible endpoint: one constrained token, retried with jitter, behind a breaker."""

import asyncio

import openai
from pydantic import BaseModel, ValidationError
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from remote_rm.judges.breaker import CircuitBreaker
from remote_rm.judges.protocol import JudgeError, Judgement
from remote_rm.judges.rubric import CONSISTENT, INCONSISTENT, RUBRIC_VERSION, messages
from remote_rm.schema import Verdict

_ATTEMPTS = 4
_LONGEST_WAIT_S = 8.0
_SHOWN = 200
_WORTH_A_RETRY = {408, 409, 425, 429}
_VERDICTS: dict[str, Verdict] = {CONSISTENT: "consistent", INCONSISTENT: "inconsistent"}
_PROBE = ("Response 1 is the better one.", "Response 1 is better.")


class JudgeUnavailable(JudgeError):
    """Unreachable, too slow or overloaded: another attempt may succeed."""


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message


class _Reply(BaseModel):
    """The part of a chat completion that is read; whatever else an endpoint adds is its own affair."""

    choices: list[_Choice]


class OpenAiJudge:
    """One connection pool to one endpoint."""

    rubric_version = RUBRIC_VERSION

    def __init__(
        self, url: str, model: str, *, api_key: str = "EMPTY", timeout_s: float, breaker: CircuitBreaker | None = None
    ) -> None:
        """``timeout_s`` bounds one call, however slowly its bytes drip in.

        Raises:
            ValueError: ``url`` is no http address.
        """
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"--judge-url {url!r} should start with http:// or https://")
        self._model = model
        self._timeout_s = timeout_s
        self._breaker = breaker or CircuitBreaker()
        # The client's own retries are off: ours have a deadline and feed the breaker.
        self._client = openai.AsyncOpenAI(base_url=url, api_key=api_key, timeout=timeout_s, max_retries=0)

    @property
    def id(self) -> str:
        """The model's name, not its address: a judge that moves keeps its verdicts, a changed one needs a new name."""
        return f"openai/{self._model}"

    async def judge(self, tail: str, answer: str) -> Judgement:
        """Ask for one verdict; a reply other than 0 or 1 is ``unknown``, never guessed at."""
        self._breaker.admit()
        try:
            raw = await self._ask_patiently(tail, answer)
        except (JudgeUnavailable, asyncio.CancelledError):
            self._breaker.failed()
            raise
        except JudgeError:
            # It refused this input, so it is there.
            self._breaker.succeeded()
            raise
        self._breaker.succeeded()
        return Judgement(verdict_of(raw), raw[:_SHOWN])

    async def probe(self) -> None:
        """Ask one easy question, once; its answer must be readable."""
        raw = await self._ask(*_PROBE)
        if verdict_of(raw) == "unknown":
            raise JudgeError(f"{self.id} answered {raw[:_SHOWN]!r} instead of {INCONSISTENT} or {CONSISTENT}")
        self._breaker.succeeded()  # whoever was told to wait need not any longer

    async def close(self) -> None:
        """Drop connections."""
        await self._client.close()

    async def _ask_patiently(self, tail: str, answer: str) -> str:
        retrying = AsyncRetrying(
            stop=stop_after_attempt(_ATTEMPTS),
            wait=wait_random_exponential(multiplier=1.0, max=_LONGEST_WAIT_S),
            retry=retry_if_exception_type(JudgeUnavailable),
            reraise=True,
        )
        return await retrying(self._ask, tail, answer)

    async def _ask(self, tail: str, answer: str) -> str:
        try:
            async with asyncio.timeout(self._timeout_s):
                reply = await self._client.chat.completions.with_raw_response.create(
                    model=self._model,
                    messages=messages(tail, answer),  # pyright: ignore[reportArgumentType]
                    max_tokens=1,
                    temperature=0.0,
                    # vLLM's constrained decoding: the only tokens it may choose from.
                    extra_body={"structured_outputs": {"choice": [INCONSISTENT, CONSISTENT]}},
                )
        except (TimeoutError, openai.APITimeoutError) as error:
            raise JudgeUnavailable(f"{self.id} gave no answer within {self._timeout_s:g} s") from error
        except openai.APIConnectionError as error:
            raise JudgeUnavailable(f"{self.id} cannot be reached: {error.__cause__ or error}") from error
        except openai.APIStatusError as error:
            told = f"{self.id} answered HTTP {error.status_code}: {error.message[:_SHOWN]}"
            transient = error.status_code >= 500 or error.status_code in _WORTH_A_RETRY
            raise (JudgeUnavailable(told) if transient else JudgeError(told)) from error
        return _content(reply.content)


def verdict_of(text: str) -> Verdict:
    """Exactly ``0`` or ``1``, outer white space aside; anything else is ``unknown``."""
    return _VERDICTS.get(text.strip(), "unknown")


def _content(body: bytes) -> str:
    """The reply's text; a body that is no chat completion stands for itself, and will be ``unknown``."""
    try:
        choices = _Reply.model_validate_json(body).choices
    except ValidationError:
        return f"no chat completion: {body[:_SHOWN].decode(errors='replace')}"
    return (choices[0].message.content or "") if choices else ""
