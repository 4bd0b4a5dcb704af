"""Several sources, mixed by weight: who is drawn when, what a prompt knows, and what makes it another mixture."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.cluster.choices import settled_dtype
from orchestrator.cluster.placement import PlacementPlan
from orchestrator.config import TrainConfig, load_config
from orchestrator.config.data_section import DataSource
from orchestrator.data.prompts import RunData, read_data
from orchestrator.data.recognising import with_format
from orchestrator.errors import RefusedInput
from orchestrator.evaluation.held_out import judged
from orchestrator.run.cursor import PromptCursor, SourceCursor
from orchestrator.run.identity import _mixture, refuse_another
from orchestrator.tasks.digits_model import build_digits_model
from orchestrator.train import main as train
from orchestrator.training.answering import online_identity
from orchestrator.training.session import judged_evaluation
from tests.unit.data.rows import image, row, write_jsonl
from tests.unit.data.rows import picture as write_picture


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(build_digits_model(tmp_path_factory.mktemp("mixture") / "model", seed=0))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    write_picture(tmp_path / "a.png")
    write_jsonl(tmp_path / "maths.jsonl", *({"sum": f"{n} and 1 ?", "answer": str(1 + n % 2)} for n in range(4)))
    write_jsonl(tmp_path / "judged.jsonl", *(row(image("a.png"), answer=["1"]) for _ in range(2)))
    return tmp_path


def _table(files: Path, name: str, file: str, *lines: str) -> str:
    return "\n".join(["[[data.source]]", f'name = "{name}"', f'path = "{files / file}"', *lines, ""])


def _toml(files: Path, *tables: str) -> str:
    (files / "c.toml").write_text("\n".join(tables))
    return str(files / "c.toml")


def _both(files: Path, *, weight: float = 3.0) -> str:
    of_maths = _table(files, "maths", "maths.jsonl", f"weight = {weight}", 'map = { problem = "sum" }')
    eval_path = f'eval_path = "{files / "judged.jsonl"}"'
    return _toml(files, of_maths, _table(files, "judged", "judged.jsonl", eval_path))


def _config(toml: str, model: str, *flags: str, algo: str = "grpo") -> TrainConfig:
    return with_format(load_config(["--algo", algo, "--model.path", model, "--config", toml, *flags])[0])


def _read(files: Path, model: str) -> RunData:
    return read_data(_config(_both(files), model))


def test_every_prompt_knows_its_source_and_each_source_its_format(files: Path, model: str) -> None:
    config = _config(_both(files), model)
    assert [source.format for source in config.data.source] == ["task", "r1_reward"] and config.online
    data = read_data(config)
    assert [p.source for p in data.train.prompts] == ["maths"] * 4 + ["judged"] * 2
    assert [p.uid for p in data.train.prompts][3:5] == ["maths-000004", "judged-000001"]
    assert data.counts.num_by_source == {"maths": 4, "judged": 2} and data.counts.num_train == 6
    assert [(p.source, p.uid) for p in data.held_out] == [("judged", "judged-000001"), ("judged", "judged-000002")]


def test_a_bad_row_is_named_with_its_source(files: Path, model: str) -> None:
    write_jsonl(files / "judged.jsonl", row(image("a.png"), answer=["1"]), row(image("gone.png")))
    with pytest.raises(RefusedInput, match=r"the first is row 2: image 'gone.png' .* \(source 'judged'\)"):
        _read(files, model)
    data = read_data(_config(_both(files), model, "--data.max_bad_frac", "0.5"))
    assert any(line.endswith("(source 'judged')") for line in data.lines()), list(data.lines())


def _cursor(*sources: tuple[int, float], seed: int = 0) -> PromptCursor:
    drawn = tuple(SourceCursor(f"s{n}", count, weight) for n, (count, weight) in enumerate(sources))
    return PromptCursor(num_prompts=sum(count for count, _ in sources), seed=seed, sources=drawn)


@given(
    sizes=st.lists(st.integers(1, 7), min_size=2, max_size=3),
    weights=st.lists(st.sampled_from([0.25, 0.5, 1.0, 2.0, 5.0]), min_size=3, max_size=3),
    cuts=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    seed=st.integers(0, 3),
)
@settings(max_examples=60, deadline=None)
def test_sources_come_in_proportion_each_gone_through_before_it_repeats_however_the_steps_are_cut(
    sizes: list[int], weights: list[float], cuts: list[int], seed: int
) -> None:
    first = cursor = _cursor(*zip(sizes, weights, strict=False), seed=seed)
    taken: list[int] = []
    for count in cuts:
        picks, cursor = cursor.take(count)
        taken += [pick.index for pick in picks]
        cursor = PromptCursor.from_json(json.loads(json.dumps(cursor.to_json())))  # as a checkpoint keeps it
    assert taken == [pick.index for pick in first.take(sum(cuts))[0]]
    assert cursor.epoch * cursor.num_prompts + cursor.position == len(taken)
    share = [weight / sum(weights[: len(sizes)]) for weight in weights[: len(sizes)]]
    for length in range(1, len(taken) + 1):
        start = 0
        for size, part in zip(sizes, share, strict=False):
            own = [index for index in taken[:length] if start <= index < start + size]
            assert abs(len(own) - part * length) <= 1
            assert max(Counter(own).values(), default=0) - (len(own) // size) <= 1
            assert all(len(set(own[at : at + size])) == size for at in range(0, len(own) - size + 1, size))
            start += size


def test_the_order_is_the_seeds_and_each_sources_own() -> None:
    orders = {seed: [p.index for p in _cursor((30, 1.0), (30, 1.0), seed=seed).take(60)[0]] for seed in (0, 1)}
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(60)) and orders[0] != orders[1]
    of_first, of_second = ([i for i in orders[0] if low <= i < low + 30] for low in (0, 30))
    assert of_first != [i - 30 for i in of_second]
    # Recorded: another order is another run, and no checkpoint could go on.
    assert [p.index for p in _cursor((4, 3.0), (2, 1.0)).take(8)[0]] == [2, 3, 5, 1, 0, 0, 4, 1]


def test_a_prompt_that_stands_in_its_batch_again_is_told() -> None:
    picks, _ = _cursor((1, 1.0), (2, 1.0)).take(6)
    assert [(p.index, p.repeat) for p in picks if p.index == 0] == [(0, 0), (0, 1), (0, 2)]


def test_another_file_another_weight_or_another_name_is_another_run(files: Path, model: str) -> None:
    def identity(toml: str) -> dict[str, object]:
        config = settled_dtype(_config(toml, model), PlacementPlan("colocated", (), ()))
        return online_identity(config, read_data(config))

    before = identity(_both(files))
    moved = shutil.copytree(files, files.parent / "moved")
    assert identity(_both(moved))["data.source"] != before["data.source"]  # told with its path
    refuse_another("step_1", before, identity(_both(moved)))
    with pytest.raises(
        RefusedInput, match=r"has data\.source = '.*maths\.jsonl, .*' \(weight of maths 3\), this run has"
    ):
        refuse_another("step_1", before, identity(_both(files, weight=2)))
    write_jsonl(moved / "maths.jsonl", *({"sum": "2 and 2 ?", "answer": "1"} for _ in range(4)))
    with pytest.raises(RefusedInput, match=r"has data\.source = '.*' \(rows of maths [0-9a-f]{8}\), this run has"):
        refuse_another("step_1", before, identity(_both(moved)))


@pytest.mark.parametrize(
    ("lines", "algo", "told"),
    [
        (["Maths"], "grpo", "data.source.0.name = 'Maths'"),
        (["a", "a"], "grpo", "data.source has the name 'a' twice"),
        (["a"], "dpo", "data.source 'a' holds preferences, which algo = 'dpo' learns from one store alone"),
    ],
)
def test_tables_that_are_no_mixture_are_refused(
    lines: list[str], algo: str, told: str, files: Path, model: str
) -> None:
    toml = _toml(files, *(_table(files, name, "judged.jsonl") for name in lines))
    with pytest.raises(RefusedInput) as refused:
        _config(toml, model, algo=algo)
    assert told in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("flags", "line", "told"),
    [
        (("--data.path", "x"), "", "data.path = 'x' stands beside data.source"),
        (("--data.eval_path", "x"), "", "data.eval_path = 'x' stands beside data.source"),
        ((), "weight = 0.0", "data.source.0.weight = 0.0"),
        ((), "wait = 1.0", "data.source.0.wait = 1.0"),
    ],
)
def test_what_does_not_go_with_a_mixture_is_refused(
    flags: tuple[str, ...], line: str, told: str, files: Path, model: str
) -> None:
    with pytest.raises(RefusedInput) as refused:
        _config(_toml(files, _table(files, "a", "judged.jsonl", line)), model, *flags)
    assert told in str(refused.value)


def test_a_dry_run_says_what_it_would_mix(files: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--dry_run", "--algo", "grpo", "--model.path", model, "--config", _both(files)]
    assert train([*argv, "--rollout.max_new_tokens", "8"]) == 0
    assert "data: learned from: 6 rows" in capsys.readouterr().out
    (files / "judged.jsonl").unlink()
    assert train([*argv, "--rollout.max_new_tokens", "8"]) == 2
    assert "data.source 'judged'" in capsys.readouterr().err


def test_held_out_accuracy_is_told_by_source(files: Path, model: str) -> None:
    prompts = _read(files, model).held_out
    figures = judged_evaluation(judged(prompts, ["<answer>1</answer>", "<answer>2</answer>"])).figures
    assert figures["eval/accuracy"] == figures["eval/accuracy/judged"] == 0.5


def test_sources_in_another_order_are_another_run() -> None:
    argv = ["--algo", "grpo", "--model.path", "m"]
    tables = [{"name": name, "path": f"{name}.jsonl", "weight": 1.0} for name in ("a", "b")]
    config = load_config([*argv, "--data.path", "d"])[0]
    rows = {"a": "1", "b": "2"}
    data = config.data.model_copy(update={"path": None, "source": tuple(map(DataSource.model_validate, tables))})
    one, other = (
        _mixture(config.model_copy(update={"data": data}), order) for order in (rows, dict(reversed(rows.items())))
    )
    assert one is not None and other is not None
    assert one["order"] != other["order"] and one["rows of a"] == other["rows of a"]
