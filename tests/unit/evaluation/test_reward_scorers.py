"""Reward models as scorers: what a folder is, what each is asked, and what becomes of a reward that is none."""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from algorithms.records import Sequence as TokenSequence
from orchestrator.cluster.microbatches import Deal
from orchestrator.config.load import load_config
from orchestrator.errors import RefusedInput
from orchestrator.evaluate import main
from orchestrator.evaluation.benchmarks.asking import AskOptions
from orchestrator.evaluation.benchmarks.items import Asks
from orchestrator.evaluation.predictions import read_predictions
from orchestrator.evaluation.scorers.choice import ScorerKind, asks_of, kind_of, scorer_of
from orchestrator.run.folder import RunFolder
from tests.critique_models import write_critique_model
from tests.unit.evaluation.released_files import cell, jsonl, parquet, save, text_png, tsv
from tests.unit.rewards.fake_workers import FakeWorkers
from workers.models.reward_head import save_reward_head
from workers.multimodal.prompt_encoder import PromptEncoder

_LONGER: Callable[[TokenSequence], float] = lambda sequence: float(len(sequence.input_ids))  # noqa: E731


@pytest.fixture(scope="module")
def critique_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_critique_model(tmp_path_factory.mktemp("reward_scorers") / "critique")


@pytest.fixture(scope="module")
def scalar_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_critique_model(tmp_path_factory.mktemp("reward_scorers") / "scalar")
    save_reward_head("linear", {"weight": torch.ones(1, 64)}, folder, request=None)
    return folder


class _Workers(FakeWorkers):
    """Of either role, behind a pool that is none."""

    def __init__(self, patch: pytest.MonkeyPatch, **rules: Any) -> None:
        super().__init__(**rules)
        self.num_started = 0
        patch.setattr("orchestrator.evaluation.scorers.scorer.ray_cluster", self._nothing)
        patch.setattr("orchestrator.evaluation.scorers.scalar.worker_pool", self._pool)
        patch.setattr("orchestrator.evaluation.scorers.likelihood.worker_pool", self._pool)
        patch.setattr("orchestrator.rewards.critique_service.worker_pool", self._pool)

    def start(self, spec: object) -> None:
        self.num_started += 1

    @contextmanager
    def _nothing(self, plan: object) -> Iterator[None]:
        yield

    @contextmanager
    def _pool(self, config: object, plan: object, spec: object) -> Iterator[SimpleNamespace]:
        assert spec is None, "engines of the rollout role are none of its business"
        yield SimpleNamespace(role=lambda name: self)


