"""What an offline run does in stages, and on which workers each one runs: told by a dry run, refused early."""

from dataclasses import dataclass

from algorithms.mm_dpo import MmDpoSection
from orchestrator.cluster.placement import PlacementPlan, describe_plan
from orchestrator.cluster.plan import single_role_plan
from orchestrator.cluster.resources import ClusterResources
from orchestrator.config.load import critique_rm_config
from orchestrator.config.schema import TrainConfig

STAGES = ("critique reward model", "margins", "reference and MM-DPO", "evaluation")
"""Of MM-DPO, in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StagePlan:
    """One stage, and the workers that it has to itself."""

    title: str
    plans: tuple[PlacementPlan, ...] = ()
    """One after the other; none where the policy's workers do it all."""


def plan_stages(config: TrainConfig, cluster: ClusterResources) -> list[StagePlan]:
    """Every stage of an offline run that has stages.

    Raises:
        RefusedInput: a stage does not fit the cluster, with the sum; or the run's settings do not fit the training of
            the critique reward model.
    """
    needs, settings = config.needs, config.reward.critique
    if not config.offline:
        return []
    precomputed = needs.reference and config.reference.mode == "precomputed"
    reference = (single_role_plan(config, "reference", config.reference.num_ranks, cluster),) if precomputed else ()
    if not needs.pair_betas:
        return [StagePlan(title="reference log-probs, before the first step", plans=reference)] if precomputed else []
    titles = [f"stage {number} of {len(STAGES)}, {name}" for number, name in enumerate(STAGES, start=1)]
    has_margins = config.measures_margins
    if has_margins or settings.path is not None:
        critics = (single_role_plan(config, "critic", settings.num_workers, cluster),)
        engines = (single_role_plan(config, "rollout", config.rollout.num_engines, cluster),)
    else:
        critics = engines = ()
    return [
        StagePlan(title=f"{titles[0]}: {_critique_model(config)}"),
        StagePlan(
            title=f"{titles[1]}: {'a reward for every response' if has_margins else _not_needed(config)}",
            plans=critics if has_margins else (),
        ),
        StagePlan(title=f"{titles[2]}: {config.run.steps} steps on the policy's workers", plans=reference),
        StagePlan(
            title=f"{titles[3]}: {'held-out answers, and their rewards' if critics else 'no model to judge answers'}",
            plans=(*engines, *critics),
        ),
    ]


def describe_stages(stages: list[StagePlan]) -> list[str]:
    """The stages as lines for a person."""
    return [line for s in stages for line in (s.title, *(f"  {told}" for p in s.plans for told in describe_plan(p)))]


def _critique_model(config: TrainConfig) -> str:
    path = config.reward.critique.path
    if not config.measures_margins:
        return _not_needed(config)
    if path is not None:
        return f"taken from {path}"
    return f"{critique_rm_config(config).run.steps} steps on the policy's workers"


def _not_needed(config: TrainConfig) -> str:
    return f"none, as mm_dpo.beta_mode = {config.section(MmDpoSection).beta_mode!r}"
