"""What the workers of a run are told when they start. Pure."""

from dataclasses import replace

from algorithms.records import PLAIN, SamplingDistribution
from orchestrator.cluster.choices import engine_kind, shares_prompts, sync_backend
from orchestrator.cluster.feed import PROBE_LENGTH
from orchestrator.cluster.placement import PlacementPlan
from orchestrator.config.schema import TrainConfig
from workers.backends.schedule import OptimizerSpec, Schedule
from workers.critic import CriticSpec
from workers.models.adapter_folder import base_folder, is_adapter
from workers.models.loading import ModelSpec
from workers.models.lora import LoraSpec
from workers.models.needs import max_positions
from workers.multimodal.processor import bound_beside
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.policy import PolicySpec
from workers.rollout.spec import EngineSpec


def model_spec(config: TrainConfig, path: str) -> ModelSpec:
    """How every role loads the model in a folder, or an adapter's base with that adapter."""
    base = base_folder(path)
    return ModelSpec(
        path=base,
        dtype=config.model.dtype,
        attention=config.model.attention,
        trust_remote_code=config.model.trust_remote_code,
        share_prompts=shares_prompts(config, base),
        max_pixels=_max_pixels(config, path),
        adapter=None if base == path else path,
    )


def prompt_encoder(config: TrainConfig, path: str | None = None) -> PromptEncoder:
    """Prompts as every role sees them, for the run's own model or the one in the folder ``path``."""
    model = path or config.model.path
    assert model is not None
    trusted = config.model.trust_remote_code
    return PromptEncoder(base_folder(model), max_pixels=_max_pixels(config, model), trust_remote_code=trusted)


def _max_pixels(config: TrainConfig, path: str) -> int | None:
    """Of the run, or else of the adapter in the folder, whose base does not know it."""
    own = config.data.resized_above
    return bound_beside(path) if own is None and is_adapter(path) else own


def base_spec(config: TrainConfig, path: str) -> ModelSpec:
    """The same of the policy and of the reference that it is compared with: both in four bits, or neither."""
    spec = replace(model_spec(config, path), quantize=config.model.quantize)
    # A shared base has been found to be one and the same, wherever its adapters have it from.
    return replace(spec, path=config.model.folder) if config.placement.share_base else spec


def reference_spec(config: TrainConfig) -> ModelSpec:
    """What the policy begins as, or a teacher."""
    begun = base_spec(config, config.needs.teacher or config.model.folder)
    return begun if config.needs.teacher else replace(begun, adapter=config.model.adapter)


def lora_spec(config: TrainConfig, saved: str | None) -> LoraSpec | None:
    """The adapters of a rank, continued from the folder ``saved``; None where the weights are trained."""
    rank, alpha = config.model.lora_rank, config.model.alpha
    if rank is None or alpha is None:
        return None
    return LoraSpec(rank=rank, alpha=alpha, seed=config.run.seed, saved=saved)


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
    lora = lora_spec(config, saved or config.model.adapter)
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
            grad_dtype=config.policy.grad_dtype,
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
        shares_base=config.placement.share_base,
    )


def critic_spec(config: TrainConfig, saved: str | None) -> CriticSpec:
    """What a critic rank needs to start by ``critic.init``, or from the checkpoint's folder ``saved``."""
    critic = config.needs.critic
    assert critic is not None, "asked for where the algorithm has a critic"
    policy, begun = policy_spec(config, None), config.critic_path or config.model.adapter
    own = base_folder(config.critic_path or config.model.folder)
    # An adapter that the critic begins with is trained on; one of other weights is a new one.
    lora = lora_spec(config, saved or (begun if begun is not None and is_adapter(begun) else None))
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
        head_in=saved or (config.critic_path if critic.keeps_head else None),
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
        cuda_graphs=config.rollout.cuda_graphs,
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
        # Engines that sample while the policy learns never sleep; on a GPU of its own, ``plan_run`` has seen to it.
        shares_device=config.placement.layout == "colocated" and not config.rollout.staleness,
    )
