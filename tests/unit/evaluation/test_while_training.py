"""Benchmarks that a run is measured on: which rows, which figures, and what is refused; engines are stood in for."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.config import TrainConfig, load_config
from orchestrator.errors import RefusedInput
from orchestrator.evaluation.benchmarks.registry import BENCHMARKS
from orchestrator.evaluation.benchmarks.usable import check_benchmarks, drawn_items
from orchestrator.evaluation.while_training import RunBenchmark, change_lines, read_benchmarks
from orchestrator.run.metrics import metrics_row
from orchestrator.training.figures import check_best
from tests.unit.evaluation.letters import Letters, letter_sampler
from tests.unit.evaluation.released_files import cell, jsonl, parquet, read, save, text_png, tsv
from workers.types import GenerationRequest

Says = Callable[[str, GenerationRequest], str]


def _config(tmp_path: Path, tables: str, *flags: str, algo: str = "grpo") -> TrainConfig:
    file = tmp_path / "run.toml"
    file.write_text(tables)
    own = ["--algo", algo, "--model.path", "model", "--data.path", "rows.jsonl", "--config", str(file)]
    return load_config([*own, *flags])[0]


def _table(name: str, path: Path, *more: str) -> str:
    return "\n".join(["[[eval.benchmark]]", f'name = "{name}"', f'path = "{path}"', *more, ""])


def _pairs(folder: Path, count: int = 6) -> Path:
    """The better response is "good", listed first in even rows; ids repeat."""
    rows = [
        {
            "id": f"RLAIF-V-{i % 2}",
            "query": f"q{i} ?",
            "response": ["bad", "good"] if i % 2 else ["good", "bad"],
            "human_ranking": [1, 0] if i % 2 else [0, 1],
            "image": cell(i % 3),
        }
        for i in range(count)
    ]
    return parquet(folder / "v.parquet", *rows)


def _pope(folder: Path) -> Path:
    save(folder / "a.png")
    rows = [
        {"question_id": i, "image": "a.png", "text": f"Is there a {word} ?", "label": label}
        for i, (word, label) in enumerate([("dog", "yes"), ("cat", "no"), ("cow", "yes"), ("hen", "no")])
    ]
    return jsonl(folder / "pope" / "rows.json", *rows)


def _read(config: TrainConfig, tmp_path: Path) -> list[RunBenchmark]:
    return read_benchmarks(config, Letters(), most=None, pictures=tmp_path / "pictures")


def test_strict_figures_have_the_benchmarks_name(tmp_path: Path) -> None:
    template = tmp_path / "t.txt"
    template.write_text("{question} 1 {first} 2 {second}")
    tables = _table("vl_reward_bench", _pairs(tmp_path), f'template = "{template}"')
    tables += _table("pope", _pope(tmp_path), f'media_root = "{tmp_path}"')
    pairs, pope = _read(_config(tmp_path, tables), tmp_path)

    always_first = pairs.figures(letter_sampler(lambda asked, request: "<answer>1</answer>"), Letters())
    assert always_first["eval/vl_reward_bench/accuracy"] == 0.5
    assert always_first["eval/vl_reward_bench/first_position"] == 1.0
    assert always_first["eval/vl_reward_bench/unreadable"] == 0.0

    def looks(asked: str, request: GenerationRequest) -> str:
        return f"<answer>{1 if asked.index('good') < asked.index('bad') else 2}</answer>"

    right = pairs.figures(letter_sampler(looks), Letters())
    assert (right["eval/vl_reward_bench/accuracy"], right["eval/vl_reward_bench/first_position"]) == (1.0, 0.5)
    assert right["eval/vl_reward_bench/accuracy/hallucination"] == 1.0

    answers = pope.figures(letter_sampler(lambda asked, request: "yes" if "dog" in asked else "?"), Letters())
    assert answers["eval/pope/accuracy"] == 0.25 and answers["eval/pope/unreadable"] == 0.75
    for figures in (always_first, right, answers):
        assert set(metrics_row(figures)) >= set(figures)


def test_a_share_of_nothing_is_left_out_and_still_declared(tmp_path: Path) -> None:
    (pairs,) = _read(_config(tmp_path, _table("vl_reward_bench", _pairs(tmp_path))), tmp_path)
    nonsense = pairs.figures(letter_sampler(lambda asked, request: "?"), Letters())
    assert nonsense["eval/vl_reward_bench/unreadable"] == 1.0
    assert "eval/vl_reward_bench/first_position" not in nonsense
    declared = {figure.name: figure for figure in pairs.declared()}
    assert set(nonsense) < set(declared) and "eval/vl_reward_bench/first_position" in declared
    drawn = [name.rpartition("/")[2] for name, figure in declared.items() if figure.title]
    assert drawn == ["accuracy", "unreadable", "first_position"]


def test_categories_are_named_as_rows_of_metrics_allow_and_never_as_another(tmp_path: Path) -> None:
    rows = [
        {"question_id": f"{i}", "question": "q ?", "answer": "A", "A": "a", "B": "b", "category": category,
         "index": i, "image": text_png(i)}
        for i, category in enumerate(["Art & Design", "数学", "物理"])
    ]  # fmt: skip
    (found,) = _read(_config(tmp_path, _table("seed_bench", tsv(tmp_path / "s.tsv", *rows))), tmp_path)
    names = [figure.name for figure in found.declared()]
    assert "eval/seed_bench/accuracy/art_design" in names
    assert len(set(names)) == len(names) == 5 and metrics_row(dict.fromkeys(names, 0.0))
    rows[1]["category"] = "art-design"
    with pytest.raises(RefusedInput, match=r"'seed_bench': two of its figures have one name, of accuracy, "):
        _read(_config(tmp_path, _table("seed_bench", tsv(tmp_path / "t.tsv", *rows))), tmp_path)


def test_every_answer_is_greedy_and_asked_in_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.evaluation.benchmarks.asking._SHARD_SAMPLES", 256)
    (pairs,) = _read(_config(tmp_path, _table("vl_reward_bench", _pairs(tmp_path, 200))), tmp_path)
    shards: list[int] = []
    greedy: set[float] = set()

    def sample(requests: Sequence[GenerationRequest]) -> list[Any]:
        shards.append(len(requests))
        greedy.update(request.temperature for request in requests)
        return letter_sampler(lambda asked, request: "<answer>2</answer>")(requests)

    first, second = pairs.figures(sample, Letters()), pairs.figures(sample, Letters())
    assert first == second and greedy == {0.0}
    assert shards == [256, 144] * 2


def test_rows_are_drawn_by_the_seed_and_not_the_first(tmp_path: Path) -> None:
    items = read("vl_reward_bench", _pairs(tmp_path, 60)).items
    drawn = [[item.row for item in drawn_items(items, 10, seed=seed, name="x")] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn[0] == sorted(set(drawn[0])) != list(range(1, 11)) and len(drawn[0]) == 10
    assert drawn_items(items, 60, seed=0, name="x") == drawn_items(items, None, seed=0, name="x") == items


def test_what_belongs_together_is_drawn_together(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    rows = [
        {"question_id": f"color/{i}.png", "question": f"q{i}{label}", "answer": label, "category": "color",
         "image": cell(i)}
        for i in range(8) for label in ("Yes", "No")
    ]  # fmt: skip
    file = parquet(tmp_path / "mme.parquet", *rows)
    (mme,) = _read(_config(tmp_path, _table("mme", file, "rows = 7")), tmp_path)
    assert len(mme.items) == 6 and len({item.group for item in mme.items}) == 3
    assert next(mme.lines()) == "benchmark mme: 6 of 16 rows, 6 questions at every evaluation"
    with pytest.raises(RefusedInput, match=r"'mme': rows = 1 is less than what belongs together"):
        _read(_config(tmp_path, _table("mme", file, "rows = 1")), tmp_path)


def test_what_engines_of_a_run_cannot_answer_is_refused_in_a_sentence(tmp_path: Path) -> None:
    def refused(name: str, algo: str = "grpo", *more: str) -> str:
        with pytest.raises(RefusedInput) as caught:
            check_benchmarks(_config(tmp_path, _table(name, tmp_path / "f", *more), algo=algo))
        return str(caught.value)

    assert "'mmhal' is rated by a judge, whom a run does not ask" in refused("mmhal")
    assert "'reward_bench_2' is of rewards" in refused("reward_bench_2")
    assert "algo = 'dpo' on stored responses has none" in refused("pope", "dpo")
    assert refused("popes").startswith("benchmark = 'popes': expected one of")
    assert "template 'none.txt' cannot be read" in refused("vl_reward_bench", "grpo", 'template = "none.txt"')
    for algo in ("stable_reinforce", "sft", "distill"):
        check_benchmarks(_config(tmp_path, _table("pope", tmp_path / "f"), *_OWN.get(algo, ()), algo=algo))


_OWN = {"distill": ("--distill.teacher_path", "teacher")}


def test_two_tables_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedInput, match=r"eval.benchmark has the name 'pope' twice"):
        _config(tmp_path, _table("pope", tmp_path) * 2)
    with pytest.raises(RefusedInput, match=r"rows"):
        _config(tmp_path, _table("pope", tmp_path, "rows = 0"))


def test_the_best_is_a_figure_that_there_is(tmp_path: Path) -> None:
    table = _table("vl_reward_bench", _pairs(tmp_path))

    def best(figure: str) -> TrainConfig:
        return _config(tmp_path, table, "--eval.best", figure)

    check_best(best("eval/vl_reward_bench/accuracy/hallucination"))
    _read(best("eval/vl_reward_bench/accuracy/hallucination"), tmp_path)
    _read(best("eval/accuracy"), tmp_path)
    for name in ("first_position", "unreadable"):
        with pytest.raises(RefusedInput, match=f"{name}' is no figure of this run's evaluations"):
            check_best(best(f"eval/vl_reward_bench/{name}"))
    with pytest.raises(RefusedInput, match=r"acuracy' is no figure of benchmark vl_reward_bench: eval/vl_rew\w+/acc"):
        _read(best("eval/vl_reward_bench/acuracy"), tmp_path)
    with pytest.raises(RefusedInput, match=r"eval/pope/accuracy' is no figure of this run's"):
        check_best(best("eval/pope/accuracy"))


def test_rows_that_cannot_be_asked_are_refused_before_the_run(tmp_path: Path) -> None:
    config = _config(tmp_path, _table("vl_reward_bench", _pairs(tmp_path)))
    with pytest.raises(RefusedInput, match=r"6 rows of .* cannot be asked; row 1: .* are more than 9"):
        read_benchmarks(config, Letters(), most=9, pictures=tmp_path / "pictures")


def test_the_summary_says_what_became_of_the_first_figure(tmp_path: Path) -> None:
    measured = _read(_config(tmp_path, _table("vl_reward_bench", _pairs(tmp_path))), tmp_path)
    before, after = {"eval/vl_reward_bench/accuracy": 0.5}, {"eval/vl_reward_bench/accuracy": 0.75}
    assert list(change_lines(measured, before, after)) == [
        "Benchmark vl_reward_bench accuracy: 0.500 before, 0.750 after, on 6 rows"
    ]
    assert list(change_lines(measured, {}, after)) == []


def test_names_of_benchmarks_can_stand_in_names_of_figures() -> None:
    assert metrics_row({f"eval/{name}/accuracy": float(np.pi) for name in BENCHMARKS})
