"""The critique reward workers of a run: started where something is unknown, gone afterwards.

What makes a model unable to write critiques is told before any process is started.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from algorithms.critique_rm import CritiqueRmSection
from orchestrator.cluster.choices import engine_kind
from orchestrator.cluster.launch import worker_pool
from orchestrator.cluster.plan import single_role_plan
from orchestrator.cluster.pool import WorkerPool
from orchestrator.cluster.specs import engine_spec, prompt_encoder
from orchestrator.config.schema import TrainConfig
from orchestrator.data.side_tables import Fingerprint, table_fingerprint
from orchestrator.data.store import PreferenceStore
from orchestrator.data.stores import OfflineData
from orchestrator.errors import RefusedInput
from orchestrator.rewards.critique_judge import CritiqueCache, CritiqueJudge, CritiqueLimits
from orchestrator.run.folder import RunFolder
from workers.critique_reward import CritiqueRewardSpec
from workers.models.folder import check_model_folder, critique_request
from workers.models.needs import max_positions
from workers.multimodal.critique_format import CritiqueFormat
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.types import Prompt


def known_request(model: str) -> str:
    """What the critique reward model in the folder ``model`` was trained to be asked.

    Raises:
        RefusedInput: it is none.
    """
    try:
        return critique_request(Path(model))
    except ValueError as error:
        raise RefusedInput(f"reward.critique.path: {error}") from error


def critique_limits(config: TrainConfig, model: str) -> CritiqueLimits:
    """What bounds the critiques of the model in the folder ``model``, whether it gives rewards yet or not.

    Raises:
        RefusedInput: a critique may be as long as the whole context, so that every question would be too long.
    """
    described = AutoConfig.from_pretrained(model, trust_remote_code=config.model.trust_remote_code)
    budget, longest = config.policy.tokens_per_microbatch, config.reward.critique.max_new_tokens
    positions = max_positions(described) or budget
    if longest >= min(positions, budget):
        raise RefusedInput(
            f"reward.critique.max_new_tokens = {longest} leaves no room for a question: it must be below the "
            f"{positions} positions of {model!r} and policy.tokens_per_microbatch = {budget}"
        )
    return CritiqueLimits(max_new_tokens=longest, max_model_len=min(positions, budget))


def reward_fingerprint(config: TrainConfig, store: PreferenceStore | None, model: str) -> Fingerprint:
    """What the rewards of a store's responses, or of any, depend on, and which of them there are."""
    asked = {"request": known_request(model), **asdict(critique_limits(config, model))}
    of_store = "" if store is None else store.manifest.fingerprint
    return table_fingerprint(config, of_store, model, asked=json.dumps(asked | {"engine": engine_kind(config, model)}))


def check_critique_models(config: TrainConfig, data: OfflineData) -> None:
    """Refuse a run whose critiques could not be asked for, of whatever instruction.

    Raises:
        RefusedInput: the folder at ``reward.critique.path`` is no critique reward model; or the chat template of the
            model that writes critiques cannot go on behind a response.
    """
    needs = config.needs
    given, own = config.reward.critique.path, config.model.path
    conversations = {tuple(turn["role"] for turn in row.messages): row.messages for row in _rows(data)}
    if needs.pair_betas and given is not None:
        request = known_request(given)
        _check(config, "reward.critique.path", given, request, conversations.values())
    elif needs.critiques or (needs.margins and config.judge_path is None):
        assert own is not None
        _check(config, "model.path", own, config.section(CritiqueRmSection).request, conversations.values())


def check_online_critiques(config: TrainConfig, prompts: Iterable[Prompt]) -> None:
    """Refuse a critique reward model that could not be asked about these prompts.

    Raises:
        RefusedInput: its chat template does not take their turns, or cannot go on behind a response.
    """
    path = config.reward.critique.path
    if path is not None and config.reward.critique.weight:
        conversations = {tuple(turn["role"] for turn in p.messages): p.messages for p in prompts}
        _check(config, "reward.critique.path", path, known_request(path), conversations.values())


def _rows(data: OfflineData) -> Iterable[Any]:
    for store in data.by_role.values():
        yield from store.rows()


def _check(
    config: TrainConfig, option: str, path: str, request: str, conversations: Iterable[tuple[dict[str, Any], ...]]
) -> None:
    trusted = config.model.trust_remote_code
    try:
        check_model_folder(path, trust_remote_code=trusted, trained=False)
        spelling = CritiqueFormat(PromptEncoder(path, trust_remote_code=trusted), request)
        for messages in conversations:
            spelling.behind_response(messages)
    except ValueError as error:
        raise RefusedInput(f"{option} {path!r}: {error}") from error


@contextmanager
def critique_judge(
    config: TrainConfig, folder: RunFolder, model: str, fingerprint: Fingerprint, *, max_images: int
) -> Iterator[CritiqueJudge]:
    """A judge with workers of its own, for as long as the block lasts.

    Args:
        model: Folder of the critique reward model.
        fingerprint: Of it and what it is asked; the store it names does not matter.
        max_images: Most images of a prompt.
    """
    plan = single_role_plan(config, "critique_reward")
    with (
        worker_pool(config, plan, None) as pool,
        open_judge(config, folder, pool, model, fingerprint, max_images=max_images) as judge,
    ):
        yield judge


@contextmanager
def online_critique_judge(
    config: TrainConfig, folder: RunFolder, pool: WorkerPool, prompts: Sequence[Prompt]
) -> Iterator[CritiqueJudge | None]:
    """Who adds critique rewards to those of an online run; None where ``reward.critique.weight`` is 0.

    Raises:
        RefusedInput: ``reward.critique.path`` is no critique reward model.
    """
    model = config.reward.critique.path
    if not config.reward.critique.weight or model is None:
        yield None
        return
    images = max(len(p.media) for p in prompts)
    fingerprint = reward_fingerprint(config, None, model)
    with open_judge(config, folder, pool, model, fingerprint, max_images=images) as judge:
        yield judge


@contextmanager
def open_judge(
    config: TrainConfig, folder: RunFolder, pool: WorkerPool, model: str, fingerprint: Fingerprint, *, max_images: int
) -> Iterator[CritiqueJudge]:
    """A judge over a pool whose plan has critique reward workers; see ``critique_judge``."""
    settings = config.reward.critique
    encoder = prompt_encoder(config, model)
    limits, request = critique_limits(config, model), known_request(model)
    workers = pool.role("critique_reward")
    workers.start(
        CritiqueRewardSpec(
            # One on each device, beside the model with the head.
            engine=replace(
                engine_spec(config, model, encoder, max_model_len=limits.max_model_len, max_images=max_images),
                tensor_parallel_size=1,
            ),
            timeout_s=config.rollout.timeout_s,
        )
    )
    # Not the length at which a question is too long: it changes which answers there are, and none of them.
    content = [fingerprint.model, fingerprint.settings, request, limits.max_new_tokens, engine_kind(config, model)]
    with CritiqueCache(Path(settings.cache_path or folder.root / "critiques.sqlite")) as cache:
        yield CritiqueJudge(
            workers,
            encoder,
            cache,
            request=request,
            fingerprint=hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest(),
            limits=limits,
            deadline_s=config.rollout.timeout_s,
        )
