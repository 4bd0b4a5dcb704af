"""The sections of a run's configuration. The docstring under a field is its help on the command line."""

from typing import Annotated, Any, Literal

from pydantic import Field

from algorithms.settings import Count, GivenPath, Seconds, Section, Share, Times, Workers


class ModelSection(Section):
    """The model that is trained."""

    path: GivenPath | None = None
    """Hugging Face model folder; none = the small model of the embedded task."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of weights and activations; auto = bfloat16 on GPU, float32 on CPU."""
    attention: Literal[
        "sdpa", "eager", "flash_attention_2", "flash_attention_3", "flash_attention_4", "flex_attention"
    ] = "sdpa"
    """Attention of the trainer, vision tower and packed rows; flash_attention_4 (Hopper, Blackwell) comes with the gpu
    extra, flex_attention learns on GPUs, from shared prompts alone, and leaves the tower to sdpa."""
    freeze: tuple[Literal["vision", "bridge", "language"], ...] = Field(default=(), strict=False)
    """Parts that stay as they are: vision tower, bridge into the language model, language model."""
    lora_rank: Count | None = None
    """Train a LoRA adapter of this rank on every linear layer of the parts not frozen; none = train the weights."""
    lora_alpha: Count | None = None
    """The adapter's product counts lora_alpha / lora_rank times; none = twice the rank, whatever that is."""
    adapter: GivenPath | None = None
    """Folder of a LoRA adapter of model.path that policy and reference begin with; none = policy with a new one."""
    quantize: Literal["nf4"] | None = None
    """Keep the weights under the adapter in four bits, on a GPU, with bitsandbytes (QLoRA); none = in model.dtype."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time."""
    trust_remote_code: bool = False
    """Run Python code shipped in the model folder."""

    @property
    def alpha(self) -> int | None:
        """``lora_alpha``, or what stands for it: with a fixed ratio the learning rate need not follow the rank."""
        return 2 * self.lora_rank if self.lora_alpha is None and self.lora_rank is not None else self.lora_alpha

    @property
    def folder(self) -> str:
        """``path``, for whoever comes after the embedded task has made its own."""
        assert self.path is not None, "the embedded task makes its model before anything is done with it"
        return self.path


class RolloutSection(Section):
    """How completions are sampled."""

    engine: Literal["auto", "vllm", "transformers"] = "auto"
    """Generation engine; auto = vllm where it is installed and serves the model, else transformers."""
    num_engines: Workers = 1
    """Engines that sample side by side."""
    tensor_parallel_size: Workers = 1
    """GPUs that share one engine."""
    prompts_per_step: Count = 256
    """Prompts of one step."""
    samples_per_prompt: Count = 1
    """Completions sampled for each prompt."""
    max_refills: Times = 0
    """Times that a step samples the next prompts in place of those whose samples all earned the same."""
    max_new_tokens: Count = 1024
    """Longest completion, tokens."""
    staleness: Times = 0
    """Steps that an answer may be older than the weights that learn from it: engines sample while the policy learns."""
    tokens_per_round: Count | None = None
    """Tokens after which engines ask again for what is not whole, long answers going on under the next weights; none =
    answers are sampled whole."""
    temperature: float = Field(default=1.0, ge=0.01)
    """Sampling temperature, of what is trained too: log-probs are those of the distribution that was sampled from."""
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    """Nucleus sampling, for the answers that mm_dpo compares: share of probability that is kept; 1 where samples are
    learned from."""
    gpu_memory_utilization: float = Field(default=0.6, gt=0.0, le=1.0)
    """Share of a GPU's memory an engine may take."""
    max_num_seqs: Count = 256
    """Sequences an engine generates at once."""
    cuda_graphs: bool = True
    """Engines on GPUs replay recorded decoding steps, at the cost of some memory; without effect on a CPU."""
    timeout_s: Seconds = 600.0
    """Longest time without a single finished completion, seconds."""

    def check(self, config: Any) -> None:
        """Refuse to sample ahead where nothing can be learned from it, and rounds that end no answer.

        Raises:
            ValueError: naming the option.
        """
        rounds, ahead = self.tokens_per_round, f"rollout.staleness = {self.staleness}"
        if rounds is not None and self.staleness < 2:
            raise ValueError(
                f"rollout.tokens_per_round = {rounds} needs rollout.staleness of at least 2, not {self.staleness}: "
                "before that every answer must be whole when the next weights come"
            )
        if rounds is not None and rounds >= self.max_new_tokens:
            raise ValueError(
                f"rollout.tokens_per_round = {rounds} must be below rollout.max_new_tokens = {self.max_new_tokens}"
            )
        if not self.staleness:
            return
        if not config.online:
            raise ValueError(f"{ahead} has no meaning for algo = {config.algo!r}, which learns from no samples")
        if config.learner.weighing is None:
            raise ValueError(
                f"{ahead} must be 0 for algo = {config.algo!r}, which cannot weigh what earlier weights sampled"
            )
        if self.max_refills:
            raise ValueError(f"{ahead} must be 0 with rollout.max_refills = {self.max_refills}: no refill waits for it")
        if config.placement.share_base:
            raise ValueError(f"{ahead} must be 0 with placement.share_base: whoever learns cannot answer meanwhile")


