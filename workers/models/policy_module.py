"""The one forward every trainer-side role runs: media in, log-probs of the policy's own tokens or rewards out."""

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import GenerationConfig

from algorithms.algorithm import Scores
from algorithms.maths.logprobs import TokenScores
from algorithms.records import PLAIN, SamplingDistribution
from workers.models import policy_module as backbone
from workers.models.adapters import adapter_for
from workers.models.fused_head import BYTES_KEPT, Reading, score_frozen, score_logits
from workers.models.reward_head import RewardHead
from workers.models.shared_prompt import positions, segment_mask
from workers.multimodal.collate import Batch
from workers.multimodal.packing import Segments

LOGITS_AT_ONCE = 1 << 27
"""Of a frozen head, and wherever nobody learns: such logits are not kept. Half a gigabyte in float32."""


class PolicyModule(nn.Module):
    """Wraps a vision-language model so that one call computes token log-probs and entropies.

    Being a module itself, it is what a sharding engine wraps: parameters are gathered by the engine's own
    hooks, and the language-model head runs only at the positions that predict an action token.
    """

    def __init__(self, model: Any, *, lockstep: bool) -> None:
        """
        Args:
            model: An image-text-to-text model of transformers.
            lockstep: Several ranks learn together. One that skipped a module would leave the others waiting for its
                parameters (ZeRO-3) or gradients (ZeRO-1 and 2). So the head runs equally often on every rank, and
                every batch has an image (``Collator(always_an_image=True)``).
        """
        super().__init__()
        self.model = model
        self.lockstep = lockstep

    def forward(self, batch: Batch, sampling: SamplingDistribution = PLAIN) -> TokenScores:
        """Score the action tokens, sequence after sequence as in ``batch.targets``.

        Args:
            batch: Rows on the model's device.
            sampling: The distribution whose log-probs are asked for.
        """
        hidden = _hidden_states(self.model, batch, at=batch.predictors, all_take_part=self.lockstep)
        return self._score(hidden, batch.targets, sampling)

    def _score(self, hidden: Tensor, targets: Tensor, sampling: SamplingDistribution) -> TokenScores:
        """The head, once a token; only where it learns and its logits are too many to keep, in pieces made twice."""
        config, head = self.model.config.get_text_config(), self.model.get_output_embeddings()
        reading = Reading(sampling.temperature, sampling.banned_ids, getattr(config, "final_logit_softcapping", None))
        learns = torch.is_grad_enabled()
        if learns and hidden.requires_grad and not any(_learns_or_is_apart(p) for p in head.parameters()):
            pieces = -(-len(targets) * config.vocab_size // LOGITS_AT_ONCE)
            return score_frozen(head, hidden, targets, reading, pieces=max(1, pieces))
        kept = BYTES_KEPT.get(hidden.device.type, min(BYTES_KEPT.values())) // hidden.element_size()
        pieces = -(-len(targets) * config.vocab_size // (kept if learns else LOGITS_AT_ONCE))
        if self.lockstep:
            most = torch.tensor(pieces, device=targets.device)
            torch.distributed.all_reduce(most, op=torch.distributed.ReduceOp.MAX)
            pieces = int(most)
        if pieces <= 1:
            return score_logits(head(hidden), targets, reading)
        again = partial(checkpoint, _score_piece, use_reentrant=False, preserve_rng_state=False)
        score = again if learns else _score_piece
        scored: list[TokenScores] = [
            score(head, *piece, reading)
            for piece in zip(hidden.tensor_split(pieces), targets.tensor_split(pieces), strict=True)
        ]
        return TokenScores(*map(torch.cat, zip(*scored, strict=True)))


def _score_piece(head: nn.Module, hidden: Tensor, targets: Tensor, reading: Reading) -> TokenScores:
    return score_logits(head(hidden), targets, reading)


def _learns_or_is_apart(parameter: Tensor) -> bool:
    # A parameter that ZeRO-3 cut up comes together for the passes of its module, and for no pass inside another.
    return parameter.requires_grad or hasattr(parameter, "ds_id")


class CritiqueScores(NamedTuple):
    """What a critique reward model thinks of a batch. A tuple, in which ZeRO-3 finds the tensors that it hooks."""

    tokens: TokenScores
    """Of the action tokens, ``[N]``."""
    rewards: Tensor
    """float32 ``[S]``: one a sequence, read at its last token."""


class CritiqueRewardModule(PolicyModule):
    """A vision-language model that writes critiques with its own head and rewards with a second one, in one forward.

    Source: MM-RLHF, section 3, https://arxiv.org/abs/2502.10391
    """

    def __init__(self, model: Any, score: RewardHead, *, lockstep: bool) -> None:
        """
        Args:
            score: ``hidden -> 1``.
            lockstep: see ``PolicyModule``.
        """
        super().__init__(model, lockstep=lockstep)
        self.score = score

    def forward(self, batch: Batch, sampling: SamplingDistribution = PLAIN) -> CritiqueScores:  # type: ignore[override]
        """Score the action tokens, and every sequence at its end."""
        at = torch.cat([batch.predictors, batch.ends])
        hidden = _hidden_states(self.model, batch, at=at, all_take_part=self.lockstep)
        of_tokens, at_ends = hidden.split([len(batch.predictors), len(batch.ends)])
        return CritiqueScores(self._score(of_tokens, batch.targets, sampling), self.score(at_ends).squeeze(-1).float())


class RewardModule(nn.Module):
    """A vision-language model with a scalar head in place of its language-model head: one reward a sequence.

    The reward is read at a sequence's last token, wherever that is in the row, so neither padding nor neighbours
    change it.
    """

    def __init__(self, model: Any, score: RewardHead, *, lockstep: bool) -> None:
        """
        Args:
            score: ``hidden -> 1``.
            lockstep: see ``PolicyModule``.
        """
        super().__init__()
        self.model, self.score, self.lockstep = model, score, lockstep
        head = model.get_output_embeddings()
        if head.weight is not model.get_input_embeddings().weight:
            head.requires_grad_(False)

    def forward(self, batch: Batch, sampling: SamplingDistribution = PLAIN) -> Tensor:
        """float32 ``[S]``: the reward of every sequence; without the language model's head nothing is sampled."""
        at_ends = _hidden_states(self.model, batch, at=batch.ends, all_take_part=self.lockstep)
        return self.score(at_ends).squeeze(-1).float()


class TokenValues(NamedTuple):
    """What a critic thinks of a batch."""

    values: Tensor
    """float32 ``[N]``: of the state before each action token."""


class ValueModule(RewardModule):
    """A vision-language model with a scalar head that is read before every action token: the critic of PPO.

    Source: Schulman et al. 2017, eq. 9, https://arxiv.org/abs/1707.06347
    """

    def forward(self, batch: Batch, sampling: SamplingDistribution = PLAIN) -> TokenValues:  # type: ignore[override]
        """Value the states that predict the action tokens, sequence after sequence."""
        hidden = _hidden_states(self.model, batch, at=batch.predictors, all_take_part=self.lockstep)
        return TokenValues(self.score(hidden).squeeze(-1).float())


def _hidden_states(model: Any, batch: Batch, *, at: Tensor, all_take_part: bool) -> Tensor:
    """Last hidden states ``[len(at), H]`` at some of the flattened positions.

    Args:
        model: An image-text-to-text model of transformers.
        all_take_part: Every part of the model gets a gradient, also from a batch whose only image counts for nothing.
    """
    # The plain layout is causal, with positions as the model itself counts them.
    layout = {"attention_mask": batch.attention_mask.long()}
    if batch.segments is not None:
        layout = {
            "attention_mask": segment_mask(batch.segments),
            "position_ids": positions(batch.segments, _prompt_positions(model, batch, batch.segments)),
        }
    hidden = backbone.hidden_states(model, batch.mm_inputs, input_ids=batch.input_ids, **layout)
    chosen = hidden.flatten(0, 1)[at]
    return chosen + 0.0 * hidden.sum() if all_take_part else chosen


def _prompt_positions(model: Any, batch: Batch, at: Segments) -> Tensor:
    """Positions of the prompts as the model itself counts them: ``[G, P]``, or three axes where it has images."""
    if "mm_token_type_ids" not in batch.mm_inputs:
        return torch.arange(at.prompts.shape[1], device=at.prompts.device).expand_as(at.prompts)
    grids = {k: v for k, v in batch.mm_inputs.items() if k.endswith("_grid_thw")}
    of_prompts, _ = model.model.get_rope_index(
        batch.input_ids[0][at.prompts],
        mm_token_type_ids=batch.mm_inputs["mm_token_type_ids"][0][at.prompts],
        attention_mask=at.real.long(),
        **grids,
    )
    return of_prompts


def hidden_states(model: Any, mm_inputs: dict[str, Tensor], **text_inputs: Any) -> Tensor:
    """The states ``[B, T, D]`` from which the model's output embeddings make logits.

    Args:
        model: An image-text-to-text model of transformers.
        mm_inputs: Images as the model's forward takes them; empty where there are none.
        text_inputs: Ids, mask and positions.
    """
    if not adapter_for(model.config.model_type).qformer:
        return model.model(use_cache=False, **text_inputs, **mm_inputs).last_hidden_state
    # It has no body without a head. The parts are not called one by one: a sharding engine gathers parameters, here
    # the query tokens, when the forward of the module that owns them begins.
    options = {"use_cache": False, "output_hidden_states": True, "logits_to_keep": 1}
    if not mm_inputs:
        return model.language_model(**text_inputs, **options).hidden_states[-1]
    return model(**text_inputs, **mm_inputs, **options).language_model_outputs.hidden_states[-1]


def forget_generation_settings(model: Any) -> None:
    """Leave nothing of what the model's folder says about sampling: ``generate`` would take what it is not told."""
    vars(model).pop("generate", None)  # code of the folder, where that may run, in the place of transformers' own
    for module in model.modules():
        if isinstance(getattr(module, "generation_config", None), GenerationConfig):
            module.generation_config = GenerationConfig()


def generate(model: Any, mm_inputs: dict[str, Tensor], **options: Any) -> Any:
    """transformers' ``generate``, for prompts with and without images."""
    if adapter_for(model.config.model_type).qformer and not mm_inputs:
        return model.language_model.generate(**options)
    return model.generate(**mm_inputs, **options)


Output = TokenScores | CritiqueScores | TokenValues | Tensor


def token_scores(output: TokenScores | CritiqueScores) -> TokenScores:
    """Of the action tokens, ``[N]``."""
    return output.tokens if isinstance(output, CritiqueScores) else output


def reward_scores(output: CritiqueScores | Tensor) -> Tensor:
    """Of the sequences, float32 ``[S]``."""
    return output.rewards if isinstance(output, CritiqueScores) else output


def scores_of(batch: Batch, output: Output) -> Scores:
    """The same, cut into one piece a sequence, as an objective takes it."""
    if isinstance(output, TokenValues):
        return Scores((), values=batch.split(output.values))
    rewards = () if isinstance(output, TokenScores) else reward_scores(output).split(1)
    if isinstance(output, Tensor):
        return Scores((), rewards=rewards)
    tokens = token_scores(output)
    return Scores(batch.split(tokens.logprobs), entropy=tokens.entropy, greedy=tokens.greedy, rewards=rewards)


def nothing(output: Output) -> Tensor:
    """0, and a gradient of 0 for every parameter that a score would depend on, of a batch that has none."""
    if isinstance(output, Tensor | TokenValues):
        return (output if isinstance(output, Tensor) else output.values).sum()
    of_rewards = output.rewards.sum() if isinstance(output, CritiqueScores) else 0.0
    return token_scores(output).logprobs.sum() + of_rewards
