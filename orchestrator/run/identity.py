"""What makes a run this run: every option that shapes what is learned, and digests of the model and the data.

Checkpoints, the stages of a pipeline, side tables and the run's manifest all compare this one record. An option is part
of it unless it is named here, so that a new one has to be decided on. A guard's bounds are part of it, as they decide
which steps are taken. So are options that the algorithm does not read: whoever changes one meant something by it.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from algorithms.mm_dpo import MmDpoSection
from orchestrator.cluster.choices import engine_kind
from orchestrator.config.layers import layer_of
from orchestrator.config.options import options
from orchestrator.config.plugins import plugin_digest
from orchestrator.config.schema import TrainConfig
from orchestrator.errors import RefusedInput
from workers.models.adapter_folder import base_folder
from workers.models.digests import model_digests

Identity = dict[str, Any]
"""JSON values by dotted name, of options and of facts such as ``rewards.weights``."""
Rule = Literal["fixed", "free", "longer", "content", "presence"]
"""What a resumed run may do with an option: nothing, anything, raise it, say another path to the same content, or say
another address where there was one."""

_RULES: dict[str, Rule] = {
    # Where things lie. What side tables and caches hold is keyed by what it was made from; media by their digests, and
    # facts by the fingerprint of the rows that they were joined to.
    **dict.fromkeys(("run.dir", "data.media_root", "data.facts", "reference.path"), "free"),
    **dict.fromkeys(("reward.cache_path", "reward.critique.cache_path"), "free"),
    **dict.fromkeys(("reward.judge_url", "reward.token_file", "reward.judge_key_file"), "free"),
    # When something is done that changes no weight, and how often it is tried.
    **dict.fromkeys(
        ("run.resume", "run.checkpoint_every", "run.keep_checkpoints", "run.eval_every", "run.trackers", "run.mirror"),
        "free",
    ),
    **dict.fromkeys(("run.max_restarts", "run.silent_after_s", "run.start_timeout_s"), "free"),
    # What is said, and whether a person is asked before a run goes on: its steps are the same.
    **dict.fromkeys(("run.alarms", "run.plain"), "free"),
    **dict.fromkeys(("rollout.timeout_s", "reward.timeout_s", "reward.max_outage_s"), "free"),
    **dict.fromkeys(("reward.function_workers", "reward.function_timeout_s", "reward.function_memory_gib"), "free"),
    # It decides whether a run starts; which rows it has is told by their fingerprint.
    "data.max_bad_frac": "free",
    # Which workers do it, and how much memory they take; the policy's ranks and their sharding stay.
    **dict.fromkeys(("placement.layout", "placement.cluster", "sync.backend"), "free"),
    **dict.fromkeys(("rollout.num_engines", "rollout.tensor_parallel_size"), "free"),
    **dict.fromkeys(("rollout.gpu_memory_utilization", "rollout.max_num_seqs", "model.gradient_checkpointing"), "free"),
    "rollout.cuda_graphs": "free",
    **dict.fromkeys(("reference.num_ranks", "reward.critique.num_workers", "reward.judge_workers"), "free"),
    "reward.scalar_workers": "free",
    # How it is measured says nothing of what is learned.
    **dict.fromkeys(("eval.samples", "eval.temperature", "eval.best", "eval.patience", "eval.benchmark"), "free"),
    "run.steps": "longer",
    **dict.fromkeys(("model.path", "model.adapter", "data.path", "data.source", "data.eval_path"), "content"),
    **dict.fromkeys(("reward.critique.path", "reward.judge_path", "reward.scalar_path"), "content"),
    **dict.fromkeys(("distill.teacher_path", "critic.path"), "content"),
    # The run's own service and somebody else's score by rules of their own.
    "reward.url": "presence",
}
_UNTOLD = ("reward.judge_url", "reward.token_file", "reward.judge_key_file", "run.resume")
"""Three may hold or name secrets, the last is about the call and not about the run."""
_OF_CRITIQUE_STAGE = ("mm_dpo.critique_rm_steps", "mm_dpo.critique_rm_lr")
"""Not there where a critique reward model is given: margins are compared by its weights, which may be the same ones."""
_TABLES = ("data.map",)
"""Whose values are tables of the user's words; any other table is a place and what lies there."""
_MOST_NAMED = 5