class OptimizerSection(Section):
    """AdamW and its learning rate."""

    lr: float = Field(default=1e-6, gt=0.0)
    """Peak learning rate."""
    betas: tuple[Annotated[float, Field(ge=0.0, lt=1.0)], Annotated[float, Field(ge=0.0, lt=1.0)]] = Field(
        default=(0.9, 0.95), strict=False
    )
    """Decay of the first and second moment."""
    weight_decay: float = Field(default=0.0, ge=0.0)
    """Decoupled weight decay."""
    max_grad_norm: float = Field(default=1.0, gt=0.0)
    """Gradients are scaled down to this global norm."""
    schedule: Literal["constant", "cosine", "linear"] = "cosine"
    """Course of the learning rate after warm-up."""
    warmup_frac: Share = 0.03
    """Share of the optimizer steps in which the learning rate rises from 0."""
    min_lr_frac: Share = 0.1
    """Floor of the decay, as a share of the peak."""


class PolicySection(Section):
    """The workers that train."""

    num_ranks: Workers = 1
    """Training workers, one GPU each where there are GPUs."""
    zero_stage: int = Field(default=2, ge=0, le=3)
    """DeepSpeed ZeRO stage."""
    train_batch_size: Count = 128
    """Samples of one optimizer step, over all ranks."""
    tokens_per_microbatch: Count = 16_384
    """Longest sequence times number of sequences of one forward pass on one rank, tokens."""
    offload_optimizer: bool = False
    """Keep the optimizer state in CPU memory."""
    grad_dtype: Literal["auto", "float32"] = "auto"
    """Number format in which bfloat16 gradients of micro-batches add up; auto = float32 where they are sharded (ZeRO
    stages 2 and 3) or the optimizer is offloaded, else bfloat16, which takes half the memory; ranks exchange them in
    bfloat16, or with float32 as they are."""

    def check(self, config: Any) -> None:
        """Refuse what DeepSpeed has for sharded optimizers only.

        Raises:
            ValueError: naming the option.
        """
        if self.zero_stage == 0:
            for name, value, meant in (
                ("offload_optimizer", "true", self.offload_optimizer),
                ("grad_dtype", "'float32'", self.grad_dtype == "float32"),
            ):
                if meant:
                    raise ValueError(f"policy.{name} = {value} needs policy.zero_stage of at least 1, not 0")


class BatchingSection(Section):
    """How samples lie in the trainer's forward passes."""

    mode: Literal["shared_prompt", "pairs"] = "shared_prompt"
    """Responses to one prompt share it and its images in one row, or every sequence has a row of its own."""


class ReferenceSection(Section):
    """The frozen model behind the KL penalty and behind preferences; it exists only where one of them asks for it."""

    mode: Literal["worker", "precomputed", "lora_off"] = "worker"
    """For preferences: workers that answer at every step, log-probs of all data computed before the first step, or
    the policy itself without its adapter."""
    num_ranks: Workers = 1
    """Reference workers."""
    path: GivenPath | None = None
    """Folder of precomputed log-probs, which runs can share; none = in the run folder."""


class PlacementSection(Section):
    """Which workers share which machines."""

    layout: Literal["colocated", "separate"] = "colocated"
    """Worker i of every role on the same GPU, or each role on GPUs of its own."""
    share_base: bool = False
    """Reference, critic and scalar reward model are adapters of model.path in the policy's own workers: memory of one
    model. Needs model.lora_rank."""
    cluster: GivenPath | None = None
    """TOML file that describes the cluster; none = the cluster Ray reports."""

    def check(self, config: Any) -> None:
        """Refuse to share what is trained, sharded or somewhere else.

        Raises:
            ValueError: naming the option.
        """
        if not self.share_base:
            return
        if config.model.lora_rank is None:
            raise ValueError("placement.share_base = true needs model.lora_rank, which is not set")
        if config.policy.zero_stage == 3:
            raise ValueError("placement.share_base = true needs policy.zero_stage below 3, which leaves the base whole")
        for name, number in (
            ("reference.num_ranks", config.reference.num_ranks),
            ("reward.scalar_workers", config.reward.scalar_workers),
        ):
            if number != 1:
                raise ValueError(
                    f"{name} = {number} has no meaning with placement.share_base: every policy rank answers"
                )


LOGPROB_TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2}
"""How far rounding may put two computations of a log-prob apart by number format, nats."""


class SyncSection(Section):
    """How new weights reach the engines."""

    backend: Literal["auto", "shared_memory", "nccl", "ipc"] = "auto"
    """Transport; auto = shared memory within one machine, else CUDA IPC when colocated, NCCL when separate."""
    tolerance: float | None = Field(default=None, gt=0.0)
    """Largest accepted gap of a probe's log-probs, nats; none = 1e-4 in float32, 5e-2 in bfloat16."""
    probe_prompts: Count = 1
    """Prompts scored by engine and trainer after each sync."""


class GuardSection(Section):
    """What stops a run, and what is tried before."""

    nonfinite: Literal["stop", "skip"] = "stop"
    """On a loss or gradient that is not finite: stop, or go on without that optimizer step."""
    max_mismatch: float = Field(default=0.1, gt=0.0)
    """Largest mean gap of log-probs between trainer and engines, nats; beyond it: warn, correct, re-sync, stop.
    With rollout.staleness it looks at the first step alone; later on each sync's probe is what there is."""
