"""From a run and its cluster to the question of how fast a step can be."""

from orchestrator.cluster.choices import shares_prompts, sync_backend
from orchestrator.cluster.placement import PlacementPlan
from orchestrator.cluster.resources import ClusterResources
from orchestrator.cluster.roofline.hardware import GPU_KINDS, Machine, Reach
from orchestrator.cluster.roofline.lengths import Lengths, longest_lengths
from orchestrator.cluster.roofline.question import DriverCost, StepQuestion
from orchestrator.cluster.roofline.shape import ModelCounts, model_counts
from orchestrator.cluster.roofline.step import step_bound
from orchestrator.cluster.roofline.table import (
    describe_bound_table,
    describe_excess,
    describe_lengths,
    describe_reach,
)
from orchestrator.cluster.row_work import row_weights
from orchestrator.config.schema import TrainConfig
from workers.models.adapter_folder import base_folder


def machine_of_cluster(cluster: ClusterResources) -> Machine | None:
    """The GPUs of a cluster; None where it has none, or does not say of which kind they are."""
    nodes = [node for node in cluster.nodes if node.gpus]
    if not nodes or cluster.gpu is None:
        return None
    told = [node.gpu_memory_gib for node in nodes if node.gpu_memory_gib is not None]
    return Machine(
        gpu=cluster.gpu, gpus_per_node=min(node.gpus for node in nodes), network_gb_s=cluster.network_gb_s,
        gpu_memory_gib=min(told, default=None),
    )  # fmt: skip


def step_question(
    config: TrainConfig, plan: PlacementPlan, machine: Machine, lengths: Lengths, *, reach: Reach | None = None
) -> StepQuestion:
    """What the bound of one step of an online run follows from."""
    from transformers import AutoConfig  # deferred: most of a plan can be had without

    model = config.model
    shape = model_counts(model.folder, freeze=model.freeze, lora_rank=model.lora_rank)
    described = AutoConfig.from_pretrained(model.folder, trust_remote_code=model.trust_remote_code)
    return StepQuestion(
        config=config, shape=shape, machine=machine, lengths=lengths, backend=sync_backend(config, plan),
        shares=shares_prompts(config, model.folder), others=_others(config, shape), reach=reach or Reach(),
        driver=DriverCost(), weights=row_weights(described, tower_runs="vision" not in model.freeze),
    )  # fmt: skip


def longest_image(config: TrainConfig) -> int:
    """Tokens of the largest image that ``data.max_pixels`` lets through; a whole prompt where nothing bounds it."""
    from transformers import AutoConfig  # deferred: most of a plan can be had without

    vision = getattr(AutoConfig.from_pretrained(config.model.folder), "vision_config", None)
    patch, merged = getattr(vision, "patch_size", None), getattr(vision, "spatial_merge_size", 1)
    if config.data.max_pixels is None or not isinstance(patch, int):
        return config.data.max_prompt_tokens
    return config.data.max_pixels // (patch * merged) ** 2


def describe_step_bound(config: TrainConfig, cluster: ClusterResources, plan: PlacementPlan) -> list[str]:
    """The bound of a step whose prompts and answers are as long as may be, in lines; nothing for offline runs."""
    if not config.online:
        return []
    if not any(node.gpus for node in cluster.nodes):
        return ["no bound of a step is made: the cluster has no GPUs"]
    machine = machine_of_cluster(cluster)
    if machine is None:
        return [f"no bound of a step is made: the cluster does not say gpu = one of {', '.join(GPU_KINDS)}"]
    lengths = longest_lengths(config, image=longest_image(config))
    asked = step_question(config, plan, machine, lengths)
    step = step_bound(asked)
    told = describe_lengths(lengths) + ": as long as the options allow; benchmarks/roofline.py takes yours"
    return [told, *describe_bound_table(step), *describe_excess(step), describe_reach(asked.reach)]


def _others(config: TrainConfig, policy: ModelCounts) -> dict[str, ModelCounts]:
    """Models of the other roles that are in the run."""
    reward, model, needs = config.reward, config.model, config.needs
    paths = {
        "judge": reward.judge_path,
        "critique_reward": reward.critique.path if reward.critique.weight else None,
        "scalar_reward": reward.scalar_path,
        "reference": needs.teacher if config.reference_workers else None,
    }
    found = {role: model_counts(base_folder(path)) for role, path in paths.items() if path is not None}
    if needs.critic is not None:
        path = config.critic_path
        like = {"freeze": model.freeze, "lora_rank": model.lora_rank}
        found["critic"] = policy if path is None else model_counts(base_folder(path), **like)
    return found
