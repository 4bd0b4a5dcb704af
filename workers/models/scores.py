"""What a forward says of a batch, whichever module made it: log-probs of tokens, rewards of sequences, or both."""

from torch import Tensor

from algorithms.maths.logprobs import TokenScores
from workers.models.policy_module import CritiqueScores

Scores = TokenScores | CritiqueScores | Tensor


def token_scores(scores: TokenScores | CritiqueScores) -> TokenScores:
    """Of the action tokens, ``[N]``."""
    return scores.tokens if isinstance(scores, CritiqueScores) else scores


def reward_scores(scores: CritiqueScores | Tensor) -> Tensor:
    """Of the sequences, float32 ``[S]``."""
    return scores.rewards if isinstance(scores, CritiqueScores) else scores


def nothing(scores: Scores) -> Tensor:
    """0, and a gradient of 0 for every parameter that a score would depend on, of a batch that has none."""
    if isinstance(scores, Tensor):
        return scores.sum()
    of_rewards = scores.rewards.sum() if isinstance(scores, CritiqueScores) else 0.0
    return token_scores(scores).logprobs.sum() + of_rewards
