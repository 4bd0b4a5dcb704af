"""KL, log-probs, means and the policy loss against the numbers of the original R1-Reward code."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from algorithms.maths.aggregation import token_weights, weighted
from algorithms.maths.logprobs import kl_estimate, token_logprobs
from algorithms.maths.masking import masked_mean
from algorithms.maths.policy_losses import PolicyLoss, ppo_clip_loss_map
from tests.golden.vectors import Case, assert_close, load, mask_of, one, select
from workers.models.policy_module import PolicyModule
from workers.multimodal.collate import Batch

FILE = "r1_reward.json"
KL = "openrlhf/models/utils.py:7-34"
REWARD = "openrlhf/models/utils.py:37-74"
LOGPROBS = "openrlhf/models/utils.py:77-92"
MASKED_MEAN = "openrlhf/models/utils.py:95-98"
POLICY_LOSS = "openrlhf/models/loss.py:64-79"
ACTOR_FORWARD = "openrlhf/models/actor.py:187-240"
SEQUENCES = "openrlhf/models/actor.py:159-185"
ADAPTIVE_KL = "openrlhf/trainer/ppo_utils/kl_controller.py:4-19"
FIXED_KL = "openrlhf/trainer/ppo_utils/kl_controller.py:22-29"
RETURNS = "openrlhf/trainer/ppo_utils/experience_maker.py:473-515"
EXPERIENCE = "openrlhf/trainer/ppo_utils/experience_maker.py:193-261"
BUFFER = "openrlhf/trainer/ppo_utils/replay_buffer.py:237-276"
TESTED_SOURCES = (
    KL, REWARD, LOGPROBS, MASKED_MEAN, POLICY_LOSS, ACTOR_FORWARD, SEQUENCES, RETURNS, EXPERIENCE, BUFFER,
)  # fmt: skip
NOT_OURS = (ADAPTIVE_KL, FIXED_KL)
"""Here the KL coefficient stays what it is."""


def _name(case: Case) -> str:
    return case.name


def test_every_training_source_of_the_file_is_tested() -> None:
    training = {
        case.source for case in load(FILE) if case.source.startswith("openrlhf/") and "/remote_rm/" not in case.source
    }
    assert {source for source in training if not source.startswith(TESTED_SOURCES + NOT_OURS)} == set()


@pytest.mark.parametrize("case", select(FILE, KL), ids=_name)
def test_kl_estimate(case: Case) -> None:
    logprobs = torch.tensor(case.inputs["log_probs"], dtype=case.dtype)
    estimator = "k3" if case.params["use_kl_estimator_k3"] else "k1"
    kl = kl_estimate(
        logprobs,
        torch.tensor(case.inputs["log_probs_base"], dtype=case.dtype),
        mask_of(case.inputs["action_mask"], logprobs),
        estimator=estimator,
    )
    assert_close(kl, case.outputs["kl"])


@pytest.mark.parametrize("case", select(FILE, LOGPROBS, without=("case4_scale1",)), ids=_name)
def test_token_logprobs(case: Case) -> None:
    logits = torch.tensor(case.inputs["logits"], dtype=case.dtype)
    labels = torch.tensor(case.inputs["labels"])
    logprobs, *_ = token_logprobs(logits.flatten(0, 1), labels.flatten())
    assert_close(logprobs.view_as(labels), case.outputs["log_probs"])


def test_bfloat16_logits_are_scored_in_float32_where_the_original_stays_in_bfloat16() -> None:
    case = one(FILE, LOGPROBS, "case4_scale1")
    logits = torch.tensor(case.inputs["logits"], dtype=torch.bfloat16).flatten(0, 1)
    labels = torch.tensor(case.inputs["labels"]).flatten()
    logprobs, *_ = token_logprobs(logits, labels)
    exact, *_ = token_logprobs(logits.double(), labels)
    released = torch.tensor(case.outputs["log_probs"]).flatten()
    assert_close(logprobs, exact)
    assert 1e-3 < (logprobs - released).abs().max() < 2**-7 * released.abs().max()


class _LogitsModel(nn.Module):
    """Stands for a transformers model whose head returns given logits."""

    def __init__(self, logits: Tensor, attention_mask: Tensor) -> None:
        super().__init__()
        self.logits, self.expected_mask = logits, attention_mask
        self.lm_head = nn.Identity()
        text = SimpleNamespace(vocab_size=logits.shape[-1])
        self.config = SimpleNamespace(model_type="qwen2_5_vl", get_text_config=lambda: text)

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def model(self, *, input_ids: Tensor, attention_mask: Tensor, use_cache: bool) -> SimpleNamespace:
        """Takes no ``position_ids``: positions are the model's own, where the original passes 1-D ones."""
        assert not use_cache
        assert torch.equal(attention_mask, self.expected_mask)
        assert input_ids.shape == self.logits.shape[:2]
        return SimpleNamespace(last_hidden_state=self.logits)


