"""What a forward says of a batch, whichever module made it: log-probs of tokens, rewards of sequences, or both."""

from torch import Tensor

from algorithms.algorithm import Scores
from algorithms.maths.logprobs import TokenScores
from workers.models.policy_module import CritiqueScores
from workers.multimodal.collate import Batch

Output = TokenScores | CritiqueScores | Tensor


def token_scores(output: TokenScores | CritiqueScores) -> TokenScores:
    """Of the action tokens, ``[N]``."""
    return output.tokens if isinstance(output, CritiqueScores) else output


def reward_scores(output: CritiqueScores | Tensor) -> Tensor:
    """Of the sequences, float32 ``[S]``."""
    return output.rewards if isinstance(output, CritiqueScores) else output


def scores_of(batch: Batch, output: Output) -> Scores:
    """The same, cut into one piece a sequence, as an objective takes it."""
    rewards = () if isinstance(output, TokenScores) else reward_scores(output).split(1)
    if isinstance(output, Tensor):
        return Scores((), rewards=rewards)
    tokens = token_scores(output)
    return Scores(batch.split(tokens.logprobs), entropy=tokens.entropy, greedy=tokens.greedy, rewards=rewards)


def nothing(output: Output) -> Tensor:
    """0, and a gradient of 0 for every parameter that a score would depend on, of a batch that has none."""
    if isinstance(output, Tensor):
        return output.sum()
    of_rewards = output.rewards.sum() if isinstance(output, CritiqueScores) else 0.0
    return token_scores(output).logprobs.sum() + of_rewards
