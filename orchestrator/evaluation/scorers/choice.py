"""Which scorer a model is put to, how that is asked what a benchmark asks for, and the scorer itself.

what the folder holds ──► kind ──► asks ──► checks of the folder ──► Scorer
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from orchestrator.config.addresses import address_fault
from orchestrator.config.schema import TrainConfig
from orchestrator.errors import RefusedInput
from orchestrator.evaluation.benchmarks.asking import AskOptions
from orchestrator.evaluation.benchmarks.items import Asks
from orchestrator.run.folder import RunFolder
from workers.models.adapter_folder import base_folder
from workers.models.folder import critique_request, gives_rewards_alone, has_reward_head, scored_after

if TYPE_CHECKING:  # it imports Ray, and most refusals can be had without
    from orchestrator.evaluation.scorers.scorer import Scorer

ScorerKind = Literal["generative", "critique", "scalar", "endpoint"]
_ROLES = {"critique": "critique_reward", "scalar": "scalar_reward"}
"""Of reward models."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a model is served."""

    url: str
    key_file: str | None = None
    """Holds the key."""


def kind_of(model: str, asked: ScorerKind | None = None, endpoint: Endpoint | None = None) -> ScorerKind:
    """What the model in a folder is, or at an endpoint; what it is ``asked`` to be, where it can be that.

    Raises:
        RefusedInput: it cannot, or what is said of its head cannot be read.
    """
    if endpoint is not None and asked in ("endpoint", None):
        if (fault := address_fault(endpoint.url, secret="endpoint_key_file")) is not None:
            raise RefusedInput(f"endpoint {fault}")
        return "endpoint"
    if endpoint is not None or asked == "endpoint":
        raise RefusedInput(f"scorer = {asked!r} and endpoint: give both for a model that is served, else neither")
    folder = Path(model)
    try:
        request, opening = scored_after(folder) if has_reward_head(folder) else (None, None)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RefusedInput(f"model {model!r}: what is said of its reward head cannot be read") from error
    found: ScorerKind = "generative"
    if has_reward_head(folder):
        found = "scalar" if request is None or opening is not None else "critique"
    kind = asked or found
    if kind == "scalar":
        _check_scalar(model, found, is_told_facts=opening is not None)
    elif kind == "critique":
        _or_refused("scorer = 'critique'", lambda: critique_request(folder))
    return kind


def asks_of(asks: Asks, kind: ScorerKind, *, benchmark: str) -> Asks:
    """How the scorer is asked what the benchmark asks for: a reward model says which is better by its rewards.

    Raises:
        RefusedInput: it cannot say what the benchmark is counted by.
    """
    if kind in _ROLES:
        if asks in ("answer", "likelihoods"):
            told = "likelihoods" if asks == "likelihoods" else "answers"
            raise RefusedInput(f"{benchmark} is of {told}, and a {kind} reward model gives none: scorer = {kind!r}")
        return "rewards"
    if asks == "rewards":
        raise RefusedInput(f"{benchmark} is of rewards, which only a reward model gives: scorer = {kind!r}")
    if asks == "likelihoods" and kind == "endpoint":
        raise RefusedInput(f"{benchmark} is of likelihoods, which an endpoint does not tell: scorer = {kind!r}")
    return asks


def role_of(kind: ScorerKind, asks: Asks) -> str:
    """Whose workers hold a model of this kind that is asked so."""
    return _ROLES.get(kind, "reference" if asks == "likelihoods" else "rollout")


def scorer_of(
    kind: ScorerKind,
    config: TrainConfig,
    options: AskOptions,
    *,
    asks: Asks,
    folder: RunFolder,
    endpoint: Endpoint | None = None,
) -> "Scorer":
    """The scorer, once its folder has been looked at; no process is started.

    Args:
        config: ``model.path`` is the model, or its name at the endpoint.
        asks: See ``asks_of``.
        folder: For what it keeps beside predictions.
    Raises:
        RefusedInput: the folder cannot serve.
    """
    if endpoint is not None:
        return _served(endpoint, config, options, asks)
    # Deferred: what is refused before this needs neither torch nor Ray.
    from orchestrator.cluster.choices import settled_dtype
    from orchestrator.cluster.plan import single_role_plan
    from orchestrator.cluster.specs import prompt_encoder
    from orchestrator.evaluation.scorers.critique import CritiqueScorer
    from orchestrator.evaluation.scorers.engines import EngineScorer
    from orchestrator.evaluation.scorers.likelihood import LikelihoodScorer
    from orchestrator.evaluation.scorers.scalar import ScalarScorer
    from orchestrator.preflight import check_model, check_processors

    path = config.model.folder
    # An adapter is worn by its base, whose folder has the weights and the processor.
    base = _or_refused("model.path", lambda: base_folder(path)) if kind == "scalar" else path
    config = config.model_copy(update={"model": config.model.model_copy(update={"path": base})})
    check_model(config)
    check_processors(config)
    if kind == "generative" and gives_rewards_alone(Path(base)):
        raise RefusedInput(f"model {path!r} is a reward model for vllm serve, which writes nothing")
    plan = single_role_plan(config, role_of(kind, asks))
    config = settled_dtype(config, plan)
    if kind == "scalar":
        return ScalarScorer(config, plan, path)
    if kind == "critique":
        return CritiqueScorer(config, plan, folder)
    if asks == "likelihoods":
        return LikelihoodScorer(config, plan)
    return EngineScorer(config, plan, prompt_encoder(config), options, asks=asks)


def _served(endpoint: Endpoint, config: TrainConfig, options: AskOptions, asks: Asks) -> "Scorer":
    # Deferred: it imports Ray, and the client takes a second to load.
    from orchestrator.evaluation.scorers.endpoint import EndpointScorer
    from orchestrator.rewards.check import secret_in

    key = secret_in(endpoint.key_file, option="endpoint_key_file", what="key")
    return EndpointScorer(config, options, asks=asks, url=endpoint.url, key=key)


def _or_refused(option: str, look: Callable[[], str]) -> str:
    try:
        return look()
    except ValueError as error:
        raise RefusedInput(f"{option}: {error}") from error


def _check_scalar(model: str, found: ScorerKind, *, is_told_facts: bool) -> None:
    if found == "critique":
        raise RefusedInput(f"scorer = 'scalar', but {model!r} is a critique reward model, which has to write first")
    if found != "scalar":
        raise RefusedInput(f"scorer = 'scalar', but {model!r} has no reward head: it should be what scalar_rm leaves")
    if is_told_facts:
        raise RefusedInput(f"model {model!r} is told facts, as fact_rm trains one, and a benchmark has none")
