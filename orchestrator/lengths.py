"""What is longer than the model has positions for, refused before a process is started."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from orchestrator.cluster.probe import PROBE_LENGTH
from orchestrator.config.schema import TrainConfig
from orchestrator.errors import RefusedInput
from workers.models.positions import max_positions, told_positions
from workers.types import Prompt

if TYPE_CHECKING:  # it imports transformers, and most refusals can be had without
    from workers.multimodal.prompt_encoder import PromptEncoder


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
