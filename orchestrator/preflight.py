"""Everything that can be refused before a process is started: cheapest checks first, all within seconds."""

import importlib.util
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.cluster.adapters import check_adapters
from orchestrator.cluster.choices import adapter_of, check_attention
from orchestrator.cluster.feed import PROBE_LENGTH
from orchestrator.config.schema import TrainConfig
from orchestrator.config.tables import made
from orchestrator.errors import RefusedInput
from workers.models.adapter_folder import base_folder
from workers.models.folder import (
    check_model_config,
    check_model_folder,
    critique_request,
    gives_rewards_alone,
    has_reward_head,
    writes_critiques,
)
from workers.models.needs import max_positions, missing_package, told_positions
from workers.types import Prompt

if TYPE_CHECKING:  # it imports transformers, and most refusals can be had without
    from workers.multimodal.prompt_encoder import PromptEncoder


_DIGIT = re.compile(r"\d")
_PLAIN = ("reward.critique.path", "reward.judge_path")
"""Engines load them, which take no adapter."""


def check_config(config: TrainConfig) -> None:
    """Refuse a model folder that does not describe a supported architecture, or one that cannot be used as asked.

    Raises:
        RefusedInput: in one sentence.
    """
    _check_folder(config, check_model_config)
    if config.online and gives_rewards_alone(Path(config.model.folder)):
        raise RefusedInput(f"model.path {config.model.path!r} is a reward model for vllm serve, which writes nothing")
    adapter = adapter_of(config.model.folder)
    if config.rollout.engine == "vllm" and not adapter.vllm:
        raise RefusedInput(
            f"rollout.engine = 'vllm', but vLLM does not serve {adapter.model_type}; use 'transformers' or 'auto'"
        )
    if config.model.lora_rank is not None and not adapter.lora:
        raise RefusedInput(
            f"model.lora_rank = {config.model.lora_rank}, but peft puts adapters on the experts of "
            f"{adapter.model_type} whatever layers it is told; leave it out"
        )
    check_attention(config, config.model.folder)


def check_model(config: TrainConfig) -> None:
    """Refuse a model folder or library that cannot serve.

    Raises:
        RefusedInput: in one sentence.
    """
    check_config(config)
    _check_folder(config, check_model_folder)
    if package := missing_package(config.model.attention):
        raise RefusedInput(f"model.attention = {config.model.attention!r}, but the package {package} is not installed")
    if config.rollout.engine == "vllm" and importlib.util.find_spec("vllm") is None:
        raise RefusedInput("rollout.engine = 'vllm', but vllm is not installed; use 'transformers' or 'auto'")


def check_critique_model(config: TrainConfig) -> None:
    """Refuse a ``reward.critique.path`` that is no critique reward model.

    Raises:
        RefusedInput: in one sentence.
    """
    path = config.reward.critique.path
    if path is None:
        return
    try:
        check_model_folder(path, trust_remote_code=config.model.trust_remote_code, trained=False)
        critique_request(Path(path))
    except ValueError as error:
        raise RefusedInput(f"reward.critique.path: {error}") from error


def check_other_models(config: TrainConfig, known: TrainConfig) -> None:
    """Refuse a judge, a teacher, a reward model or a critic that cannot be loaded, or is not what it should be.

    What an earlier stage is to make is not looked at.

    Args:
        known: The run without what other runs make before it.
    Raises:
        RefusedInput: in one sentence.
    """
    for option, path in (
        ("reward.judge_path", known.reward.judge_path),
        ("distill.teacher_path", known.needs.teacher),
        ("reward.scalar_path", known.reward.scalar_path),
        ("critic.path", known.critic_path),
    ):
        if path is None:
            continue
        try:
            own = path if option in _PLAIN else base_folder(path)
            check_model_folder(own, trust_remote_code=known.model.trust_remote_code)
        except ValueError as error:
            raise RefusedInput(f"{option}: {error}") from error
        if option not in _PLAIN:
            check_attention(known, own, option)
    check_adapters(config)
    _check_reward_heads(config)


