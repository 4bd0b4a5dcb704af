"""What an algorithm is: settings, what it needs, how a batch becomes training samples, and what the workers minimise.

    driver    batch ──► samples(batch, ask) ──► one list of samples for each optimizer step, and figures
    workers   (scores, samples) ──► objective ──► a loss for each sample, and figures
    driver    held-out examples ──► evaluate(examples, ask) ──► figures

An algorithm's file holds all of it. It is imported by whoever only plans a run, so it loads no torch: what computes
imports it where it computes. Registered in ``algorithms.registry``, or named on a command line as ``FILE.py:NAME``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np

from algorithms.ask import Ask
from algorithms.figures import Figure, Tallies
from algorithms.records import Sequence as TokenSequence
from algorithms.records import WeighedPairs
from algorithms.settings import Section

if TYPE_CHECKING:
    from torch import Tensor

DataKind = Literal["prompts", "demonstrations", "preferences"]
"""Prompts that engines answer while the policy learns, prompts with a response to imitate, or stored responses that
somebody compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighing:
    """Of tokens or sequences by π_learns / π_sampled, as ``maths.importance.correction_weights`` does."""

    mode: Literal["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"]
    minimum: float | None
    maximum: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalarHead:
    """A head that gives a sequence one reward, read at its last token."""

    kind: Literal["linear", "mlp"] = "linear"
    bias: bool = False
    """A linear head has one: where a reward counts by itself, and not only against another of the same prompt."""
    keeps_language: bool = False
    """False: it stands in place of the language model's head. True: the model also writes."""
    request: str | None = None
    """What the model is asked behind a response, before it writes a critique or begins to say a reward; None where it
    is asked nothing."""
    opening: str | None = None
    """Words by which it is made to begin to say the reward, which is read at the last; None of one that is told no
    facts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CriticModel:
    """A value model beside the policy: it says of every token what the state before it is worth."""

    init: Literal["policy", "reward", "random"]
    """Whose weights it begins with: the policy's model, a reward model, or fresh ones."""
    path: str | None
    """Folder of that reward model; None is the one that rewards this run."""
    head: ScalarHead
    keeps_head: bool
    """It begins with the scalar head of the reward model; else with zeros."""
    lr: float | None
    """Peak learning rate; None is the policy's."""
    schedule: Literal["constant", "linear", "cosine"] | None
    """None is the policy's."""
    objective: "Objective"
    epochs: int = 1
    """Times that it goes through the samples of a step."""
    warmup_steps: int = 0
    """Steps at the beginning at which it learns and the policy does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What an algorithm, with its settings, asks of a run."""

    data: tuple[DataKind, ...]
    """What it can learn from."""
    responses: Literal["pairs", "labels", "best"] | None = None
    """What it takes from stored responses: pairs, every response by itself as desirable or not, or the best alone."""
    reference: bool = False
    """A frozen copy of the model that the run began from."""
    teacher: str | None = None
    """Folder of another model that stands where the reference does; None is that copy."""
    rewards: bool = True
    """Somebody says what an answer is worth, where answers are sampled to learn from."""
    head: ScalarHead | None = None
    """A second head, or another; None trains the model as it is."""
    critic: CriticModel | None = None
    """A value model that learns beside the policy."""
    critiques: bool = False
    """Stored responses come with people's critiques."""
    facts: bool = False
    """Stored responses are read with what is known to be true of their sample."""
    generated_critiques: float = 0.0
    """Share of the steps on which engines write critiques with the weights of the moment."""
    pair_betas: bool = False
    """Every pair has a beta of its own."""
    margins: bool = False
    """A critique reward model says beforehand by how much each pair differs."""


@dataclass(frozen=True, slots=True)
class Scores:
    """What the model thinks of the sequences of a micro-batch's samples, sample after sample."""

    logprobs: "tuple[Tensor, ...]"
    """Of each sequence's action tokens, float32 ``[L_i]``, nats, with gradient; empty from a model without a language
    model's head."""
    entropy: "Tensor | None" = None
    """Of all these tokens, float32 ``[N]``, nats."""
    greedy: "Tensor | None" = None
    """bool ``[N]``: the token is the likeliest."""
    rewards: "tuple[Tensor, ...]" = ()
    """Of each sequence, ``[1]``, with gradient; empty from a model without a scalar head."""
    values: "tuple[Tensor, ...]" = ()
    """Of the state before each action token, float32 ``[L_i]``, with gradient; empty from all but a critic."""


