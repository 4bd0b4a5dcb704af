"""Workers of the run's own as the judge that writes: greedy, so that equal questions get equal answers."""

from collections.abc import Sequence
from typing import Any, Protocol

from orchestrator.cluster.microbatches import Deal, deal_prompts
from orchestrator.rewards.asking import Answer, Question
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.types import Completion, GenerationRequest, Prompt, UnusablePrompt


class JudgeWorkers(Protocol):
    """Workers of the role ``judge``, wherever they are."""

    def each(self, method: str, items: Sequence[Any], *, deadline_s: float, deal: Deal | None = None) -> list[Any]:
        """To ``write`` a text for each request, in the order given."""
        ...


class WorkersWriter:
    """What a question says stays words: its encoder makes nothing in it a placeholder or a control token."""

    def __init__(
        self,
        workers: JudgeWorkers,
        encoder: PromptEncoder,
        *,
        max_new_tokens: int,
        max_model_len: int,
        deadline_s: float,
    ) -> None:
        self._workers, self._encoder, self._deadline_s = workers, encoder, deadline_s
        self._max_new_tokens, self._max_model_len = max_new_tokens, max_model_len

    def write(self, questions: Sequence[Question]) -> list[Answer]:
        """An answer to each; one that does not fit the judge is not asked."""
        answers: dict[int, Answer] = {}
        requests: list[GenerationRequest] = []
        for index, question in enumerate(questions):
            made = self._request(index, question)
            if isinstance(made, Answer):
                answers[index] = made
            else:
                requests.append(made)
        written: list[Completion] = []
        if requests:
            written = self._workers.each("write", requests, deadline_s=self._deadline_s, deal=deal_prompts)
        for completion in written:
            answers[completion.sample_index] = Answer(self._encoder.decode(completion.completion_ids))
        return [answers[index] for index in range(len(questions))]

    def _request(self, index: int, question: Question) -> GenerationRequest | Answer:
        turn = {"role": "user", "content": question.content}
        try:
            encoded = self._encoder.encode(Prompt(uid=question.uid, messages=(turn,), media=question.media))
        except UnusablePrompt as error:
            return Answer(None, f"it cannot be asked: {error.reason}")
        length = len(encoded.prompt_ids)
        if length + self._max_new_tokens > self._max_model_len:
            return Answer(
                None,
                f"it cannot be asked: {length} tokens and an answer of {self._max_new_tokens} are more than "
                f"{self._max_model_len}",
            )
        return GenerationRequest(
            uid=question.uid, sample_index=index, engine_prompt_ids=encoded.engine_prompt_ids,
            prompt_ids=encoded.prompt_ids, media=encoded.media,
            seed=question.seed or 0, max_new_tokens=self._max_new_tokens, temperature=question.temperature,
        )  # fmt: skip