def _pairs(folder: Path) -> Path:
    """Three pairs about two images; the better response is longer, shorter and as long."""
    said = [(["it is one .", "one"], [0, 1]), (["it is one .", "two"], [1, 0]), (["one", "two"], [0, 1])]
    rows = [
        {"id": f"mathverse_{i}", "query": "which digit ?", "response": r, "human_ranking": h, "image": cell(i // 2)}
        for i, (r, h) in enumerate(said)
    ]
    return parquet(folder / "v.parquet", *rows)


def _measure(name: str, model: Path, data: Path, out: Path, *more: str) -> int:
    return main(["--benchmark", name, "--model", str(model), "--data", str(data), "--out", str(out), *more])


def _told(out: Path) -> dict[str, Any]:
    return json.loads((out / "scores.json").read_text())


def test_a_scalar_reward_model_says_which_is_better_by_its_rewards(
    scalar_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    workers, out = _Workers(monkeypatch, reward=_LONGER), tmp_path / "out"
    assert _measure("vl_reward_bench", scalar_model, _pairs(tmp_path), out) == 0
    assert f"{scalar_model} is asked as a scalar reward model: --scorer scalar" in capsys.readouterr().err
    assert [len(p.rewards) for p in read_predictions(out / "predictions.parquet")] == [2, 2, 2]
    strict = _told(out)["ways"]["strict"]
    assert strict["figures"]["accuracy"]["value"] == pytest.approx(1 / 3)
    assert strict["counts"] == {"rows": 3, "undecided": 1}
    # The rows about the same image share their prompt, and what they both ask about is asked about once.
    assert len({s.uid for s in workers.scored}) == 2 and len(workers.scored) == 5
    before = len(workers.scored)
    assert _measure("vl_reward_bench", scalar_model, _pairs(tmp_path), out) == 0
    assert (len(workers.scored), workers.num_started) == (before, 1)


def test_rewards_that_are_none_are_undecided_counted_and_told(
    scalar_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _Workers(monkeypatch, reward=lambda sequence: math.nan if sequence.sample_index == 0 else 1.0)
    assert _measure("vl_reward_bench", scalar_model, _pairs(tmp_path), tmp_path / "out") == 0
    found = read_predictions(tmp_path / "out" / "predictions.parquet")
    assert math.isnan(found[0].rewards[0]) and found[0].status == "answered"
    told = _told(tmp_path / "out")
    assert told["ways"]["strict"]["counts"]["undecided"] == 3
    assert told["notes"] == ["2 responses have no reward; the first is in row 1, 1: its reward is nan"]
    assert "2 responses have no reward" in capsys.readouterr().out


def test_a_critique_reward_model_writes_of_each_response_first_and_that_is_kept(
    critique_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (one,) = PromptEncoder(critique_model).encode_text("one")
    workers = _Workers(
        monkeypatch, reward=_LONGER, end=one, finish=lambda r: "length" if len(r.prompt_ids) % 2 else "stop"
    )
    bound = ("--reward.critique.max_new_tokens", "8")
    assert _measure("vl_reward_bench", critique_model, _pairs(tmp_path), tmp_path / "out", *bound) == 0
    assert "is asked as a critique reward model: --scorer critique" in capsys.readouterr().err
    found = read_predictions(tmp_path / "out" / "predictions.parquet")
    assert {p.text for p in found} == {"1: one\n\n2: one"}
    cut = [math.isnan(reward) for p in found for reward in p.rewards]
    assert 0 < sum(cut) < len(cut)
    for p in found:
        assert p.finish_reason == "; ".join(f"{i}: cut" for i, r in enumerate(p.rewards, start=1) if math.isnan(r))
    assert len(workers.requests) == 5, "equal questions are asked once"
    longer = ("--reward.critique.max_new_tokens", "9")
    assert _measure("vl_reward_bench", critique_model, _pairs(tmp_path), tmp_path / "out", *longer) == 2
    assert "holds answers made with max_new_tokens = 8, now it is 9" in capsys.readouterr().err


def test_responses_with_images_are_refused_by_row_not_shown_without_them(
    scalar_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    workers = _Workers(monkeypatch)
    row = {"pair_id": "p", "prompt_text": "which digit ?", "chosen": "A", "response_b_text": "two"}
    file = parquet(
        tmp_path / "edit" / "test.parquet",
        {**row, "response_a_text": "one", "response_a_images": []},
        {**row, "response_a_text": "one", "response_a_images": [cell(3)]},
    )
    assert _measure("multimodal_reward_bench_2", scalar_model, file, tmp_path / "out") == 2
    told = capsys.readouterr().err
    assert (
        "1 rows of" in told and "row 2: its responses hold images, and a reward model reads responses of text" in told
    )
    assert workers.num_started == 0


@pytest.mark.parametrize("kind", ["scalar", "critique", "generative"])
def test_scorers_know_whether_pictures_are_resized(
    kind: ScorerKind, scalar_model: Path, critique_model: Path, tmp_path: Path
) -> None:
    asks: Asks = "likelihoods" if kind == "generative" else "rewards"
    path = str(scalar_model if kind == "scalar" else critique_model)
    flags = ["--algo", "sft", "--model.path", path, "--data.path", "x", "--data.max_pixels", "10000"]
    flags += ["--reward.critique.max_new_tokens", "16"]
    bounds = []
    for oversize in ("resize", "refuse"):
        config, _ = load_config([*flags, "--data.oversize", oversize])
        scorer = scorer_of(kind, config, AskOptions(request=""), asks=asks, folder=RunFolder(tmp_path))
        bounds.append(scorer.made_from()["max_pixels"])
    assert bounds == [10000, None]


def test_judgements_are_not_asked_of_a_reward_model(
    scalar_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    workers = _Workers(monkeypatch)
    row = {"message": [{"role": "user", "content": "one or two ?"}], "question": "which ?", "answer": "1"}
    assert _measure("judgements", scalar_model, jsonl(tmp_path / "j.jsonl", row), tmp_path / "out") == 2
    assert "row 1: it has no responses apart from its question, which shows both" in capsys.readouterr().err
    assert workers.num_started == 0


def test_a_ranking_of_texts_is_asked_of_a_reward_model(
    scalar_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _Workers(monkeypatch, reward=_LONGER)
    row = {"prompt": "which digit ?", "num_correct": 1, "subset": "Math"}
    wrong = ["one", "two", "it"]
    file = parquet(
        tmp_path / "r.parquet",
        {**row, "id": "1", "chosen": ["it is one ."], "rejected": wrong},
        {**row, "id": "2", "chosen": ["one"], "rejected": ["two", "it", "it is two ."]},
        {**row, "id": "ref:7", "chosen": ["it is one ."], "rejected": wrong, "subset": "Ties"},
        {**row, "id": "tied:7", "chosen": ["it is one .", "it is two ."], "rejected": wrong, "subset": "Ties"},
    )
    assert _measure("reward_bench_2", scalar_model, file, tmp_path / "out") == 0
    figures = {name: one["value"] for name, one in _told(tmp_path / "out")["ways"]["strict"]["figures"].items()}
    assert figures["score/Math"] == 0.5
    # Right responses of equal rewards: the lead is infinitely larger than their spread.
    assert figures["score/Ties"] == pytest.approx(1.01)
    assert figures["score"] == pytest.approx((0.5 + 1.01) / 2)


def test_a_response_has_one_reward_in_all_its_pairs(
    scalar_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An instruction of three responses, of which the worst two change places, and one of two."""
    tokens = PromptEncoder(scalar_model).tokenizer.convert_tokens_to_ids
    worth = {tokens(word): value for word, value in {"one": 3, "two": 1, "three": 2, "it": 0.5, "no": -0.5}.items()}
    workers = _Workers(monkeypatch, reward=lambda sequence: worth[int(sequence.input_ids[-2])])
    for name in ("mcq/a.png", "short/belong.png"):
        save(tmp_path / name)
    three = [("one", "two"), ("one", "three"), ("two", "three")]
    rows = [{"id": "q1", "image": "mcq/a.png", "prompt": "which digit ?", "chosen": c, "rejected": r} for c, r in three]
    rows += [{**rows[0], "id": "q2", "image": "short/belong.png", "chosen": "it", "rejected": "no"}]
    file = jsonl(tmp_path / "pairs.jsonl", *rows)
    assert _measure("mm_rlhf_reward_bench", scalar_model, file, tmp_path / "out") == 0
    assert [p.rewards for p in read_predictions(tmp_path / "out" / "predictions.parquet")] == [
        (3.0, 1.0),
        (3.0, 2.0),
        (1.0, 2.0),
        (0.5, -0.5),
    ]
    figures = {name: one["value"] for name, one in _told(tmp_path / "out")["ways"]["strict"]["figures"].items()}
    assert (figures["accuracy"], figures["accuracy_plus"]) == (0.75, 0.5)
    assert (figures["accuracy/mcq"], figures["accuracy/short"]) == (pytest.approx(2 / 3), 1.0)
    assert len(workers.scored) == 5


def test_options_are_compared_by_the_mean_over_their_own_words(
    scalar_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = PromptEncoder(scalar_model)
    (one,) = encoder.encode_text("one")

    class _Reference(_Workers):
        """To whom "one" is likely, and all of the prompt is not."""

        def each(self, method: str, items: Sequence[Any], *, deadline_s: float, deal: Deal | None = None) -> list[Any]:
            assert method == "score"
            self.scored += items
            likely = [np.where(s.input_ids == one, -1.0, -4.0).astype(np.float32) for s in items]
            for sequence, scores in zip(items, likely, strict=True):
                scores[: sequence.prompt_len] = -100.0
            return likely

    workers, out = _Reference(monkeypatch), tmp_path / "out"
    row = {"index": 1, "question": "which digit ?", "category": "t", "image": text_png(1), "answer": "B"}
    options = {"A": "it is two .", "B": "one", "C": "two", "D": "it is one ."}
    file = tsv(tmp_path / "s.tsv", {**row, **options}, {**row, **options, "answer": "D"})
    more = ("--scorer", "generative")
    assert _measure("seed_bench_likelihood", scalar_model, file, out, *more) == 0
    assert _told(out)["ways"]["strict"]["figures"]["accuracy"]["value"] == 0.5
    first = workers.scored[1]
    words = encoder.encode_text("The answer is: one")
    assert tuple(first.input_ids[first.prompt_len :]) == words
    asked = encoder.decode(first.input_ids[: first.prompt_len])
    assert "which digit ?" in asked and "two" not in asked
    (found, _) = read_predictions(out / "predictions.parquet")
    assert found.rewards[1] == pytest.approx((-4.0 * (len(words) - 1) - 1.0) / len(words))
    bound = ("--policy.tokens_per_microbatch", str(len(first.input_ids)))
    assert _measure("seed_bench_likelihood", scalar_model, file, tmp_path / "short", *more, *bound) == 0
    assert "4 responses have no likelihood; the first is in row 1, 1: it has" in capsys.readouterr().out
    assert _measure("seed_bench_likelihood", scalar_model, file, tmp_path / "no") == 2
    assert "is of likelihoods, and a scalar reward model gives none" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--votes", "3"), "votes = 3: expected an odd number, and verdicts on a benchmark of pairs"),
        (("--order", "one"), "order = 'one' says how a verdict is asked for"),
        (("--scorer", "critique"), "is no critique reward model (no request in reward_head/config.json)"),
    ],
)
def test_what_a_reward_model_has_no_use_for_is_refused(
    scalar_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], message: str
) -> None:
    assert _measure("vl_reward_bench", scalar_model, _pairs(tmp_path), tmp_path / "out", *more) == 2
    assert message in capsys.readouterr().err


def test_a_reward_model_gives_no_answers(
    scalar_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "a.png")
    file = jsonl(tmp_path / "p.json", {"question_id": 1, "image": "a.png", "text": "Is it ?", "label": "no"})
    assert _measure("pope", scalar_model, file, tmp_path / "out") == 2
    assert "pope is of answers, and a scalar reward model gives none" in capsys.readouterr().err


def _head(folder: Path, said: str) -> str:
    (folder / "reward_head").mkdir(parents=True)
    (folder / "reward_head" / "config.json").write_text(said)
    return str(folder)


def test_a_folder_is_what_its_head_says(tmp_path: Path) -> None:
    scalar = _head(tmp_path / "s", '{"kind": "linear", "request": null}')
    critique = _head(tmp_path / "c", '{"kind": "linear", "request": "Judge."}')
    facts = _head(tmp_path / "f", '{"kind": "linear", "request": "{facts}", "opening": "It is"}')
    assert [kind_of(folder) for folder in (str(tmp_path), scalar, critique)] == ["generative", "scalar", "critique"]
    assert kind_of(critique, "generative") == "generative"
    for folder, asked, message in (
        (critique, "scalar", "is a critique reward model, which has to write first"),
        (facts, None, "is told facts, as fact_rm trains one, and a benchmark has none"),
        (facts, "critique", "is told facts, as fact_rm trains one"),
        (_head(tmp_path / "broken", "[]"), None, "what is said of its reward head cannot be read"),
        (_head(tmp_path / "cut", "{"), "scalar", "what is said of its reward head cannot be read"),
    ):
        with pytest.raises(RefusedInput, match=message):
            kind_of(folder, asked)  # type: ignore[arg-type]


def test_pairs_are_asked_of_everybody_and_answers_and_rewards_of_those_who_give_them() -> None:
    assert asks_of("verdict", "scalar", benchmark="b") == "rewards"
    assert asks_of("rewards", "critique", benchmark="b") == "rewards"
    assert [asks_of(asks, "generative", benchmark="b") for asks in ("answer", "verdict")] == ["answer", "verdict"]
