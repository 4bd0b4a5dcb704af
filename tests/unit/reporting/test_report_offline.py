"""The report of a run that learns from a preference store says what such a run has, and nothing that it cannot have."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from algorithms.registry import ALGORITHMS
from orchestrator.config.load import load_config
from orchestrator.report import write_report
from orchestrator.reporting.choice_of_kind import kind_of
from orchestrator.reporting.curves import phase_seconds
from orchestrator.reporting.findings import Check
from orchestrator.reporting.offline_run import offline_run
from orchestrator.reporting.online_run import COLD_START
from orchestrator.reporting.page import render
from orchestrator.reporting.run_record import RunRecord, read_run
from orchestrator.training.figures import figures_of
from tests.needs import needs_of

ROOT = Path(__file__).parents[3]
_DATA = ("--data.path", "d.jsonl", "--data.format", "plain_dpo", "--model.path", "m")
_STEPS = 12
_OFFLINE = [name for name in ALGORITHMS if "preferences" in needs_of(name).data]
_OF_PAIRS = [name for name in _OFFLINE if name != "sft"]
_PAIRS, _TOKENS = ["Pair accuracy", "Margin of a pair, reward units"], ["Token accuracy", "Entropy, nats a token"]
_ONLINE_ONLY = ("mismatch", "Engine", "sync", "Judge", "judge", "scored", "rollout", "Completion", "saw and said")


def _held_out(algo: str, *, learnt: bool) -> dict[str, float]:
    if algo == "sft":
        share, logprob = (0.996, -0.02) if learnt else (0.004, -4.05)
        return {"eval/token_accuracy": share, "eval/token_logprob": logprob, "eval/num_tokens": 2268.0}
    share, margin = (0.977, 3.9) if learnt else (0.5, 0.0)
    return {"eval/pair_accuracy": share, "eval/margin": margin, "eval/num_pairs": 1134.0}


def _step(algo: str, step: int) -> dict[str, float]:
    """A row as an offline step writes it."""
    gain, pairs = step / _STEPS, 0.0 if algo in ("sft", "kto") else 96.0
    row = {"policy/loss": 1 - gain, "policy/grad_norm": 1.0, "policy/lr": 1e-3}
    if algo != "scalar_rm":
        row |= {"policy/entropy": 2.0, "policy/token_accuracy": gain}
    if pairs:
        row |= {"preference/num_pairs": pairs, "throughput/pairs_per_s": pairs}
        row |= {"preference/accuracy": gain, "preference/margin": 3 * gain}
    if algo not in ("sft", "kto_pair"):
        row |= {"preference/chosen_reward": gain, "preference/rejected_reward": -2 * gain}
    if algo == "kto":
        row |= {"preference/baseline": 0.1}
    if algo in ("kto", "kto_pair"):
        row |= {"time/baseline_s": 0.1}
    if needs_of(algo).reference:
        row |= {"time/reference_s": 0.2}
    row |= {"data/epoch": 0.0, "data/batch_digest48": 7.0, "data/passed_over": 0.0, "guard/skipped_updates": 0.0}
    row |= {"memory/rss_gib/policy": 1.0, "memory/rss_gib/driver": 1.0, "guard/nonfinite_metrics": 0.0}
    return row | {"time/data_s": 0.1, "time/train_s": 0.5, "time/step_s": 1.0}


def _rows(algo: str) -> list[dict[str, Any]]:
    """Steps 0 to 12 of a run that went well."""
    first = {"step": 0, **_held_out(algo, learnt=False), "guard/nonfinite_metrics": 0.0}
    rows = [{"step": step, **_step(algo, step)} for step in range(1, _STEPS + 1)]
    return [first, *rows[:-1], rows[-1] | _held_out(algo, learnt=True)]


def _run(
    tmp_path: Path,
    algo: str,
    *,
    change: Callable[[list[dict[str, Any]]], object] = lambda rows: None,
    manifest: Mapping[str, object] | None = None,
    dtype: str = "float32",
) -> RunRecord:
    rows = _rows(algo)
    change(rows)
    root = tmp_path / "run"
    (root / "rollouts").mkdir(parents=True, exist_ok=True)
    config = {"algo": algo, "run": {"steps": _STEPS}, "model": {"dtype": dtype}, "data": {"path": "moved/since"}}
    (root / "config.json").write_text(json.dumps(config))
    told = {"num_held_out": 378} if manifest is None else manifest
    figures = [asdict(figure) for figure in figures_of(load_config(["--algo", algo, *_DATA])[0])]
    (root / "manifest.json").write_text(json.dumps({"figures": figures, **told}))
    (root / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_run(root)


def _checks(record: RunRecord) -> list[Check]:
    kind = kind_of(record)
    return [question(record) for question in (*kind.learning, *kind.soundness)]


def _titles(record: RunRecord) -> list[str]:
    return re.findall(r"<figcaption>(.*?)</figcaption>", render(record))


@pytest.mark.parametrize("algo", _OFFLINE)
def test_a_run_that_learned_and_is_sound_is_said_to_be(tmp_path: Path, algo: str) -> None:
    record = _run(tmp_path, algo)
    needs_reference = needs_of(algo).reference
    assert [check.answer for check in _checks(record)] == ["yes"] * (5 + needs_reference)
    assert any("own reference" in check.question for check in _checks(record)) is needs_reference


@pytest.mark.parametrize("algo", _OFFLINE)
def test_nothing_of_an_online_run_is_in_it(tmp_path: Path, algo: str) -> None:
    text = render(_run(tmp_path, algo)).partition("</style>")[2].partition("<details>")[0]
    assert [word for word in _ONLINE_ONLY if word in text] == []


def test_nothing_of_an_offline_run_is_in_an_online_one(tmp_path: Path) -> None:
    record = replace(_run(tmp_path, "dpo"), config={"algo": "stable_reinforce"})
    offline = {check.question for algo in ("dpo", "kto", "sft") for check in _checks(_run(tmp_path, algo))}
    assert {check.question for check in _checks(record)} & offline == {"Every metric was a finite number"}


def test_the_headline_says_what_was_measured_and_on_how_much(tmp_path: Path) -> None:
    kind = offline_run(needs_of("dpo"))
    assert (
        kind.headline(_run(tmp_path, "dpo")) == "Held-out pair accuracy 0.500 → 0.977 on 1134 pairs; chance is 0.500."
    )
    supervised = _run(tmp_path, "sft")
    assert kind_of(supervised).headline(supervised) == "Held-out token accuracy 0.004 → 0.996 on 2268 tokens."
    early = _run(tmp_path, "dpo", change=lambda rows: rows.pop())
    assert kind.headline(early) == "Held-out pair accuracy 0.500 on 1134 pairs at step 0; chance is 0.500."


@pytest.mark.parametrize(("algo", "what"), [("hinge", "pair"), ("kto", "pair"), ("sft", "token")])
def test_a_run_without_held_out_data_says_so_and_draws_no_empty_frame(tmp_path: Path, algo: str, what: str) -> None:
    def without(rows: list[dict[str, Any]]) -> None:
        rows[:] = [{name: value for name, value in row.items() if not name.startswith("eval/")} for row in rows]

    record = _run(tmp_path, algo, change=without, manifest={"num_held_out": 0})
    assert kind_of(record).headline(record) == f"No held-out {what} accuracy has been measured."
    assert _checks(record)[0].answer == "unknown"
    assert "<figcaption>Held-out" not in render(record)


def test_pairs_of_one_instruction_are_not_counted_as_independent(tmp_path: Path) -> None:
    # From 0.50 to 0.56: two standard errors are 2 sqrt((0.25 + 0.2464) / n), 0.042 for 1134 pairs that were
    # independent, 0.072 for the 378 instructions they belong to, 0.059 for 567 instructions.
    def little(rows: list[dict[str, Any]]) -> None:
        rows[-1]["eval/pair_accuracy"] = 0.56

    def known(rows: list[dict[str, Any]]) -> None:
        little(rows)
        rows[-1]["eval/num_instructions"] = 567.0

    by_manifest, by_row, by_pairs = (
        _checks(_run(tmp_path, "dpo", change=change, manifest=manifest))[0]
        for change, manifest in ((little, None), (known, None), (little, {}))
    )
    assert by_manifest.answer == "no" and "0.072, counting 378 instructions" in by_manifest.detail
    assert by_row.answer == "yes" and "0.059, counting 567 instructions" in by_row.detail
    assert by_pairs.answer == "yes" and "0.042, as if the 1134 pairs were independent" in by_pairs.detail


def test_no_more_instructions_are_counted_than_there_are_pairs(tmp_path: Path) -> None:
    accuracy = _checks(_run(tmp_path, "dpo", manifest={"num_held_out": 5000}))[0]
    assert "counting 1134 instructions" in accuracy.detail


@pytest.mark.parametrize("algo", _OF_PAIRS)
def test_a_margin_that_stays_is_no_learning(tmp_path: Path, algo: str) -> None:
    def flat(rows: list[dict[str, Any]]) -> None:
        for row in rows[1:]:
            row |= {name: 1.0 for name in ("preference/margin", "preference/chosen_reward") if name in row}
            row |= {name: 1.0 for name in ("preference/rejected_reward",) if name in row}

    margin = _checks(_run(tmp_path, algo, change=flat))[1]
    assert margin.answer == "no" and "argin" in margin.question


def test_the_margin_of_labelled_responses_is_that_between_the_kinds(tmp_path: Path) -> None:
    # gain - (-2 gain) over steps 1..4 and 9..12 of 12: 3 * 2.5 / 12 and 3 * 10.5 / 12.
    margin = _checks(_run(tmp_path, "kto"))[1]
    assert "first third 0.625, last third 2.625: +2.000" in margin.detail


def test_the_log_prob_of_a_token_is_told_without_a_standard_error(tmp_path: Path) -> None:
    def worse(rows: list[dict[str, Any]]) -> None:
        rows[-1]["eval/token_logprob"] = -5.0

    logprob = _checks(_run(tmp_path, "sft", change=worse))[1]
    assert logprob.answer == "no"
    assert (
        "-4.050 at step 0, -5.000 at step 12: -0.950 nats" in logprob.detail and "no standard error" in logprob.detail
    )


@pytest.mark.parametrize(
    ("steps", "name", "value", "question", "detail"),
    [
        ((5, 9), "data/passed_over", 2.0, "passed over", "4 in 12 steps, the first at step 5"),
        ((7,), "guard/skipped_updates", 1.0, "skipped", "1 in 12 steps, the first at step 7"),
        ((7,), "guard/nonfinite_metrics", 1.0, "finite number", "at step 7"),
        ((0,), "eval/margin", 1.1e-4, "own reference", "1.1e-04 at step 0"),
        ((0,), "eval/margin", -1.1e-4, "own reference", "-1.1e-04 at step 0"),
    ],
)
def test_each_unsound_figure_is_named_with_its_step(
    tmp_path: Path, steps: tuple[int, ...], name: str, value: float, question: str, detail: str
) -> None:
    def spoil(rows: list[dict[str, Any]]) -> None:
        for step in steps:
            rows[step][name] = value

    failed = [check for check in _checks(_run(tmp_path, "ddpo", change=spoil)) if check.answer != "yes"]
    assert [check.answer for check in failed] == ["no"]
    assert question in failed[0].question and detail in failed[0].detail


@pytest.mark.parametrize(
    ("dtype", "margin", "answer"),
    [
        ("float32", 0.9e-4, "yes"),
        ("float32", 1e-2, "no"),
        ("bfloat16", 1e-2, "yes"),
        ("bfloat16", 6e-2, "no"),
        ("auto", 0.9e-4, "yes"),
        ("auto", 1e-2, "unknown"),
        ("auto", 6e-2, "no"),
    ],
)
def test_what_rounding_explains_depends_on_the_number_format(
    tmp_path: Path, dtype: str, margin: float, answer: str
) -> None:
    def start(rows: list[dict[str, Any]]) -> None:
        rows[0]["eval/margin"] = margin

    (check,) = (
        check
        for check in _checks(_run(tmp_path, "dpo", change=start, dtype=dtype))
        if "own reference" in check.question
    )
    assert check.answer == answer


def test_a_margin_that_was_first_measured_later_says_nothing_about_the_start(tmp_path: Path) -> None:
    answers = {c.question: c.answer for c in _checks(_run(tmp_path, "dpo", change=lambda rows: rows.pop(0)))}
    assert answers["It started as its own reference: no margin before the first step"] == "unknown"


@pytest.mark.parametrize(
    ("algo", "own"),
    [
        ("dpo", [*_PAIRS, "Chosen and rejected reward", *_TOKENS, "Pairs a second"]),
        ("kto_pair", [*_PAIRS, *_TOKENS, "Pairs a second"]),
        (
            "kto",
            [*_PAIRS, "Desirable and undesirable reward", "KTO baseline, nats", *_TOKENS],
        ),
        ("sft", ["Token accuracy", "Held-out log-prob of a token, nats", "Entropy, nats a token"]),
    ],
)
def test_each_algorithm_has_its_own_curves(tmp_path: Path, algo: str, own: list[str]) -> None:
    common = ["Gradient norm before clipping", "Policy loss", "Memory, GiB", "Seconds of a step"]
    assert _titles(_run(tmp_path, algo)) == [*own, *common]


@pytest.mark.parametrize(
    ("algo", "phases"),
    [
        ("dpo", {"data": 0.1, "reference": 0.2, "train": 0.5, "other": 0.2}),
        ("kto", {"data": 0.1, "reference": 0.2, "baseline": 0.1, "train": 0.5, "other": 0.1}),
        ("kto_pair", {"data": 0.1, "reference": 0.2, "baseline": 0.1, "train": 0.5, "other": 0.1}),
        ("scalar_rm", {"data": 0.1, "train": 0.5, "other": 0.4}),
        ("sft", {"data": 0.1, "train": 0.5, "other": 0.4}),
    ],
)
def test_the_phases_of_a_step_are_those_the_algorithm_has(tmp_path: Path, algo: str, phases: dict[str, float]) -> None:
    seconds = phase_seconds(_run(tmp_path, algo))
    assert {name: points[-1][1] for name, points in seconds.items()} == pytest.approx(phases)


def test_supervised_learning_is_of_the_kind_its_data_is(tmp_path: Path) -> None:
    def learns(data: Mapping[str, object], rows: tuple[Mapping[str, object], ...]) -> object:
        return kind_of(replace(_run(tmp_path, "sft"), config={"algo": "sft", "data": data}, rows=rows))

    store = offline_run(replace(needs_of("sft"), data=("preferences",)))
    demonstrations = {"path": "demonstrations.jsonl", "format": "r1_reward"}
    assert learns(demonstrations, ({"step": 1, "policy/loss": 1.0},)) is COLD_START
    assert learns(demonstrations, ({"step": 1, "data/epoch": 0.0},)) is store
    assert learns({"path": str(tmp_path), "format": "r1_reward"}, ()) is store
    assert learns({"path": "pairs.json", "format": "plain_dpo"}, ()) is store
    assert learns({}, ()) is COLD_START


def test_the_name_of_the_algorithm_is_found_in_the_manifest_where_the_configuration_is_broken(tmp_path: Path) -> None:
    record = _run(tmp_path, "hinge", manifest={"algo": "hinge"})
    assert "own reference" in render(replace(record, config={}))
    told = kind_of(replace(record, config={"algo": ["hinge"]})).headline(record)
    assert told.startswith("Held-out pair accuracy"), "the rows tell where no name does"


def test_what_a_policy_said_is_shown_where_there_are_samples(tmp_path: Path) -> None:
    record = _run(tmp_path, "dpo")
    assert "What it saw and said" not in render(record)
    record.folder.rollout_file(1).write_bytes(b"")
    assert "What it saw and said" in render(record)


def test_a_run_that_has_not_begun_has_a_report(tmp_path: Path) -> None:
    record = _run(tmp_path, "kto", change=lambda rows: rows.clear())
    text = write_report(record.folder.root).read_text()
    assert "No step is finished yet." in text and "No held-out pair accuracy has been measured." in text
    assert {check.answer for check in _checks(record)} == {"unknown"}