def _check_reward_heads(config: TrainConfig) -> None:
    """Refuse a reward model, or what a critic begins with, that has not the head which is asked for."""
    scalar = made("reward.scalar_path", config.reward.scalar_path)
    if scalar is not None and not has_reward_head(Path(scalar)):
        raise RefusedInput(f"reward.scalar_path {scalar!r} has no reward head: it should be what scalar_rm leaves")
    if scalar is not None and writes_critiques(Path(scalar)):
        raise RefusedInput(
            f"reward.scalar_path {scalar!r} is a critique reward model, which has to write first: name it in "
            "reward.critique.path"
        )
    critic = config.needs.critic
    path = made("critic.path", config.critic_path)
    if critic is not None and path is not None and critic.keeps_head and not has_reward_head(Path(path)):
        raise RefusedInput(f"critic.head = 'reward_head', but critic.path {path!r} has none")


def check_teacher(config: TrainConfig, encoder: "PromptEncoder") -> None:
    """Refuse a teacher or a critic that reads other ids than the policy writes.

    Raises:
        RefusedInput: naming how many words differ.
    """
    critic = config.needs.critic
    of_critic = "critic.path" if critic is not None and critic.path is not None else "critic.init: reward.scalar_path"
    for option, path in (("distill.teacher_path", config.needs.teacher), (of_critic, config.critic_path)):
        if path is None:
            continue
        from orchestrator.cluster.specs import prompt_encoder  # deferred: it imports torch

        own, other = (one.tokenizer.get_vocab() for one in (encoder, prompt_encoder(config, path)))
        if own != other:
            differ = len(set(own.items()) ^ set(other.items()))
            raise RefusedInput(
                f"{option} {path!r} has another tokenizer than the policy: {differ} entries of the two vocabularies "
                "differ, and it must read what the policy writes"
            )


def check_processors(config: TrainConfig) -> None:
    """Refuse models whose processor or tokenizer cannot be loaded; the slowest of the checks of a model, by seconds.

    Raises:
        RefusedInput: naming the model's option, and what the library that loads it says.
    """
    # Deferred: it imports transformers, and most refusals can be had without.
    from workers.multimodal.processor import check_processor

    for option, path in (
        ("model.path", config.model.path),
        ("reward.critique.path", config.reward.critique.path),
        ("reward.judge_path", config.reward.judge_path),
        ("distill.teacher_path", config.needs.teacher),
        ("reward.scalar_path", config.reward.scalar_path),
        ("critic.path", config.critic_path),
    ):
        if path is None:
            continue
        try:
            check_processor(
                path if option in _PLAIN else base_folder(path), trust_remote_code=config.model.trust_remote_code
            )
        except ValueError as error:
            raise RefusedInput(f"{option}: {error}") from error


def check_trackers(config: TrainConfig) -> None:
    """Refuse a tracker whose package is missing.

    Raises:
        RefusedInput: naming it.
    """
    for tracker in config.run.trackers:
        if importlib.util.find_spec(tracker) is None:
            raise RefusedInput(f"run.trackers names {tracker!r}, but the package {tracker} is not installed")


