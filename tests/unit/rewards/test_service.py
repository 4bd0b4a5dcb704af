"""Which answers are known to whom: all that a reward depends on is in its key, and in the fingerprint of its table."""

import shutil
from pathlib import Path
from typing import Any, Self

import pytest
import torch

from orchestrator.config import load_config
from orchestrator.config.schema import TrainConfig
from orchestrator.data.store import PreferenceStore
from orchestrator.errors import RefusedInput
from orchestrator.rewards.critique_judge import Question
from orchestrator.rewards.critique_service import critique_limits, open_judge, reward_fingerprint
from orchestrator.run.folder import RunFolder
from orchestrator.tasks.digits_critiques import REQUEST
from tests.unit.data.store_rows import text_instruction, written
from tests.unit.rewards.fake_workers import FakeWorkers, text_prompt
from workers.critique_reward import CritiqueRewardSpec
from workers.models.reward_head import RewardHead, save_reward_head


class _Pool(FakeWorkers):
    """A pool whose workers, of any role, it is itself; it keeps what they would be started on."""

    def role(self, name: str) -> Self:
        return self

    def start(self, spec: CritiqueRewardSpec) -> None:
        self.spec = spec


def _model(speller: Path, folder: Path, *, request: str = REQUEST, weight: float = 0.5) -> str:
    shutil.copytree(speller, folder)
    head = RewardHead("linear", 128)
    torch.nn.init.constant_(head.weight, weight)
    save_reward_head("linear", dict(head.named_parameters()), folder, request=request)
    return str(folder)


@pytest.fixture
def critique_model(speller: Path, tmp_path: Path) -> str:
    return _model(speller, tmp_path / "critique_model")


@pytest.fixture
def store(tmp_path: Path) -> PreferenceStore:
    return written(tmp_path / "store", [text_instruction(n) for n in range(2)], group_rows=2)


def _config(tmp_path: Path, model: str, *flags: str) -> TrainConfig:
    known = ("--reward.critique.cache_path", str(tmp_path / "shared.sqlite"), "--rollout.engine", "transformers")
    if "--model.dtype" not in flags:
        known = (*known, "--model.dtype", "float32")
    if "--reward.critique.max_new_tokens" not in flags:
        known = (*known, "--reward.critique.max_new_tokens", "8")
    return load_config(["--algo", "mm_dpo", "--model.path", model, "--data.path", "rows", *known, *flags])[0]


def _num_asked(tmp_path: Path, store: PreferenceStore, model: str, *flags: str) -> int:
    """Critiques that a run with the shared cache asks for."""
    config, pool = _config(tmp_path, model, *flags), _Pool()
    fingerprint, folder = reward_fingerprint(config, store, model), RunFolder(tmp_path / "run")
    fake: Any = pool
    with open_judge(config, folder, fake, model, fingerprint, max_images=0) as judge:
        judge.judge([Question(prompt=text_prompt("a"), response="it is one .")])
    return len(pool.requests)


def test_a_reward_is_known_only_to_who_would_ask_the_same(
    speller: Path, critique_model: str, store: PreferenceStore, tmp_path: Path
) -> None:
    assert _num_asked(tmp_path, store, critique_model) == 1
    assert _num_asked(tmp_path, store, critique_model) == 0
    other_head = _model(speller, tmp_path / "other_head", weight=0.25)
    other_request = _model(speller, tmp_path / "other_request", request="is it right ?")
    assert _num_asked(tmp_path, store, other_head) == 1
    assert _num_asked(tmp_path, store, other_request) == 1
    assert _num_asked(tmp_path, store, critique_model, "--reward.critique.max_new_tokens", "9") == 1
    assert _num_asked(tmp_path, store, critique_model, "--model.dtype", "bfloat16") == 1
    # The same weights elsewhere are the same model, and where a question is too long says nothing of those that fit.
    assert _num_asked(tmp_path, store, _model(speller, tmp_path / "moved")) == 0
    limits = ("--reward.critique.max_new_tokens", "9", "--policy.tokens_per_microbatch", "200")
    assert _num_asked(tmp_path, store, critique_model, *limits) == 0


def test_a_table_names_what_it_was_asked_and_within_which_limits(
    critique_model: str, store: PreferenceStore, tmp_path: Path
) -> None:
    plain = reward_fingerprint(_config(tmp_path, critique_model), store, critique_model)
    limits = '"max_new_tokens": 8, "max_model_len": 512'
    assert plain.asked == f'{{"request": "{REQUEST}", {limits}, "engine": "transformers"}}'
    assert plain.store == store.manifest.fingerprint
    shorter = _config(tmp_path, critique_model, "--policy.tokens_per_microbatch", "300")
    assert reward_fingerprint(shorter, store, critique_model).asked != plain.asked


def test_workers_are_started_with_room_for_the_longest_question(
    critique_model: str, store: PreferenceStore, tmp_path: Path
) -> None:
    config, pool = _config(tmp_path, critique_model, "--policy.tokens_per_microbatch", "300"), _Pool()
    fingerprint: Any = reward_fingerprint(config, store, critique_model)
    fake: Any = pool
    with open_judge(config, RunFolder(tmp_path / "run"), fake, critique_model, fingerprint, max_images=7):
        assert pool.spec.engine.max_model_len == 300
        assert pool.spec.engine.max_images_per_prompt == 7
        assert pool.spec.engine.model.path == pool.spec.model.path == critique_model


@pytest.mark.parametrize(("limit", "budget"), [(512, 16384), (300, 300)])
def test_a_limit_that_leaves_no_room_for_any_question_is_refused(
    critique_model: str, tmp_path: Path, limit: int, budget: int
) -> None:
    flags = ("--reward.critique.max_new_tokens", str(limit), "--policy.tokens_per_microbatch", str(budget))
    told = (
        f"max_new_tokens = {limit} leaves no room for a question: it must be below the 512 positions of .* = {budget}"
    )
    with pytest.raises(RefusedInput, match=told):
        critique_limits(_config(tmp_path, critique_model, *flags), critique_model)
    assert critique_limits(_config(tmp_path, critique_model), critique_model).max_model_len == 512
