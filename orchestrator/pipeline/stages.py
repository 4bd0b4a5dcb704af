"""What a run does, stage after stage: one list, which a dry run tells and a run goes through."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from algorithms.mm_dpo import MmDpoSection
from orchestrator.cluster.placement import PlacementPlan, describe_plan
from orchestrator.cluster.plan import single_role_plan
from orchestrator.cluster.resources import ClusterResources
from orchestrator.config.schema import TrainConfig
from orchestrator.pipeline.derived import cold_start_config, critique_rm_config, taught_config
from orchestrator.run.folder import RunFolder, write_atomic
from orchestrator.run.identity import Identity

if TYPE_CHECKING:  # they import Ray, and a dry run does without
    from orchestrator.cluster.pool import WorkerPool
    from orchestrator.evaluation.while_training import RunBenchmark
    from orchestrator.training.loop import Outcome
    from workers.multimodal.prompt_encoder import PromptEncoder

Tell = Callable[[object], None]
"""Says what a stage does now, or that it was done before."""


@dataclass(slots=True, kw_only=True)
class Running:
    """A run between its stages: what each finds, and leaves to those behind it."""

    config: TrainConfig
    plan: PlacementPlan
    folder: RunFolder
    data: Any
    """``RunData`` of prompts and demonstrations, ``OfflineData`` of stored responses."""
    pool: "WorkerPool | None" = None
    """The run's own workers, where they outlive a stage."""
    encoder: "PromptEncoder | None" = None
    benchmarks: "Sequence[RunBenchmark]" = ()
    """That the policy is measured on while it learns."""
    reward_model: str | None = None
    """Its folder, once it is there."""
    tables: dict[str, Any] = field(default_factory=dict)
    """Finished side tables by name, and by the folder of their store."""
    outcome: "Outcome | None" = None
    """Of the training that the run is about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One thing that is done after another."""

    title: str
    what: str
    """What it comes to with the run's settings."""
    run: str
    """``MODULE:FUNCTION`` in this room, called with a ``Running`` and a ``Tell``; imported where it is called."""
    plans: tuple[PlacementPlan, ...] = ()
    """Workers that it has to itself, one after the other; none where the run's own do it all."""


def stages_of(config: TrainConfig, cluster: ClusterResources | None = None) -> list[Stage]:
    """All that a run does.

    Args:
        cluster: Where; None looks at what there is.
    Raises:
        RefusedInput: a stage does not fit the cluster, with the sum; or the run's settings do not fit a training that
            comes first.
    """
    steps = f"{config.run.steps} steps on the policy's workers"
    untaught = config.embedded_task and config.model.path is None
    if config.offline and config.needs.pair_betas:
        return [*_cold_start(config, untaught, "embedded:teach"), *_mm_dpo(config, steps, cluster)]
    if config.offline:
        reference = _reference(config, cluster)
        what = f"reference log-probs, then {steps}" if reference else steps
        return [Stage(title=config.algo, what=what, run="offline:whole", plans=reference)]
    if not config.online:
        return [Stage(title=config.algo, what=steps, run="online:supervised")]
    own = Stage(title=config.algo, what=steps, run="online:reinforce")
    return [*_cold_start(config, untaught, "online:cold_start"), own]


def describe_stages(stages: list[Stage]) -> list[str]:
    """The stages as lines for a person; nothing of a run that is one stage on its own workers."""
    if len(stages) == 1 and not stages[0].plans:
        return []
    lines = []
    for number, stage in enumerate(stages, start=1):
        lines.append(f"{_heading(number, stages)}: {stage.what}")
        lines += [f"  {told}" for plan in stage.plans for told in describe_plan(plan)]
    return lines


def go_through(stages: list[Stage], running: Running) -> None:
    """Do all of it, in the running cluster."""
    for number, stage in enumerate(stages, start=1):
        heading = _heading(number, stages)

        def tell(text: object, heading: str = heading) -> None:
            sys.stdout.write(f"\n{heading}: {text}\n")
            sys.stdout.flush()

        module, _, function = stage.run.partition(":")
        getattr(import_module(f"{__package__}.{module}"), function)(running, tell)


def fits(file: Path, made_from: Identity) -> bool:
    """True where ``file`` says that something was made, and from just this: then it is not made again."""
    try:
        return file.is_file() and json.loads(file.read_bytes()) == made_from
    except (OSError, ValueError, RecursionError):  # it says nothing
        return False


def keep(file: Path, made_from: Identity) -> None:
    """Say in ``file`` what something is made from."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, json.dumps(made_from, indent=1) + "\n")


def _heading(number: int, stages: list[Stage]) -> str:
    return f"stage {number} of {len(stages)}, {stages[number - 1].title}"


def _cold_start(config: TrainConfig, untaught: bool, run: str) -> list[Stage]:
    """Before a run of the embedded task whose model knows nothing yet."""
    if not untaught:
        return []
    first = cold_start_config(config) if config.online else taught_config(config)
    return [Stage(title="cold start", what=f"{first.run.steps} steps on demonstrations", run=run)]


def _mm_dpo(config: TrainConfig, steps: str, cluster: ClusterResources | None) -> list[Stage]:
    path, measures = config.judge_path, config.measures_margins
    judges = engines = ()
    if measures or path is not None:
        judges = (single_role_plan(config, config.judge_role, cluster),)
        engines = (single_role_plan(config, "rollout", cluster),)
    none = f"none, as mm_dpo.beta_mode = {config.section(MmDpoSection).beta_mode!r}"
    model, margins, answers = none, none, "no model to judge answers"
    if measures and path is None:
        model = f"{critique_rm_config(config).run.steps} steps on the policy's workers"
    elif measures:
        model = f"taken from {path}"
    if measures:
        margins = "a reward for every response"
    if judges:
        answers = "held-out answers, and their rewards"
    reference = _reference(config, cluster)
    return [
        Stage(title=config.judge_words, what=model, run="mm_dpo:reward_model"),
        Stage(title="margins", what=margins, run="mm_dpo:margins", plans=judges if measures else ()),
        Stage(title="reference and MM-DPO", what=steps, run="mm_dpo:policy", plans=reference),
        Stage(title="evaluation", what=answers, run="mm_dpo:evaluation", plans=(*engines, *judges)),
    ]


def _reference(config: TrainConfig, cluster: ClusterResources | None) -> tuple[PlacementPlan, ...]:
    precomputed = config.needs.reference and config.reference.mode == "precomputed"
    return (single_role_plan(config, "reference", cluster),) if precomputed else ()
