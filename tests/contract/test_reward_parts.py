"""A part of a reward is one registry line: nothing between the service and the report names it."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.report import write_report
from orchestrator.rewards.replies import read_rewards
from orchestrator.rewards.reward import FIGURES, Reward, RewardItem, reward_metrics
from orchestrator.run.folder import RunFolder
from orchestrator.run.metrics import metrics_row
from orchestrator.run.rollout_store import read_rollouts, write_rollouts
from orchestrator.training.online_metrics import Sampled, rollout_rows
from remote_rm.app import create_app
from remote_rm.judges.rules import RulesJudge
from remote_rm.parts import Part
from remote_rm.rulebooks import COMPAT, PARTS, STRICT, Rulebook
from tests.contract.service import in_process
from workers.types import Completion, Completions, GenerationRequest, Prompt

_RIGHT = "<think> response 2 says eight . </think><answer>2</answer>"
_WRONG = "<think> response 1 says eight . </think><answer>1</answer>"
_UNLABELLED = "label me"
_TEXTS = (_RIGHT, _WRONG, _UNLABELLED)
_LABELS = ("2", "2", None)
_BUILT_IN = tuple(PARTS)


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of two rules, which adds a quarter of itself to the reward."""
    part = Part(strict=lambda item: float(item.response.count("e")), compat=lambda item: -1.0, weight=0.25)
    monkeypatch.setitem(PARTS, "es", part)


def _post(route: str, body: Mapping[str, Any], rulebook: Rulebook = STRICT) -> bytes:
    async def run() -> bytes:
        async with in_process(create_app(RulesJudge(), None, rulebook=rulebook)) as client:
            return (await client.post(route, json=body)).content

    return asyncio.run(run())


def _rewards(rulebook: Rulebook = STRICT) -> list[Reward]:
    items = [
        RewardItem(uid=f"p{index}", sample_index=0, prompt="?", response=text, label=label, media=())
        for index, (text, label) in enumerate(zip(_TEXTS, _LABELS, strict=True))
    ]
    body = _post("/v1/rewards", {"request_id": "r", "items": [item.to_json() for item in items]}, rulebook)
    found = read_rewards(body, [item.id for item in items])
    return [found[item.id] for item in items]


def test_it_is_in_the_reply_and_in_the_reward() -> None:
    # The third fails for want of a label before the new part is looked at.
    right, wrong, failed = _rewards()
    assert right.parts == {"format": 1.0, "accuracy": 1.0, "consistency": 1.0, "es": _RIGHT.count("e")}
    assert (right.value, right.status) == (2.0 + 0.25 * _RIGHT.count("e"), "scored")
    assert (wrong.value, wrong.parts["es"]) == (0.5 + 0.25 * _WRONG.count("e"), _WRONG.count("e"))
    assert (failed.value, failed.parts["es"], failed.detail) == (None, None, "the item has no label")


def test_a_rulebook_reads_it_by_its_own_rule() -> None:
    assert [reward.parts["es"] for reward in _rewards(COMPAT)] == [-1.0, -1.0, None]


def test_openrlhf_gets_a_list_of_it_beside_those_it_knows() -> None:
    answer = json.loads(_post("/get_reward", {"query": [_RIGHT], "prompts": [""], "labels": ["2"]}))
    assert list(answer) == ["rewards", *(f"{name}_rewards" for name in _BUILT_IN), "es_rewards", "statuses"]
    assert answer["es_rewards"] == [_RIGHT.count("e")]


def test_it_is_in_the_figures_the_rollouts_and_the_report(tmp_path: Path) -> None:
    rewards = _rewards()
    row = metrics_row(reward_metrics(rewards))
    assert row["reward/es"] == (_RIGHT.count("e") + _WRONG.count("e")) / 2
    folder = RunFolder(tmp_path)
    folder.rollouts.mkdir()
    rows = rollout_rows(*_sampled(rewards), judging=True)
    write_rollouts(folder.rollout_file(1), rows)
    assert [r.parts["es"] for r in read_rollouts(folder.rollout_file(1))] == [r.parts["es"] for r in rewards]
    folder.config.write_text(json.dumps({"algo": "stable_reinforce"}))
    folder.manifest.write_text(json.dumps({"figures": [asdict(figure) for figure in FIGURES]}))
    folder.metrics.write_text("".join(json.dumps({"step": step, **row}) + "\n" for step in (1, 2)))
    page = write_report(tmp_path).read_text()
    chart = page[page.index("Reward and its parts") :].partition("</figure>")[0]
    assert all(f">{name}, step 2: " in chart for name in ("mean", *PARTS))
    assert f"consistency 1.000 · es {_RIGHT.count('e')}.000" in page


def _sampled(rewards: list[Reward]) -> tuple[dict[str, Prompt], Sampled]:
    """What rollouts' rows are made of."""
    uids = [f"p{index}" for index in range(len(rewards))]
    prompts = {
        uid: Prompt(uid=uid, messages=(), media=(), label=label) for uid, label in zip(uids, _LABELS, strict=True)
    }
    sampled = Sampled(
        requests=tuple(
            GenerationRequest(
                uid=uid, sample_index=0, engine_prompt_ids=(1,), prompt_ids=(1,), media=(), seed=0, max_new_tokens=1,
                temperature=1.0,
            )
            for uid in uids
        ),
        completions=Completions.of(
            Completion(
                uid=uid, sample_index=0, completion_ids=np.array([1], np.int32),
                rollout_logprobs=np.array([-0.5], np.float32), finish_reason="stop", policy_version=0, engine="x",
            )
            for uid in uids
        ),
        rewards=tuple(rewards),
        texts={(uid, 0): text for uid, text in zip(uids, _TEXTS, strict=True)},
    )  # fmt: skip
    return prompts, sampled
