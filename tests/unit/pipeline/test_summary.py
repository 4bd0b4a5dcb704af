"""The closing summary says what a person needs, in the model's own words, unharmed."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.evaluation.types import EvalResult, EvalSample
from orchestrator.pipeline.summary import chosen_samples, model_line, next_lines, print_summary
from workers.models.adapters import ADAPTERS, ModelAdapter


def _sample(uid: str, verdict: str | None, *, label: str = "1", text: str = "it is nine") -> EvalSample:
    return EvalSample(
        uid=uid,
        prompt_text=f"[image] which names {uid} ?",
        completion_text=text,
        verdict=verdict,
        label=label,
        right=verdict == label,
    )


def _result(*samples: EvalSample, accuracy: float, shuffled: float | None = 0.508) -> EvalResult:
    return EvalResult(
        accuracy=accuracy,
        accuracy_shuffled_images=shuffled,
        first_position_rate=0.495,
        num_pairs=512,
        samples=samples,
    )


_BEFORE = _result(
    _sample("a", "1"),
    _sample("b", "2"),
    _sample("c", None, text="[/bold] [red]no idea"),
    _sample("d", "1"),
    accuracy=0.578,
)
_AFTER = _result(_sample("a", "1"), _sample("b", "1"), _sample("c", "1"), _sample("d", "2"), accuracy=0.945)


def _printed(capsys: pytest.CaptureFixture[str], before: EvalResult | None, after: EvalResult | None) -> str:
    print_summary(before, after, Path("runs/stable_reinforce"))
    return capsys.readouterr().out


def test_it_states_accuracy_control_changes_and_where_the_run_lies(capsys: pytest.CaptureFixture[str]) -> None:
    text = _printed(capsys, _BEFORE, _AFTER)
    for sentence in (
        "Held-out accuracy 0.578 before, 0.945 after, on 512 pairs (chance 0.500)",
        "With the images shuffled among the pairs: 0.508 (a judge that looks falls to 0.500)",
        "It chooses the response shown first in 49.5% of the pairs.",
        "2 judgements turned from wrong to right, 1 from right to wrong.",
        "The run:  runs/stable_reinforce",
        "python -m orchestrator.report runs/stable_reinforce",
    ):
        assert sentence in text


def test_brackets_in_prompts_and_completions_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    text = _printed(capsys, _BEFORE, _AFTER)
    assert "[image] which names c ?" in text and "[/bold] [red]no idea" in text


def test_each_verdict_shown_is_marked_right_or_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [line for line in _printed(capsys, _BEFORE, _AFTER).splitlines() if "verdict" in line]
    assert [(line.count("right"), line.count("wrong")) for line in rows] == [(1, 1), (1, 1), (1, 1)]
    assert "no clear verdict: wrong" in "".join(rows)


def test_three_pairs_are_chosen_changed_ones_first_good_or_bad() -> None:
    assert [old.uid for old, _ in chosen_samples(_BEFORE, _AFTER)] == ["b", "c", "d"]
    assert [old.uid for old, _ in chosen_samples(_BEFORE, _BEFORE)] == ["a", "b", "c"]


def test_an_unclear_verdict_is_not_right_where_a_row_has_no_label(capsys: pytest.CaptureFixture[str]) -> None:
    result = _result(replace(_sample("e", None), label=None), accuracy=0.0)
    text = _printed(capsys, result, result)
    assert text.count("no clear verdict: wrong") == 2


def test_without_held_out_data_it_still_says_where_the_run_lies(capsys: pytest.CaptureFixture[str]) -> None:
    text = _printed(capsys, None, None)
    assert "The run:  runs/stable_reinforce" in text and "accuracy" not in text


def test_a_control_that_was_not_measured_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    text = _printed(capsys, _BEFORE, replace(_AFTER, accuracy_shuffled_images=None))
    assert "shuffled" not in text and "0.945" in text


def test_in_a_log_it_is_free_of_control_codes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b" not in _printed(capsys, _BEFORE, _AFTER)


def test_what_to_do_next_names_only_what_there_is(tmp_path: Path) -> None:
    folder = tmp_path / "my run"
    folder.mkdir()
    assert next_lines(folder) == [f"The run:  {folder}", f"Report:   python -m orchestrator.report '{folder}'"]
    (folder / "tensorboard").mkdir()
    for step in (10, 20):
        (folder / "checkpoints" / f"step_{step:06d}").mkdir(parents=True)
    policy = folder / "checkpoints" / "step_000010" / "policy"
    policy.mkdir()
    (policy / "config.json").write_text('{"model_type": "llava"}')
    (policy.parent / "manifest.json").write_text("{}")
    curves, model = next_lines(folder)[2:]
    assert curves == f"Curves:   tensorboard --logdir '{folder / 'tensorboard'}'"
    assert model == f"Model:    {policy} (transformers and vLLM load it)"


@pytest.mark.parametrize("family", [a for a in ADAPTERS.values() if not a.remote_code], ids=lambda a: a.model_type)
def test_vllm_is_named_where_it_serves_the_model(family: ModelAdapter, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family.model_type}))
    told = "transformers and vLLM load it" if family.vllm else "transformers loads it, vLLM does not serve it"
    assert model_line(tmp_path) == f"Model:    {tmp_path} ({told})"


def test_a_reward_model_is_not_offered_to_vllm(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llava"}')
    (tmp_path / "reward_head").mkdir()
    (tmp_path / "reward_head" / "config.json").write_text('{"kind": "linear", "request": null}')
    told = "a reward model: its scalar head is in reward_head"
    assert model_line(tmp_path) == f"Model:    {tmp_path} ({told})"


def test_a_reward_model_that_was_exported_is(tmp_path: Path) -> None:
    config = {"model_type": "llava", "architectures": ["LlavaForSequenceClassification"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "reward_head").mkdir()
    (tmp_path / "reward_head" / "config.json").write_text('{"kind": "linear", "request": null}')
    told = "a reward model: its scalar head is in reward_head; vllm serve gives its rewards"
    assert model_line(tmp_path) == f"Model:    {tmp_path} ({told})"


def test_an_adapter_is_not_called_a_model(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoints" / "step_000010"
    (checkpoint / "policy").mkdir(parents=True)
    (checkpoint / "policy" / "adapter_config.json").write_text("{}")
    (checkpoint / "manifest.json").write_text("{}")
    adapter, model = next_lines(tmp_path)[2:]
    assert adapter == f"Adapter:  {checkpoint / 'policy'} (peft loads it)"
    assert model.startswith(f"Model:    python -m orchestrator.export {tmp_path} ")
