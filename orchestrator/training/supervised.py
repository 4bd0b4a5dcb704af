"""Supervised learning from demonstrations: prompts with a response each, and a policy that is judged by its answers."""

from dataclasses import dataclass, replace

import numpy as np

from algorithms.records import Example, Sequence
from orchestrator.run.checkpoint import Progress
from orchestrator.run.metrics import PhaseClock
from orchestrator.training.answering import Answering
from orchestrator.training.online_step import named_prompt
from orchestrator.training.session import Evaluation, Metrics
from orchestrator.training.updates import after_updates, step_samples, take_updates, update_figures
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.types import Prompt


@dataclass(slots=True, kw_only=True)
class SupervisedWork:
    """One optimizer step on the next demonstrations; engines are woken to be judged."""

    answering: Answering
    is_stage: bool
    """Another run follows and evaluates what comes of this one: here the quick evaluations do."""
    _awake: bool = True

    @property
    def measures_start(self) -> bool:
        """Unless another run follows."""
        return not self.is_stage

    def step(self, progress: Progress, clock: PhaseClock) -> tuple[Progress, Metrics]:
        """The next demonstrations."""
        if self._awake:
            self.answering.engines.sleep()
            self._awake = False
        session = self.answering.session
        config = session.config
        with session.phase("train", clock):
            picks, cursor = progress.cursor.take(config.policy.train_batch_size)
            named = [named_prompt(self.answering.train, pick) for pick in picks]
            examples = [_demonstration(self.answering.encoder, prompt) for prompt in named]
            learned = step_samples(config.learner, examples, self.answering.ask.at(progress, clock))
            ahead = replace(progress, step=progress.step + 1, cursor=cursor, learner_state=learned.state)
            updates = take_updates(session, learned.updates, ahead)
        return after_updates(ahead, updates), update_figures(updates, planned=len(updates))

    def evaluate(self, progress: Progress, *, last: bool) -> Evaluation:
        """Give the engines the policy's weights, where they have others, and judge what they answer."""
        if not self._awake:
            self.answering.verified_sync(progress.policy_version)
            self._awake = True
        return self.answering.evaluate(quick=self.is_stage or not last)


def _demonstration(encoder: PromptEncoder, prompt: Prompt) -> Example:
    encoded = encoder.encode(prompt)
    target = encoder.encode_target(prompt.target or "")
    sequence = Sequence(
        uid=prompt.uid,
        sample_index=0,
        input_ids=np.asarray((*encoded.prompt_ids, *target), dtype=np.int64),
        prompt_len=len(encoded.prompt_ids),
        media=prompt.media,
    )
    return Example(uid=prompt.uid, sequences=(sequence,))
