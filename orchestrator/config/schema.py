"""The whole configuration of a training run and the checks that span its sections."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Self, TypeVar

from pydantic import model_validator

from algorithms.algorithm import Algorithm, DataKind, Needs
from algorithms.registry import algorithm_class
from algorithms.settings import Section
from orchestrator.config.addresses import address_fault, store_fault
from orchestrator.config.benchmarks import EvalSection
from orchestrator.config.data_folders import is_store
from orchestrator.config.data_section import DataSection
from orchestrator.config.formats import FORMATS, format_of, refuse_unserved
from orchestrator.config.reward_section import RewardSection
from orchestrator.config.run_section import RunSection
from orchestrator.config.sections import (
    BatchingSection,
    GuardSection,
    ModelSection,
    OptimizerSection,
    PlacementSection,
    PolicySection,
    ReferenceSection,
    RolloutSection,
    SyncSection,
)

_S = TypeVar("_S", bound=Section)
_STORE = re.compile(r"stage:[^/]+/(?:eval_)?store\Z")
"""A store that an earlier stage will have made of its data; see ``config.tables``."""
_MAX_UNKNOWN = 0.5
"""A judge that is unreadable more often than not is broken; a good one is readable nearly always."""


@dataclass(frozen=True, slots=True)
class UsersAlgorithm:
    """An algorithm in a file of the user's."""

    text: str
    """``FILE.py:NAME``."""
    kind: type[Algorithm]
    digest: str
    """SHA-256 of the file as it was when the run began."""

    @property
    def name(self) -> str:
        """What a folder can be called after it: ``FILE.NAME``."""
        file, _, name = self.text.rpartition(":")
        return f"{Path(file).stem}.{name}"


