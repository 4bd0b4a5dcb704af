"""What the workers of a run are told when they start. Pure."""

from dataclasses import replace

from algorithms.records import PLAIN, SamplingDistribution
from orchestrator.cluster.choices import engine_kind, shares_prompts, sync_backend
from orchestrator.cluster.feed import PROBE_LENGTH
from orchestrator.cluster.placement import PlacementPlan
from orchestrator.config.schema import TrainConfig
from workers.backends.schedule import OptimizerSpec, Schedule
from workers.critic import CriticSpec
from workers.models.loading import ModelSpec
from workers.models.lora import LoraSpec
from workers.models.needs import max_positions
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.policy import PolicySpec
from workers.rollout.spec import EngineSpec


def model_spec(config: TrainConfig, path: str) -> ModelSpec:
    """How every role loads the model."""
    return ModelSpec(
        path=path,
        dtype=config.model.dtype,
        attention=config.model.attention,
        trust_remote_code=config.model.trust_remote_code,
        share_prompts=shares_prompts(config, path),
        max_pixels=config.data.resized_above,
    )


def prompt_encoder(config: TrainConfig, path: str | None = None) -> PromptEncoder:
    """Prompts as every role sees them, for the run's own model or the one in the folder ``path``."""
    model = path or config.model.path
    assert model is not None
    return PromptEncoder(model, max_pixels=config.data.resized_above, trust_remote_code=config.model.trust_remote_code)


def base_spec(config: TrainConfig, path: str) -> ModelSpec:
    """The same of the policy and of the reference that it is compared with: both in four bits, or neither."""
    return replace(model_spec(config, path), quantize=config.model.quantize)


def lora_spec(config: TrainConfig, saved: str | None) -> LoraSpec | None:
    """The adapters of the policy, continued from the folder ``saved``; None where the weights are trained."""
    rank, alpha = config.model.lora_rank, config.model.lora_alpha
    if rank is None:
        return None
    return LoraSpec(
        rank=rank,
        # With a fixed ratio the learning rate need not follow the rank.
        alpha=2 * rank if alpha is None else alpha,
        seed=config.run.seed,
        saved=saved,
    )


def sampled_from(config: TrainConfig, banned_ids: tuple[int, ...]) -> SamplingDistribution:
    """What the engines of a run draw from, greedy requests apart."""
    return SamplingDistribution(temperature=config.rollout.temperature, banned_ids=banned_ids)


def policy_spec(config: TrainConfig, saved: str | None, sampling: SamplingDistribution = PLAIN) -> PolicySpec:
    """What a policy rank needs to start from ``model.path``, or where the checkpoint's ``policy/`` at ``saved`` was.

    Args:
        sampling: What the tokens that are learned were drawn from.
    """
    optimizer = config.optimizer
    learner, steps = config.learner, range(config.run.steps)
    num_updates = config.updates_per_epoch * sum(map(learner.epochs_at, steps)) if config.online else len(steps)
    lora = lora_spec(config, saved)
    return PolicySpec(
        # An adapter's checkpoint has no weights of its own: its base is loaded again.
        model=base_spec(config, saved if saved is not None and lora is None else config.model.folder),
        source=config.model.folder,
        optimizer=OptimizerSpec(
            zero_stage=config.policy.zero_stage,
            betas=optimizer.betas,
            weight_decay=optimizer.weight_decay,
            max_grad_norm=optimizer.max_grad_norm,
            offload_optimizer=config.policy.offload_optimizer,
            schedule=Schedule(
                peak_lr=optimizer.lr,
                kind=optimizer.schedule,
                total_steps=num_updates,
                warmup_frac=optimizer.warmup_frac,
                min_lr_frac=optimizer.min_lr_frac,
            ),
        ),
        objective=learner.objective(),
        sampling=sampling,
        head=learner.needs.head,
        freeze=config.model.freeze,
        gradient_checkpointing=config.model.gradient_checkpointing,
        lora=lora,
    )


def critic_spec(config: TrainConfig, saved: str | None) -> CriticSpec:
    """What a critic rank needs to start by ``critic.init``, or from the checkpoint's folder ``saved``."""
    critic = config.needs.critic
    assert critic is not None, "asked for where the algorithm has a critic"
    policy, own = policy_spec(config, None), config.critic_path or config.model.folder
    lora = lora_spec(config, saved)
    schedule = policy.optimizer.schedule
    schedule = replace(
        schedule,
        peak_lr=critic.lr or schedule.peak_lr,
        kind=critic.schedule or schedule.kind,
        total_steps=config.run.steps * config.updates_per_epoch * critic.epochs,
    )
    return CriticSpec(
        model=base_spec(config, saved if saved is not None and lora is None else own),
        source=own,
        optimizer=replace(policy.optimizer, schedule=schedule),
        objective=critic.objective,
        head=critic.head,
        head_in=saved or (own if critic.keeps_head else None),
        fresh_seed=config.run.seed if critic.init == "random" and saved is None else None,
        freeze=policy.freeze,
        gradient_checkpointing=policy.gradient_checkpointing,
        lora=lora,
    )


def engine_spec(
    config: TrainConfig, path: str, encoder: PromptEncoder, *, max_model_len: int, max_images: int
) -> EngineSpec:
    """How an engine is built for the model in the folder ``path``, on whose weights it stays.

    Args:
        max_images: Most images of a prompt.
    """
    return EngineSpec(
        kind=engine_kind(config, path),
        model=model_spec(config, path),
        tensor_parallel_size=config.rollout.tensor_parallel_size,
        max_model_len=max_model_len,
        max_num_seqs=config.rollout.max_num_seqs,
        max_images_per_prompt=max(1, max_images),
        gpu_memory_utilization=config.rollout.gpu_memory_utilization,
        banned_token_ids=encoder.vision_token_ids,
        stop_token_ids=encoder.eos_token_ids,
        seed=config.run.seed,
    )


def following_engine_spec(
    config: TrainConfig, plan: PlacementPlan, encoder: PromptEncoder, *, longest_prompt: int, max_images: int
) -> EngineSpec:
    """How an engine is built that follows the policy while it learns."""
    needed = longest_prompt + max(config.rollout.max_new_tokens, PROBE_LENGTH) + 1
    positions = max_positions(encoder.config)
    length = needed if positions is None else min(needed, positions)
    return replace(
        engine_spec(config, config.model.folder, encoder, max_model_len=length, max_images=max_images),
        sync_backend=sync_backend(config, plan),
        shares_device=config.placement.layout == "colocated",
    )