@dataclass(frozen=True, slots=True)
class Loss:
    """What a micro-batch adds to the objective."""

    losses: "Tensor"
    """``[S]``: each sample's share of the *global* batch's objective, with gradient; micro-batches and ranks add up."""
    figures: Tallies = field(default_factory=dict)


class Sample(Protocol):
    """What a worker learns from, whole, in one micro-batch."""

    @property
    def uid(self) -> str:
        """What to call it when it is at fault."""
        ...

    @property
    def sequences(self) -> tuple[TokenSequence, ...]:
        """What the model reads for it; of one prompt."""
        ...


class Objective(Protocol):
    """What workers minimise; picklable, so plain settings."""

    def __call__(self, scores: Scores, samples: Sequence[Any]) -> Loss:
        """The losses of a micro-batch of at least one sample of the algorithm's own kind."""
        ...


@dataclass(frozen=True, slots=True)
class StepSamples:
    """What one step learns from."""

    updates: Sequence[Sequence[Any]]
    """The samples of each optimizer step, one after the other."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """What is known of the step before it is taken."""
    critic: Sequence[Sequence[Any]] = ()
    """The critic's samples of each optimizer step, of which there may be more; empty where there is no critic."""
    state: Mapping[str, float] = field(default_factory=dict)
    """What the algorithm carries to the next step, as plain numbers; a checkpoint keeps it."""


class Unlearnable(ValueError):
    """Why nothing can be learned from a step, in one sentence; it stops the run."""


class Algorithm:
    """One algorithm with its settings; final classes are registered."""

    sections: ClassVar[Mapping[str, type[Section]]] = {}
    """The configuration's sections that it brings along, by name; those of one name are one class."""
    defaults: ClassVar[Mapping[str, Any]] = {}
    """Its defaults by dotted option name, where they differ from the sections' own."""
    profiles: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Other defaults by name: those of a paper, or of released code."""
    figures: ClassVar[tuple[Figure, ...]] = ()
    """What its steps and evaluations report, beyond what every step does."""

    def __init__(self, name: str, settings: Mapping[str, Section]) -> None:
        """
        Args:
            name: As it is registered.
            settings: Its sections, by name.
        """
        self.name = name
        self.settings = settings

    @property
    def needs(self) -> Needs:
        """What it asks of the run, with these settings."""
        raise NotImplementedError

    @property
    def weighing(self) -> Weighing | None:
        """How tokens are weighed against the weights that sampled them; None where nothing can be learned from what
        earlier weights sampled."""
        return None

    def epochs_at(self, step: int) -> int:
        """Times that the policy goes through a step's samples, where answers are sampled to learn from.

        Args:
            step: Steps finished.
        """
        return 1

    def check(self, config: Any) -> None:
        """Refuse a configuration that it cannot serve.

        Raises:
            ValueError: in one sentence that names option, value and bound.
        """

    def objective(self) -> Objective:
        """What every rank minimises."""
        raise NotImplementedError

    def samples(self, batch: Sequence[Any], ask: Ask) -> StepSamples:
        """What a step learns from.

        Args:
            batch: ``records.Rollout`` of prompts, ``records.Example`` of anything else.
        Raises:
            Unlearnable: nothing can be learned from it.
        """
        raise NotImplementedError

    def seen_by_critic(self, sequence: TokenSequence, ask: Ask) -> TokenSequence:
        """What the critic values of a rollout: here what was sampled; asked where ``needs`` has a critic."""
        return sequence

    def corrected(self, samples: Sequence[Any]) -> Sequence[Any]:
        """Samples of one update, weighed for the gap between the engines that sampled and the policy that learns.

        Asked for where ``guard.max_mismatch`` was exceeded; the same samples where the objective does it anyway.
        """
        return samples

    def weigh(
        self,
        uid: str,
        pairs: tuple[tuple[int, int], ...],
        *,
        rewards: tuple[np.ndarray, ...] | None,
        factors: Mapping[tuple[int, int], float],
    ) -> WeighedPairs | str:
        """What each pair of an instruction counts; asked where ``needs.pair_betas``."""
        raise NotImplementedError

    def prepared(self, examples: Sequence[Any], ask: Ask) -> Sequence[Any]:
        """What ``evaluate`` is given, made once of held-out examples."""
        return examples

    def evaluate(self, prepared: Sequence[Any], ask: Ask) -> dict[str, float]:
        """Figures on held-out data; empty where engines are evaluated instead."""
        return {}
