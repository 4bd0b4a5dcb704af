"""What is longer than the model has positions for is refused by its sum, and what just fits is not."""

import pytest

from orchestrator.cluster.feed import PROBE_LENGTH
from orchestrator.cluster.plan import plan_run
from orchestrator.cluster.specs import following_engine_spec
from orchestrator.config.load import load_config
from orchestrator.config.schema import TrainConfig
from orchestrator.errors import RefusedInput
from orchestrator.preflight import check_lengths, check_positions
from tests.user_files import write_llava
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.types import Prompt

_POSITIONS = 1024


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> PromptEncoder:
    return PromptEncoder(write_llava(tmp_path_factory.mktemp("llava") / "model"))


def _config(encoder: PromptEncoder, algo: str, *flags: str) -> TrainConfig:
    folder = encoder.processor.tokenizer.name_or_path
    return load_config(["--algo", algo, "--model.path", folder, "--data.path", "rows.jsonl", *flags])[0]


def _prompt(uid: str, words: int, target: str | None = None) -> Prompt:
    content = [{"type": "text", "text": "which " * words}]
    return Prompt(uid=uid, messages=({"role": "user", "content": content},), media=(), target=target)


def test_a_completion_must_fit_behind_the_longest_prompt(encoder: PromptEncoder) -> None:
    prompts = [_prompt("short", 5), _prompt("long", 50)]
    longest = len(encoder.encode(prompts[1]).prompt_ids)
    room = _POSITIONS - longest
    config = _config(encoder, "stable_reinforce", "--rollout.max_new_tokens", str(room))
    assert check_lengths(config, encoder, prompts) == longest
    _, plan = plan_run(config)
    spec = following_engine_spec(config, plan, encoder, longest_prompt=longest, max_images=0)
    assert spec.max_model_len == _POSITIONS, "an engine refuses to start with one more"
    with pytest.raises(RefusedInput) as refused:
        check_lengths(_config(encoder, "stable_reinforce", "--rollout.max_new_tokens", str(room + 1)), encoder, prompts)
    assert str(refused.value) == (
        f"the longest prompt ({longest} tokens) + rollout.max_new_tokens = {room + 1} is more than the model's "
        f"max_position_embeddings = {_POSITIONS}"
    )


def test_a_probe_must_fit_too_where_prompts_are_probes(encoder: PromptEncoder) -> None:
    config = _config(encoder, "stable_reinforce", "--rollout.max_new_tokens", "2")
    longest = _POSITIONS - PROBE_LENGTH + 1
    check_positions(config, encoder, longest - 1)
    with pytest.raises(RefusedInput, match=rf"\({longest} tokens\) \+ the {PROBE_LENGTH} tokens by which"):
        check_positions(config, encoder, longest)
    check_positions(config, encoder, _POSITIONS - 2, probed=False)


def test_a_demonstration_must_fit_whole(encoder: PromptEncoder) -> None:
    config = _config(encoder, "sft", "--rollout.max_new_tokens", "8")
    fits, beyond = _prompt("fits", 5, "which " * 100), _prompt("beyond", 5, "which " * _POSITIONS)
    check_lengths(config, encoder, [fits])
    with pytest.raises(RefusedInput, match=r"1 of 2 demonstrations .* max_position_embeddings = 1024; .* row beyond"):
        check_lengths(config, encoder, [fits, beyond])
    narrow = _config(encoder, "sft", "--rollout.max_new_tokens", "8", "--policy.tokens_per_microbatch", "64")
    with pytest.raises(RefusedInput, match=r"longer than policy\.tokens_per_microbatch = 64; .* row fits"):
        check_lengths(narrow, encoder, [fits])