def check_lengths(config: TrainConfig, encoder: "PromptEncoder", prompts: Sequence[Prompt]) -> int:
    """Refuse prompts longer than allowed (a multimodal prompt is never truncated); return the longest.

    Raises:
        RefusedInput: with the count, the longest and the bound; or a micro-batch that could not hold one sample.
    """
    lengths = [len(encoder.encode(p).prompt_ids) for p in prompts]
    bound, longest = config.data.max_prompt_tokens, max(lengths)
    if longest > bound:
        too_long = sum(length > bound for length in lengths)
        worst = prompts[lengths.index(longest)].uid
        raise RefusedInput(
            f"{too_long} of {len(lengths)} prompts are longer than data.max_prompt_tokens = {bound}; "
            f"the longest is row {worst} with {longest} tokens"
        )
    check_positions(config, encoder, longest)
    if config.data_kind == "demonstrations":
        check_demonstrations(config, encoder, prompts)
    whole = longest + config.rollout.max_new_tokens
    if whole > config.policy.tokens_per_microbatch:
        raise RefusedInput(
            f"policy.tokens_per_microbatch = {config.policy.tokens_per_microbatch} cannot hold one sample of "
            f"{longest} prompt + {config.rollout.max_new_tokens} new tokens = {whole}"
        )
    return longest


def check_labels(config: TrainConfig, prompts: Sequence[Prompt]) -> None:
    """Refuse labels that the rules of the run's own reward service compare with nothing.

    Raises:
        RefusedInput: with the count and the first row.
    """
    served = config.reward.url is not None or config.reward.functions or not config.needs.rewards
    if served or config.data_kind != "prompts":
        return
    numbers = config.reward.scoring == "compat"
    odd = [
        p
        for p in prompts
        if p.label is not None and not (numbers and _DIGIT.search(p.label)) and p.label not in ("1", "2")
    ]
    if odd:
        wanted = "a number" if numbers else "1 or 2"
        raise RefusedInput(
            f"{len(odd)} of {len(prompts)} rows have a label that is not {wanted}; the first is row {odd[0].uid} with "
            f"{odd[0].label!r}. The rules of reward.scoring = {config.reward.scoring!r} compare nothing else: set "
            "reward.functions, or reward.url to a service that does"
        )


def check_positions(config: TrainConfig, encoder: "PromptEncoder", longest_prompt: int, *, probed: bool = True) -> None:
    """Refuse prompts after which a whole completion does not fit.

    Args:
        longest_prompt: Tokens.
        probed: The prompts serve as probes of weight syncs too.
    Raises:
        RefusedInput: with the sum and the bound.
    """
    positions = max_positions(encoder.config)
    if positions is None:
        return
    follows = [(f"rollout.max_new_tokens = {config.rollout.max_new_tokens}", config.rollout.max_new_tokens)]
    if probed:
        follows.append((f"the {PROBE_LENGTH} tokens by which weight syncs are verified", PROBE_LENGTH))
    for name, length in follows:
        if longest_prompt + length > positions:
            raise RefusedInput(
                f"the longest prompt ({longest_prompt} tokens) + {name} is more than the model's "
                f"{told_positions(encoder.config)}"
            )


def check_demonstrations(config: TrainConfig, encoder: "PromptEncoder", prompts: Sequence[Prompt]) -> None:
    """Refuse demonstrations that are longer than the model can read, or a micro-batch can hold.

    Raises:
        RefusedInput: with the count, the longest and the bound.
    """
    shown = [p for p in prompts if p.target is not None]
    lengths = [len(encoder.encode(p).prompt_ids) + len(encoder.encode_target(p.target or "")) for p in shown]
    positions, budget = max_positions(encoder.config), config.policy.tokens_per_microbatch
    bounds = [(budget, f"policy.tokens_per_microbatch = {budget}")]
    if positions is not None:
        bounds.insert(0, (positions, f"the model's {told_positions(encoder.config)}"))
    for bound, name in bounds:
        if max(lengths, default=0) > bound:
            longest = max(lengths)
            raise RefusedInput(
                f"{sum(length > bound for length in lengths)} of {len(lengths)} demonstrations are longer than {name}; "
                f"the longest is row {shown[lengths.index(longest)].uid} with {longest} tokens"
            )


def _check_folder(config: TrainConfig, check: Callable[..., object]) -> None:
    try:
        check(config.model.path, trust_remote_code=config.model.trust_remote_code)
    except ValueError as error:
        raise RefusedInput(f"model.path: {error}") from error