def rule_of(name: str) -> Rule:
    """What a resumed run may do with an option or a fact."""
    return _RULES.get(name, "fixed")


def option_identity(config: TrainConfig) -> Identity:
    """What the options alone say, without a look at the model or the data.

    An option that stands for a choice made elsewhere counts as that choice: ``rollout.engine = "auto"`` as the engine
    it comes to, and what MM-DPO's first stage takes over from the run as what it took.

    Raises:
        ValueError: ``model.dtype`` is not settled yet, see ``settled_dtype``.
    """
    if config.model.dtype == "auto":
        raise ValueError("model.dtype = 'auto' says nothing before it is known what the workers run on")
    values = layer_of(config, mode="json")
    values = {name: value for name, value in values.items() if rule_of(name) != "content" and name not in _UNTOLD}
    if config.users is not None and config.algo == config.users.text:
        values["algo"] = {
            "path": config.algo,
            "file": config.users.digest,
            "name": config.users.name.rpartition(".")[2],
        }
    values["rollout.engine"] = engine_kind(config)
    if any(_is_file(text) for text in config.reward.functions):
        values["reward.functions"] = _functions(config.reward.functions)
    values["reward.url"] = None if config.reward.url is None else "a service that was running"
    if config.measures_margins:
        own, of_run = config.section(MmDpoSection), (config.run.steps, config.optimizer.lr)
        taken = (own.critique_rm_steps or of_run[0], own.critique_rm_lr or of_run[1])
        for name, value in zip(_OF_CRITIQUE_STAGE, taken, strict=True):
            if config.judge_path is None:
                values[name] = value
            else:
                del values[name]
    return values


