"""Whoever rewards a completion is told what only its engine knows: how long it is, and why it ended."""

import numpy as np
import pytest

from orchestrator.training.online_step import reward_item
from workers.types import Completion, FinishReason, Prompt


@pytest.mark.parametrize("reason", ["stop", "length", "abort"])
def test_length_and_end_of_a_completion_reach_the_service(reason: FinishReason) -> None:
    prompt = Prompt(uid="a", messages=(), media=(), label="B", row={"length_bonus": 0.5})
    completion = Completion(
        uid="a",
        sample_index=3,
        completion_ids=np.array([5, 6, 7], np.int32),
        rollout_logprobs=np.zeros(3, np.float32),
        finish_reason=reason,
        policy_version=0,
        engine="e",
    )
    told = reward_item(prompt, completion, "Is it?", is_here=True).to_json()
    assert (told["id"], told["label"], told["row"]) == ("a/3", "B", {"length_bonus": 0.5})
    assert (told["length"], told["finish_reason"]) == (3, reason)