class TrainConfig(Section):
    """Everything one run is made of; ``config_type`` adds the sections of the algorithms."""

    users: ClassVar[UsersAlgorithm | None] = None

    algo: str
    """Training algorithm: one of these, or FILE.py:NAME for one of your own."""
    profile: str = "paper"
    """Whose numbers the algorithm's defaults are: its paper's, or released code's; add --help to see them."""
    task: Literal["digits", "count"] = "digits"
    """Embedded task of a run that is given no data.path: judge two readings of a digit, or add up two digits."""
    run: RunSection = RunSection()
    model: ModelSection = ModelSection()
    data: DataSection = DataSection()
    rollout: RolloutSection = RolloutSection()
    eval: EvalSection = EvalSection()
    optimizer: OptimizerSection = OptimizerSection()
    policy: PolicySection = PolicySection()
    batching: BatchingSection = BatchingSection()
    reference: ReferenceSection = ReferenceSection()
    reward: RewardSection = RewardSection()
    placement: PlacementSection = PlacementSection()
    sync: SyncSection = SyncSection()
    guard: GuardSection = GuardSection()

    @classmethod
    def class_of(cls, algo: str) -> type[Algorithm]:
        """The algorithm of a name, registered or the user's own.

        Raises:
            KeyError: there is none.
        """
        return cls.users.kind if cls.users is not None and cls.users.text == algo else algorithm_class(algo)

    @property
    def learner(self) -> Algorithm:
        """The algorithm, with its settings."""
        kind = self.class_of(self.algo)
        return kind(self.algo, {name: getattr(self, name) for name in kind.sections})

    @property
    def needs(self) -> Needs:
        """What the algorithm, with its settings, asks of the run."""
        return self.learner.needs

    @property
    def critic_path(self) -> str | None:
        """Folder of the reward model that a critic begins from; None without one, or where it begins from another."""
        critic = self.needs.critic
        return None if critic is None or critic.init != "reward" else critic.path or self.reward.scalar_path

    def section(self, kind: type[_S]) -> _S:
        """The settings of a section that algorithms bring along."""
        found = (value for name in type(self).model_fields if type(value := getattr(self, name)) is kind)
        return next(found)  # type: ignore[return-value]

    @property
    def embedded_task(self) -> bool:
        """True when the run trains on an embedded task instead of a file of the user's."""
        return self.data.path is None and not self.data.source

    @property
    def by_source(self) -> "dict[str, TrainConfig]":
        """The run as it reads each of its sources, by name; the name of a single one is empty."""
        names = [source.name for source in self.data.source] or [""]
        made = (self.model_copy(update={"data": part}) for part in self.data.parts)
        return dict(zip(names, made, strict=True))

    @property
    def data_kind(self) -> DataKind:
        """What the run learns from; an algorithm that takes several kinds learns from what its data is."""
        return self._kind_of(self.data.parts[0])

    def _kind_of(self, data: DataSection) -> DataKind:
        kinds = self.needs.data
        stored = data.reader is not None or "prompts" not in FORMATS[data.format].serves
        stored = stored or (data.path is not None and (is_store(data.path) or bool(_STORE.match(data.path))))
        return min(kinds, key=lambda kind: (kind == "preferences") != stored)

    @property
    def online(self) -> bool:
        """True where the run learns from what it samples."""
        return self.data_kind == "prompts"

    @property
    def offline(self) -> bool:
        """True where the run learns from a preference store, without rollouts."""
        return self.data_kind == "preferences"

    @property
    def generates_critiques(self) -> bool:
        """True where a critique reward model learns from critiques of its own, which engines write."""
        return self.needs.generated_critiques > 0

    @property
    def measures_margins(self) -> bool:
        """True where a critique reward model says how much each pair counts."""
        return self.needs.margins

    @property
    def judge_path(self) -> str | None:
        """The reward model that a run of MM-DPO is given: one that writes critiques, or one that only scores."""
        scalar = self.reward.scalar_path if self.needs.pair_betas else None
        return self.reward.critique.path or scalar

    @property
    def judge_role(self) -> str:
        """The role of the reward model that a run of MM-DPO is given or makes."""
        return "critique_reward" if self.judge_path is None or self.reward.critique.path else "scalar_reward"

    @property
    def judge_words(self) -> str:
        """What people call it."""
        return f"{self.judge_role.replace('_', ' ')} model"

    @property
    def reference_workers(self) -> int:
        """Reference workers that the run needs."""
        asked = self.needs.reference and (self.online or self.reference.mode == "worker")
        return self.reference.num_ranks if asked else 0

    @property
    def max_unknown(self) -> float | None:
        """Largest accepted share of samples without a verdict; see ``reward.max_unknown``."""
        if self.reward.max_unknown is not None:
            return self.reward.max_unknown
        return None if self.reward.judge == "rules" and self.reward.url is None else _MAX_UNKNOWN

    @property
    def samples_per_step(self) -> int:
        """Completions sampled in one step."""
        return self.rollout.prompts_per_step * self.rollout.samples_per_prompt

    @property
    def updates_per_epoch(self) -> int:
        """Optimizer steps that one rollout is dealt out to each time that it is learned from."""
        return max(1, self.samples_per_step // self.policy.train_batch_size)

    @model_validator(mode="after")
    def _check_batches(self) -> Self:
        size, ranks = self.policy.train_batch_size, self.policy.num_ranks
        if size % ranks:
            raise ValueError(f"policy.train_batch_size = {size} is not a multiple of policy.num_ranks = {ranks}")
        return self

    @model_validator(mode="after")
    def _check_sources(self) -> Self:
        data, reward = self.data, self.reward
        if not self.embedded_task and self.model.path is None:
            given = f"data.path = {data.path!r}" if data.path is not None else "data.source"
            raise ValueError(f"model.path is not set, but {given} needs a model folder")
        for name in ("media_root", "reader", "map", "eval_path", "held_out_frac"):
            if self.embedded_task and (value := getattr(data, name)):
                raise ValueError(f"data.path is not set, but data.{name} = {value!r} belongs to it")
        for part in data.parts:
            format_of(part.read_by)  # a file that cannot be loaded is refused before anything is started
        if data.oversize == "refuse" and data.max_pixels is None:
            raise ValueError("data.max_pixels is not set, but data.oversize = 'refuse' needs it")
        if self.run.mirror is not None and (fault := store_fault(self.run.mirror)) is not None:
            raise ValueError(f"run.mirror {fault}")
        addresses = (("url", reward.url, "token_file"), ("judge_url", reward.judge_url, "judge_key_file"))
        for name, address, secret in addresses:
            if address is not None and (fault := address_fault(address, secret=f"reward.{secret}")) is not None:
                raise ValueError(f"reward.{name} {fault}")
        if reward.judge == "openai" and reward.url is None:
            for name, value in (("judge_url", reward.judge_url), ("judge_model", reward.judge_model)):
                if value is None:
                    raise ValueError(f"reward.{name} is not set, but reward.judge = 'openai' needs it")
        return self

    @model_validator(mode="after")
    def _check_mixture(self) -> Self:
        data, names = self.data, [source.name for source in self.data.source]
        if not names:
            return self
        for option in ("path", "eval_path"):
            if (value := getattr(data, option)) is not None:
                raise ValueError(f"data.{option} = {value!r} stands beside data.source, whose tables have their own")
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"data.source has the name {twice[0]!r} twice")
        kinds = {name: self._kind_of(part) for name, part in zip(names, data.parts, strict=True)}
        if stored := [name for name, kind in kinds.items() if kind == "preferences"]:
            raise ValueError(
                f"data.source {stored[0]!r} holds preferences, which algo = {self.algo!r} learns from one store alone: "
                "put the rows of all in one file or folder and name it by data.path"
            )
        return self

    @model_validator(mode="after")
    def _check_algorithm(self) -> Self:
        for name in type(self).model_fields:
            if isinstance(section := getattr(self, name), Section):
                section.check(self)
        self.learner.check(self)
        if self.reference.mode == "lora_off" and self.model.lora_rank is None:
            raise ValueError("reference.mode = 'lora_off' needs model.lora_rank, which is not set")
        if self.reference.mode == "lora_off" and self.model.adapter is not None:
            raise ValueError("reference.mode = 'lora_off' asks the base alone, but the run begins with model.adapter")
        kind, top_p, critique = self.data_kind, self.rollout.top_p, self.reward.critique
        if self.data.held_out_frac and kind != "preferences":
            raise ValueError(
                f"data.held_out_frac = {self.data.held_out_frac:g} splits a file of preferences, which "
                f"algo = {self.algo!r} does not read in data.format = {self.data.format!r}: set data.eval_path"
            )
        if kind != "preferences":
            for part in self.data.parts:
                refuse_unserved(part.read_by, algo=self.algo, needs=(kind,))
        if top_p < 1 and not self.online and not self.needs.pair_betas:
            raise ValueError(f"rollout.top_p = {top_p:g} has no meaning for algo = {self.algo!r}")
        if critique.weight and not self.online:
            raise ValueError(f"reward.critique.weight = {critique.weight} has no meaning for algo = {self.algo!r}")
        return self

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        if set(self.model.freeze) == {"vision", "bridge", "language"}:
            raise ValueError("model.freeze = vision, bridge, language leaves nothing to train")
        attention = self.model.attention
        if attention.startswith("flash_attention") and self.model.dtype == "float32":
            raise ValueError(f"model.attention = {attention!r} needs model.dtype = 'bfloat16', not 'float32'")
        if self.model.adapter is not None and self.model.path is None:
            raise ValueError(f"model.adapter = {self.model.adapter!r} needs model.path, its base, which is not set")
        for name in ("lora_alpha", "adapter", "quantize"):
            if (value := getattr(self.model, name)) is not None and self.model.lora_rank is None:
                raise ValueError(f"model.{name} = {value!r} needs model.lora_rank, which is not set")
        if self.model.quantize is not None and self.policy.zero_stage == 3:
            raise ValueError(f"model.quantize = {self.model.quantize!r} needs policy.zero_stage below 3, not 3")
        # CUDA IPC hands over memory of one GPU; NCCL refuses two ranks on one GPU.
        needed = {"ipc": "colocated", "nccl": "separate"}.get(self.sync.backend)
        if needed is not None and self.placement.layout != needed:
            raise ValueError(
                f"sync.backend = {self.sync.backend!r} needs placement.layout = {needed!r}, "
                f"not {self.placement.layout!r}"
            )
        return self


def resolved_json(config: TrainConfig) -> str:
    """Every option with its value, as a machine keeps it."""
    return config.model_dump_json(indent=2) + "\n"