def run_identity(
    config: TrainConfig,
    *,
    rows: str,
    held_out: str | None,
    sources: Mapping[str, str] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Identity:
    """All that makes a run this run, in the order in which differences are told.

    ``run.steps`` may grow. A schedule that decays is then laid over the new length, as if the run had been meant to be
    that long from the start: from the checkpoint on the learning rate is that of the longer run, and so may rise once.

    Args:
        config: With the model and the data that the run really begins from.
        rows: Fingerprint of the training data.
        held_out: Of held-out data from elsewhere; None without any.
        sources: Fingerprints by name of the source, where there are several.
        facts: What else a stage was made from. The critique reward model behind MM-DPO's margins is told by theirs.
    """
    judge = config.reward.critique.path if config.reward.critique.weight else None
    content = {
        "model.path": _folder(config.model.folder),
        "model.adapter": None if config.model.adapter is None else _folder(config.model.adapter),
        "data.path": None if sources else {"path": config.data.path, "rows": rows},
        "data.source": _mixture(config, sources or {}),
        "data.eval_path": None if held_out is None else {"path": _held_out(config), "rows": held_out},
        "reward.critique.path": None if judge is None else _folder(judge),
        "reward.judge_path": None if config.reward.judge_path is None else _folder(config.reward.judge_path),
        "reward.scalar_path": None if config.reward.scalar_path is None else _folder(config.reward.scalar_path),
        "distill.teacher_path": None if config.needs.teacher is None else _folder(config.needs.teacher),
        "critic.path": None if config.critic_path is None else _folder(config.critic_path),
    }
    known = option_identity(config) | content
    told = dict(facts or {}) | _best_on(config)
    return {name: known[name] for name in options(type(config)) if name in known} | told


def _best_on(config: TrainConfig) -> dict[str, Any]:
    """The benchmark's table by which the best checkpoint is found: figures of other rows do not compare."""
    best = config.eval.best or ""
    tables = [one.model_dump() for one in config.eval.benchmark if best.startswith(f"eval/{one.name}/")]
    return {"eval.best on": tables[0]} if tables else {}


def settled(identity: Identity) -> Identity:
    """What a resumed run must have the same."""
    kept = {name: value for name, value in identity.items() if rule_of(name) not in ("free", "longer")}
    return {name: _compared(name, value) for name, value in kept.items()}


def may_change(identity: Identity) -> Identity:
    """What a resumed run may have otherwise."""
    return {name: value for name, value in identity.items() if rule_of(name) in ("free", "longer")}


def differences(before: Identity, now: Identity, *, whole: bool = True, stage: bool = False) -> list[str]:
    """Names of what makes ``now`` another run than ``before``, in order.

    Args:
        whole: What only ``before`` has counts too; else ``now`` is not all known yet.
        stage: Of a pipeline: others were made from what it left, so it may not grow.
    """
    names = list(now) + [name for name in before if whole and name not in now]
    return [name for name in names if not _continues(name, before, now, stage=stage)]


def refuse_another(
    checkpoint: str, before: Identity, now: Identity, *, whole: bool = True, stage: bool = False
) -> None:
    """Refuse to continue a checkpoint of another run.

    Args:
        checkpoint: Its name.
        whole, stage: see ``differences``.
    Raises:
        RefusedInput: with the first difference, old and new, and the names of the others.
    """
    names = differences(before, now, whole=whole, stage=stage)
    if not names:
        return
    first, *others = names
    more = f", and {len(others) - _MOST_NAMED} more" if len(others) > _MOST_NAMED else ""
    told = f" (other too: {', '.join(others[:_MOST_NAMED])}{more})" if others else ""
    old, new = _told(before, now, first), _told(now, before, first)
    raise RefusedInput(
        f"run.resume: checkpoint {checkpoint} has {first} = {old}, this run has {new}{told}; "
        "use another run.dir or run.resume = 'never'"
    )


def changes(before: Identity, now: Identity) -> list[str]:
    """What a resumed run has otherwise and may, for people."""
    both = [(name, before[name], value) for name, value in may_change(now).items() if name in before]
    return [f"{name} = {new!r} (was {old!r})" for name, old, new in both if new != old]


def _continues(name: str, before: Identity, now: Identity, *, stage: bool) -> bool:
    rule = rule_of(name)
    if rule == "free":
        return True
    if name not in before or name not in now:
        return name in _OF_CRITIQUE_STAGE
    if rule == "longer" and not stage:
        return before[name] <= now[name]
    return _compared(name, before[name]) == _compared(name, now[name])


def _compared(name: str, value: Any) -> Any:
    """A folder or a file by what it holds, wherever it lies."""
    is_place = isinstance(value, dict) and name not in _TABLES
    return {part: held for part, held in value.items() if part != "path"} if is_place else value


def _told(identity: Identity, other: Identity, name: str) -> str:
    value = identity.get(name)
    if name not in identity:
        return "no such option" if name in options() else "nothing"
    if not isinstance(value, dict) or name in _TABLES:
        return repr(value)
    beside = other.get(name)
    known = beside if isinstance(beside, dict) else {}
    differs = [f"{part} {held[:8]}" for part, held in value.items() if part != "path" and known.get(part) != held]
    return f"{value['path']!r} ({', '.join(differs)})"


def _functions(texts: Sequence[str]) -> dict[str, str]:
    """By what their files hold, wherever they lie."""
    held = []
    for text in texts:
        target, _, options = text.partition("?")
        digest = plugin_digest(target, option="reward.functions") if _is_file(text) else ""
        held.append([digest, target.rpartition(":")[2], options])
    return {"path": " ".join(texts), "functions": hashlib.sha256(json.dumps(held).encode()).hexdigest()}


def _is_file(function: str) -> bool:
    return function.partition("?")[0].rpartition(":")[0].endswith(".py")


def _mixture(config: TrainConfig, rows: Mapping[str, str]) -> dict[str, str] | None:
    """Rows and weight of each source; None of a run that has but one."""
    weights = {source.name: f"{source.weight:g}" for source in config.data.source if rows}
    told = {f"weight of {name}": weight for name, weight in weights.items()}
    told |= {f"rows of {name}": digest for name, digest in rows.items()}
    told["order"] = hashlib.sha256(" ".join(rows).encode()).hexdigest()  # a cursor counts in it
    return {"path": ", ".join(source.path for source in config.data.source), **told} if rows else None


def _held_out(config: TrainConfig) -> str | None:
    return config.data.eval_path or ", ".join(source.eval_path for source in config.data.source if source.eval_path)


def _folder(path: str) -> dict[str, str]:
    base = base_folder(path)
    of_base = {} if base == path else {f"base's {part}": digest for part, digest in model_digests(base).items()}
    return {"path": path, **model_digests(path), **of_base}
