"""The whole configuration of a training run and the checks that span its sections."""

from pathlib import Path
from typing import Literal, Self

from pydantic import model_validator

from algorithms.preference_registry import PREFERENCE_ALGORITHMS, PreferenceAlgorithm
from algorithms.settings import Section
from orchestrator.config.addresses import address_fault
from orchestrator.config.formats import FORMATS, format_of, refuse_unserved
from orchestrator.config.preference_sections import (
    CritiqueRmSection,
    MmDpoSection,
    PreferenceSection,
    ReferenceSection,
)
from orchestrator.config.sections import (
    AlgorithmSection,
    BatchingSection,
    DataSection,
    GuardSection,
    ModelSection,
    OptimizerSection,
    PlacementSection,
    PolicySection,
    RewardSection,
    RolloutSection,
    RunSection,
    SyncSection,
)

AlgorithmName = Literal[
    "stable_reinforce",
    "reinforce_pp",
    "sft",
    "dpo",
    "ipo",
    "hinge",
    "ddpo",
    "kto",
    "kto_pair",
    "scalar_rm",
    "critique_rm",
    "mm_dpo",
]

_MAX_UNKNOWN = 0.5
"""A judge that is unreadable more often than not is broken; a good one is readable nearly always."""


class TrainConfig(Section):
    """Everything one run is made of."""

    algo: AlgorithmName
    """Training algorithm."""
    profile: Literal["paper", "r1_released", "mmrlhf_paper", "mmrlhf_released"] = "paper"
    """Defaults of the algorithm's paper, or of the code released with R1-Reward (other filter, KL 1e-3, learning rate
    3e-7, its rules of scoring) or with MM-RLHF (one noisy beta a batch, w 0.1, SFT weight 0.25, two-layer reward head,
    critique weight 2)."""
    run: RunSection = RunSection()
    model: ModelSection = ModelSection()
    data: DataSection = DataSection()
    rollout: RolloutSection = RolloutSection()
    algorithm: AlgorithmSection = AlgorithmSection()
    optimizer: OptimizerSection = OptimizerSection()
    policy: PolicySection = PolicySection()
    batching: BatchingSection = BatchingSection()
    preference: PreferenceSection = PreferenceSection()
    critique_rm: CritiqueRmSection = CritiqueRmSection()
    mm_dpo: MmDpoSection = MmDpoSection()
    reference: ReferenceSection = ReferenceSection()
    reward: RewardSection = RewardSection()
    placement: PlacementSection = PlacementSection()
    sync: SyncSection = SyncSection()
    guard: GuardSection = GuardSection()

    @property
    def embedded_task(self) -> bool:
        """True when the run trains on the embedded task, digits, instead of a file of the user's."""
        return self.data.path is None

    @property
    def offline(self) -> PreferenceAlgorithm | None:
        """How the run learns from a preference store, without rollouts; None where it does not.

        Supervised learning does, except from demonstrations in a format of the online algorithms.
        """
        data = self.data
        from_store = data.reader is not None or "prompts" not in FORMATS[data.format].serves
        if self.algo == "sft" and not (from_store or (data.path is not None and Path(data.path).is_dir())):
            return None
        return PREFERENCE_ALGORITHMS.get(self.algo)

    @property
    def online(self) -> bool:
        """True where the run learns from what it samples."""
        return self.offline is None and self.algo != "sft"

    @property
    def generates_critiques(self) -> bool:
        """True where a critique reward model learns from critiques of its own, which engines write."""
        return self.algo == "critique_rm" and self.critique_rm.scheduled_sampling > 0

    @property
    def measures_margins(self) -> bool:
        """True where a critique reward model says how much each pair counts."""
        return self.offline is not None and self.offline.weighs_pairs and self.mm_dpo.beta_mode == "margin"

    @property
    def reference_workers(self) -> int:
        """Reference workers that the run needs."""
        if self.offline is not None:
            return self.reference.num_ranks if self.offline.needs_reference and self.reference.mode == "worker" else 0
        return self.reference.num_ranks if self.algorithm.kl_coef > 0 and self.algo != "sft" else 0

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
    def updates_per_step(self) -> int:
        """Optimizer steps that one rollout is dealt out to."""
        return max(1, self.samples_per_step // self.policy.train_batch_size)

    @model_validator(mode="after")
    def _check_batches(self) -> Self:
        size, ranks = self.policy.train_batch_size, self.policy.num_ranks
        if size % ranks:
            raise ValueError(f"policy.train_batch_size = {size} is not a multiple of policy.num_ranks = {ranks}")
        if self.algo not in PREFERENCE_ALGORITHMS and self.samples_per_step % size:
            prompts, samples = self.rollout.prompts_per_step, self.rollout.samples_per_prompt
            raise ValueError(
                "rollout.prompts_per_step * rollout.samples_per_prompt = "
                f"{prompts} * {samples} = {self.samples_per_step} is not a multiple of "
                f"policy.train_batch_size = {size}"
            )
        return self

    @model_validator(mode="after")
    def _check_sources(self) -> Self:
        data, reward = self.data, self.reward
        if data.path is not None and self.model.path is None:
            raise ValueError(f"model.path is not set, but data.path = {data.path!r} needs a model folder")
        for name in ("media_root", "reader", "eval_path", "held_out_frac"):
            if data.path is None and (value := getattr(data, name)):
                raise ValueError(f"data.path is not set, but data.{name} = {value!r} belongs to it")
        format_of(data.read_by)  # a file that cannot be loaded is refused before anything is started
        if data.oversize == "refuse" and data.max_pixels is None:
            raise ValueError("data.max_pixels is not set, but data.oversize = 'refuse' needs it")
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
    def _check_preferences(self) -> Self:
        smoothing, margin = self.preference.label_smoothing, self.preference.score_margin
        if smoothing and self.algo not in ("dpo", "ddpo"):
            raise ValueError(f"preference.label_smoothing = {smoothing} has no meaning for algo = {self.algo!r}")
        if -1 < margin < 0:
            raise ValueError(f"preference.score_margin = {margin} must be at least 0, or -1 for the largest gap only")
        if self.reference.mode == "lora_off" and self.model.lora_rank is None:
            raise ValueError("reference.mode = 'lora_off' needs model.lora_rank, which is not set")
        if self.algo == "kto" and self.reference.mode == "precomputed":
            raise ValueError("reference.mode = 'precomputed' cannot serve kto, whose baseline changes with every batch")
        if self.algo == "kto" and self.policy.train_batch_size < 2:
            raise ValueError("policy.train_batch_size = 1 must be at least 2 for kto: its baseline mixes instructions")
        if self.data.held_out_frac and self.offline is None:
            raise ValueError(
                f"data.held_out_frac = {self.data.held_out_frac:g} splits a file of preferences, which "
                f"algo = {self.algo!r} does not read in data.format = {self.data.format!r}: set data.eval_path"
            )
        if self.algo not in PREFERENCE_ALGORITHMS:
            refuse_unserved(self.data.read_by, algo=self.algo, needs=("prompts",))
        return self

    @model_validator(mode="after")
    def _check_sampling(self) -> Self:
        top_p = self.rollout.top_p
        if top_p < 1 and self.online:
            raise ValueError(
                f"rollout.top_p = {top_p:g} must be 1 for algo = {self.algo!r}, which learns from what it samples: "
                "the log-probs that it trains are those of every token, not of the likeliest alone"
            )
        if top_p < 1 and self.algo != "mm_dpo":
            raise ValueError(f"rollout.top_p = {top_p:g} has no meaning for algo = {self.algo!r}")
        return self

    @model_validator(mode="after")
    def _check_critiques(self) -> Self:
        critique = self.reward.critique
        if critique.weight and not self.online:
            raise ValueError(f"reward.critique.weight = {critique.weight} has no meaning for algo = {self.algo!r}")
        if critique.weight and critique.path is None:
            raise ValueError("reward.critique.path is not set, but reward.critique.weight above 0 needs it")
        return self

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        if set(self.model.freeze) == {"vision", "bridge", "language"}:
            raise ValueError("model.freeze = vision, bridge, language leaves nothing to train")
        attention = self.model.attention
        if attention.startswith("flash_attention") and self.model.dtype == "float32":
            raise ValueError(f"model.attention = {attention!r} needs model.dtype = 'bfloat16', not 'float32'")
        for name, value in (("lora_alpha", self.model.lora_alpha), ("quantize", self.model.quantize)):
            if value is not None and self.model.lora_rank is None:
                raise ValueError(f"model.{name} = {value!r} needs model.lora_rank, which is not set")
        if self.model.quantize is not None and self.policy.zero_stage == 3:
            raise ValueError(f"model.quantize = {self.model.quantize!r} needs policy.zero_stage below 3, not 3")
        if self.policy.offload_optimizer and self.policy.zero_stage == 0:
            raise ValueError("policy.offload_optimizer = true needs policy.zero_stage of at least 1, not 0")
        # CUDA IPC hands over memory of one GPU; NCCL refuses two ranks on one GPU.
        needed = {"ipc": "colocated", "nccl": "separate"}.get(self.sync.backend)
        if needed is not None and self.placement.layout != needed:
            raise ValueError(
                f"sync.backend = {self.sync.backend!r} needs placement.layout = {needed!r}, "
                f"not {self.placement.layout!r}"
            )
        return self