@pytest.mark.parametrize("case", select(FILE, ACTOR_FORWARD), ids=_name)
def test_forward_scores_each_action_by_the_logits_one_position_before_it(case: Case) -> None:
    input_ids, attention_mask = (torch.tensor(case.inputs[name]) for name in ("sequences", "attention_mask"))
    num_actions = case.params["num_actions"]
    rows, width = input_ids.shape
    predictors = torch.arange(rows)[:, None] * width + torch.arange(width - num_actions - 1, width - 1)
    batch = Batch(
        input_ids=input_ids,
        attention_mask=attention_mask.bool(),
        segments=None,
        predictors=predictors.flatten(),
        targets=input_ids[:, -num_actions:].flatten(),
        ends=torch.arange(rows) * width + width - 1,
        mm_inputs={},
        counts=(num_actions,) * rows,
    )
    model = _LogitsModel(torch.tensor(case.inputs["logits"]), attention_mask)
    policy = PolicyModule(model, lockstep=False)
    logprobs, *_ = policy(batch)
    assert_close(logprobs.view(rows, num_actions), case.outputs["action_log_probs"])


@pytest.mark.parametrize(
    "case", select(FILE, MASKED_MEAN, without=("all_masked_row_dim_last", "everything_masked_dim_none")), ids=_name
)
def test_masked_mean(case: Case) -> None:
    values = torch.tensor(case.inputs["tensor"], dtype=case.dtype)
    assert_close(
        masked_mean(values, mask_of(case.inputs["mask"], values), dim=case.params["dim"]), case.outputs["mean"]
    )


@pytest.mark.parametrize("name", ["all_masked_row_dim_last", "everything_masked_dim_none"])
def test_mean_of_an_empty_mask_is_zero_where_the_original_gives_nan(name: str) -> None:
    case = one(FILE, MASKED_MEAN, name)
    values = torch.tensor(case.inputs["tensor"], dtype=case.dtype)
    mean = masked_mean(values, mask_of(case.inputs["mask"], values), dim=case.params["dim"])
    released = torch.tensor(case.outputs["mean"], dtype=case.dtype)
    assert released.isnan().any()
    assert_close(mean, released.nan_to_num(0.0))


def _policy_loss(case: Case) -> tuple[Tensor, Tensor, PolicyLoss]:
    logprobs = torch.tensor(case.inputs["log_probs"], dtype=case.dtype, requires_grad=True)
    mask = mask_of(case.inputs["action_mask"], logprobs)
    result = ppo_clip_loss_map(
        logprobs - torch.tensor(case.inputs["old_log_probs"], dtype=case.dtype),
        torch.tensor(case.inputs["advantages"], dtype=case.dtype),
        mask,
        clip_low=case.params["clip_eps"],
        clip_high=case.params["clip_eps"],
        preclip_min=1e-3,
        preclip_max=1e3,
    )
    return logprobs, mask, result


@pytest.mark.parametrize("case", select(FILE, POLICY_LOSS, without=("all_masked_row_gives_nan",)), ids=_name)
def test_policy_loss_value_and_gradient(case: Case) -> None:
    logprobs, mask, result = _policy_loss(case)
    weights = token_weights(
        mask, mode="seq-mean-token-mean", global_num_sequences=len(mask), global_num_tokens=int(mask.sum())
    )
    loss = weighted(result.loss, weights).sum()
    (gradient,) = torch.autograd.grad(loss, logprobs)
    # The stored map speaks of masked positions, too; ours is zero there.
    assert_close(result.loss[mask], torch.tensor(case.outputs["token_losses"], dtype=case.dtype)[mask])
    assert not result.loss[~mask].any()
    assert_close(loss, case.outputs["loss"])
    assert_close(gradient, case.outputs["grad_log_probs"])


def test_all_masked_row_adds_nothing_where_the_original_gives_nan() -> None:
    case = one(FILE, POLICY_LOSS, "all_masked_row_gives_nan")
    logprobs, mask, result = _policy_loss(case)
    weights = token_weights(
        mask, mode="seq-mean-token-mean", global_num_sequences=len(mask), global_num_tokens=int(mask.sum())
    )
    loss = weighted(result.loss, weights).sum()
    (gradient,) = torch.autograd.grad(loss, logprobs)
    token_losses = torch.tensor(case.outputs["token_losses"], dtype=case.dtype)
    assert torch.isnan(torch.tensor(case.outputs["loss"]))
    assert_close(loss, (token_losses[1, :2].mean() + token_losses[2].mean()) / 3)
    assert_close(gradient, torch.tensor(case.outputs["grad_log_probs"], dtype=case.dtype).nan_to_num(0.0))
