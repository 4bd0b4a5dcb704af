"""The policy as engines show it: given new weights, verified, and judged by what it answers to held-out prompts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from algorithms.records import SamplingDistribution
from orchestrator.cluster.engines import Engines
from orchestrator.cluster.launch import policy_engines
from orchestrator.cluster.specs import sampled_from
from orchestrator.cluster.sync import SyncResult
from orchestrator.config.schema import TrainConfig
from orchestrator.data.prompts import RunData
from orchestrator.evaluation.held_out import Several, evaluate
from orchestrator.evaluation.types import EvalResult
from orchestrator.evaluation.while_training import RunBenchmark
from orchestrator.run.cursor import sample_seed
from orchestrator.run.identity import Identity, run_identity
from orchestrator.training.ask import RunAsk, run_ask
from orchestrator.training.session import Evaluation, Session, judged_evaluation
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.types import EncodedPrompt, Prompt

_QUICK = 128
"""Prompts of a quick evaluation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answering:
    """Engines that follow the policy of a run, and the prompts that they are asked."""

    session: Session
    engines: Engines
    encoder: PromptEncoder
    train: Sequence[Prompt]
    held_out: Sequence[Prompt]
    ask: RunAsk
    """What the algorithm may ask."""
    benchmarks: Sequence[RunBenchmark] = ()
    """That the policy is measured on besides."""

    @property
    def sampling(self) -> SamplingDistribution:
        """What the rollouts are sampled from, and so what every log-prob of theirs is of."""
        return sampled_from(self.session.config, self.session.pool.engine_spec.banned_token_ids)

    def verified_sync(self, policy_version: int, seen: Sequence[str] = ()) -> SyncResult:
        """Bring every engine to ``policy_version`` and prove it.

        Args:
            seen: Names of prompts that engines were asked since their caches were last emptied, which probes are of.
        """
        count = self.session.config.sync.probe_prompts
        chosen = [self.encoder.encode(prompt) for prompt in probed(self.train, seen, count)]
        return self.engines.sync(policy_version, chosen or _first(self.train, self.encoder, count))

    def evaluate(self, *, quick: bool = False) -> Evaluation:
        """Held-out judgements of the weights that the engines have, and what they come to on benchmarks.

        ``quick`` takes a fixed subset of the former and skips the shuffled control.
        """
        measured: dict[str, float] = {}
        # Accuracy of nothing is none: a prompt without a label has no right answer.
        known = [prompt for prompt in self.held_out if prompt.label is not None]
        result = self._judged(known, quick=quick) if known else None
        for benchmark in self.benchmarks:
            self.session.console.phase(f"evaluate {benchmark.name}")
            measured |= benchmark.figures(self.engines.sample, self.encoder)
        if result is None:
            return Evaluation(figures=measured)
        return judged_evaluation(replace(result, further={**result.further, **measured}))

    def _judged(self, known: Sequence[Prompt], *, quick: bool) -> EvalResult:
        config = self.session.config
        several = Several(
            count=config.eval.samples,
            temperature=config.eval.temperature,
            seed_of=lambda uid, index: sample_seed(config.run.seed, uid, index, 0),
        )
        return evaluate(
            self.engines.sample,
            self.encoder,
            known[:_QUICK] if quick else known,
            max_new_tokens=config.rollout.max_new_tokens,
            with_shuffled=not quick,
            several=several if config.eval.samples > 1 and not quick else None,
        )


def answering(
    session: Session,
    encoder: PromptEncoder,
    data: RunData,
    *,
    policy_version: int,
    benchmarks: Sequence[RunBenchmark] = (),
) -> Answering:
    """The pool's engines, with the policy's weights."""
    train, count = data.train.prompts, session.config.sync.probe_prompts
    engines = policy_engines(
        session.config, session.folder.root, session.pool, probe=lambda: _first(train, encoder, count)
    )
    found = Answering(
        session=session,
        engines=engines,
        encoder=encoder,
        train=train,
        held_out=data.held_out,
        ask=run_ask(session, encoder),
        benchmarks=benchmarks,
    )
    found.verified_sync(policy_version)
    return found


def online_identity(config: TrainConfig, data: RunData) -> Identity:
    """What makes a run on files that were read whole this run."""
    rows, sources = data.train.fingerprint, data.train.by_source
    return run_identity(config, rows=rows, held_out=data.held_out_fingerprint, sources=sources)


def probed(train: Sequence[Prompt], seen: Sequence[str], count: int) -> list[Prompt]:
    """The prompts that prove most: with media first, which engines remember encoded, and of these the last seen.

    Args:
        seen: Names; one that stood twice in a batch has a name of its own for the second time.
    """
    by_uid = {prompt.uid: prompt for prompt in train}
    asked = [by_uid.get(uid) or by_uid[uid.rpartition("~")[0]] for uid in reversed(seen)]
    apart = {prompt.uid: prompt for prompt in asked}
    return sorted(apart.values(), key=lambda prompt: not prompt.media)[:count]


def _first(train: Sequence[Prompt], encoder: PromptEncoder, count: int) -> list[EncodedPrompt]:
    """Prompts that any engine can be asked, whatever it has seen."""
    return [encoder.encode(p) for p in train[:count]]
