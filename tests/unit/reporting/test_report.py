"""The report of a run is one safe file, whatever state the run is in and whatever the model wrote."""

import base64
import io
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import ExifTags, Image

from orchestrator.config.load import load_config
from orchestrator.report import main, write_report
from orchestrator.reporting.charts import Axis, Chart, line_chart, number, share_bar, thinned
from orchestrator.reporting.choice_of_kind import kind_of
from orchestrator.reporting.curves import phase_seconds
from orchestrator.reporting.findings import Check
from orchestrator.reporting.online_run import ONLINE
from orchestrator.reporting.page import render
from orchestrator.reporting.rollouts import each_kind_in_turn, spread
from orchestrator.reporting.run_record import RunRecord, read_run, status
from orchestrator.run.folder import RunFolder
from orchestrator.run.rollout_store import RolloutRow, write_rollouts
from orchestrator.training.figures import figures_of
from tests.report_runs import media, rollout

ROOT = Path(__file__).parents[3]
_ATTACK = "</pre><script>alert('x')</script><img src=x onerror=alert(1)>\"'&amp;"


class _Page(HTMLParser):
    """Elements and attributes of a page as a browser's parser finds them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def sources(self) -> list[str]:
        return [value for name, value in self.attributes if name in ("src", "href") and value is not None]


def _run(root: Path, rows: list[Mapping[str, object]], *, steps: int = 60, pairs: int = 512) -> Path:
    root.mkdir(exist_ok=True)
    (root / "rollouts").mkdir(exist_ok=True)
    (root / "config.json").write_text(json.dumps({"algo": "stable_reinforce", "run": {"steps": steps}}))
    (root / "manifest.json").write_text(json.dumps({"num_held_out": pairs, "versions": {"torch": "2.13.0"}}))
    (root / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def _rollout(path: Path | None, *, text: str = "<answer> 1 </answer>", verdict: str | None = "1") -> RolloutRow:
    shown = () if path is None else media(path)
    told = {"prompt_text": f"which ? {text}", "completion_text": text, "verdict": verdict}
    return rollout(shown, **told, answer_right=verdict == "1")


def _page(root: Path) -> _Page:
    return _Page(write_report(root).read_text())


def test_nothing_a_model_or_a_file_says_becomes_markup(tmp_path: Path) -> None:
    root = _run(tmp_path / "run", [{"step": 1, f"memory/rss_gib/{_ATTACK}": 1.0, "reward/mean": 1.0}])
    (root / "config.json").write_text(json.dumps({"algo": _ATTACK, "run": {"steps": 9}, "note": _ATTACK}))
    (root / "manifest.json").write_text(json.dumps({"data": _ATTACK, "versions": {_ATTACK: _ATTACK}}))
    write_rollouts(RunFolder(root).rollout_file(1), [_rollout(None, text=_ATTACK)])
    page = _page(root)
    assert page.tags.count("script") == 1 and "onerror" not in dict(page.attributes)
    assert "".join(page.text).count("<script>alert('x')</script>") >= 5


def test_the_name_of_an_image_cannot_leave_its_attribute(tmp_path: Path) -> None:
    image = tmp_path / 'a" onerror="alert(1)" x=".png'
    Image.new("RGB", (8, 8)).save(image)
    root = _run(tmp_path / "run", [])
    write_rollouts(RunFolder(root).rollout_file(1), [_rollout(image)])
    attributes = dict(_page(root).attributes)
    assert attributes["alt"] == image.name and "onerror" not in attributes


def test_the_file_needs_nothing_from_anywhere(tmp_path: Path) -> None:
    image = tmp_path / "digit.png"
    Image.new("RGB", (56, 56), "white").save(image)
    root = _run(tmp_path / "run", [{"step": 1, "reward/mean": 1.0}])
    write_rollouts(RunFolder(root).rollout_file(1), [_rollout(image)])
    text = write_report(root).read_text()
    assert all(source.startswith("data:image/png;base64,") for source in _Page(text).sources())
    assert not re.search(r"https?://|@import|url\(", text)
    assert "prefers-color-scheme: dark" in text and "default-src 'none'" in text.replace("&#x27;", "'")


def test_the_image_a_rollout_saw_is_embedded_no_larger_than_it_is_shown(tmp_path: Path) -> None:
    image = tmp_path / "wide.png"
    Image.new("RGB", (1000, 500), (10, 200, 30)).save(image)
    root = _run(tmp_path / "run", [])
    write_rollouts(RunFolder(root).rollout_file(1), [_rollout(image)])
    (source,) = _page(root).sources()
    embedded = Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))
    assert embedded.size == (224, 112)
    assert embedded.getpixel((100, 50)) == (10, 200, 30)


def test_an_image_is_shown_as_the_model_saw_it(tmp_path: Path) -> None:
    """Upright, and black on white where it is black on nothing."""
    image, exif = tmp_path / "turned.png", Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    drawing = Image.new("RGBA", (20, 10), (0, 0, 0, 0))
    drawing.putpixel((0, 0), (0, 0, 0, 255))
    drawing.save(image, exif=exif)
    root = _run(tmp_path / "run", [])
    write_rollouts(RunFolder(root).rollout_file(1), [_rollout(image)])
    (source,) = _page(root).sources()
    embedded = Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))
    assert embedded.size == (10, 20)
    assert (embedded.getpixel((9, 0)), embedded.getpixel((0, 0))) == ((0, 0, 0), (255, 255, 255))


def test_an_image_that_cannot_be_shown_is_a_sentence(tmp_path: Path) -> None:
    names = ("gone", "changed", "text")
    rows = []
    for name in names:
        path = tmp_path / f"{name}.png"
        path.write_bytes(b"no picture " + name.encode())
        rows.append(_rollout(path))
    (tmp_path / "gone.png").unlink()
    (tmp_path / "changed.png").write_bytes(b"other bytes")
    root = _run(tmp_path / "run", [])
    write_rollouts(RunFolder(root).rollout_file(1), rows)
    page = _page(root)
    text = "".join(page.text)
    assert page.sources() == []
    assert "gone.png cannot be read: No such file or directory" in text
    assert "changed.png has changed since the run" in text
    assert "text.png is text, not an image" in text


def test_the_report_of_a_running_run_leaves_out_the_row_that_is_being_written(tmp_path: Path) -> None:
    root = _run(tmp_path / "run", [{"step": 1, "reward/mean": 1.0}, {"step": 2, "reward/mean": 1.1}])
    with (root / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "rewa')
    text = "".join(_page(root).text)
    assert "Unfinished: 2 of 60 steps" in text
    assert "1 torn lines of metrics.jsonl were left out" in text


def test_a_rollout_file_that_is_broken_is_said_and_the_rest_is_shown(tmp_path: Path) -> None:
    root = _run(tmp_path / "run", [])
    folder = RunFolder(root)
    folder.rollout_file(1).write_bytes(b"PAR1 half")
    write_rollouts(folder.rollout_file(2), [_rollout(None)])
    text = "".join(_page(root).text)
    assert "Step 1" in text and "cannot be read" in text
    assert "Step 2: 1 of 1 answers right" in text


def test_a_run_that_has_only_its_configuration_has_a_report(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"algo": "reinforce_pp"}')
    text = "".join(_page(tmp_path).text)
    for sentence in ("No step is finished yet.", "No rollouts have been written.", "manifest.json is missing"):
        assert sentence in text


def test_every_step_is_shown_and_of_very_many_some_with_both_ends(tmp_path: Path) -> None:
    root = _run(tmp_path / "run", [])
    for step in range(1, 8):
        write_rollouts(RunFolder(root).rollout_file(step), [_rollout(None)])
    titles = re.findall(r"<h3>Step (\d+):", write_report(root).read_text())
    assert titles == ["1", "2", "3", "4", "5", "6", "7"]
    assert spread(range(1, 100), 3) == [1, 50, 99]


def test_samples_are_of_every_kind_in_turn() -> None:
    assert each_kind_in_turn("aaaaabbc", 4) == [0, 1, 5, 7]
    assert each_kind_in_turn("aaaaab", 4) == [0, 1, 2, 5]
    assert each_kind_in_turn("aa", 4) == [0, 1]


def _learned(tmp_path: Path, **changed: float) -> Path:
    """Ten steps that went well, but for what is ``changed`` at step 10, metric names with ``__`` for the slash."""
    good = {
        "mismatch/logprob_abs_mean": 1e-7,
        "sync/verified": 1.0,
        "judge/coverage": 1.0,
        "guard/nonfinite_metrics": 0,
    }
    evaluated = {"eval/accuracy": 0.95, "eval/accuracy_shuffled_images": 0.51, "eval/first_position_rate": 0.5}
    rows: list[Mapping[str, object]] = [{"step": 0, "eval/accuracy": 0.6}]
    rows += [{"step": step, "reward/mean": 1.0 + 0.05 * step, **good} for step in range(1, 10)]
    last = good | evaluated | {"reward/mean": 1.5} | {k.replace("__", "/"): v for k, v in changed.items()}
    return _run(tmp_path / "run", [*rows, {"step": 10, **last}], steps=10)


def _learning(record: RunRecord) -> list[Check]:
    return [question(record) for question in ONLINE.learning]


def _soundness(record: RunRecord) -> list[Check]:
    return [question(record) for question in ONLINE.soundness]


def test_a_run_that_learned_and_is_sound_is_said_to_be(tmp_path: Path) -> None:
    record = read_run(_learned(tmp_path))
    assert ONLINE.headline(record) == "Accuracy 0.600 → 0.950 on 512 held-out pairs; chance is 0.500."
    assert status(record) == "Finished: 10 of 10 steps."
    assert [check.answer for check in _learning(record) + _soundness(record)] == ["yes"] * 8


@pytest.mark.parametrize(
    ("name", "value", "question"),
    [
        ("eval__accuracy_shuffled_images", 0.57, "shuffled images"),
        ("eval__first_position_rate", 0.61, "neither side"),
        ("mismatch__logprob_abs_mean", 2e-4, "Engine and trainer"),
        ("sync__verified", 0.0, "verified"),
        ("judge__coverage", 0.89, "scored"),
        ("guard__nonfinite_metrics", 1.0, "finite number"),
    ],
)
def test_each_unsound_figure_is_named_with_its_step(tmp_path: Path, name: str, value: float, question: str) -> None:
    failed = [check for check in _soundness(read_run(_learned(tmp_path, **{name: value}))) if check.answer != "yes"]
    assert [check.answer for check in failed] == ["no"]
    assert question in failed[0].question and "at step 10" in failed[0].detail


def _answered(tmp_path: Path, *, shuffled: float) -> Path:
    """A run whose labels are sums and not sides."""
    rows: list[Mapping[str, object]] = [
        {"step": 0, "eval/accuracy": 0.6},
        {"step": 10, "eval/accuracy": 0.9, "eval/accuracy_shuffled_images": shuffled},
    ]
    return _run(tmp_path / "run", rows, steps=10)


def test_a_run_that_asks_for_answers_is_not_held_against_a_coin(tmp_path: Path) -> None:
    record = read_run(_answered(tmp_path, shuffled=0.08))
    kind = kind_of(record)
    assert kind.headline(record) == "Accuracy 0.600 → 0.900 on 512 held-out prompts."
    looks, *others = [question(record) for question in kind.soundness]
    assert looks.answer == "yes" and "at most 0.84" in looks.detail
    assert not [check for check in others if "side" in check.question]
    blind = kind.soundness[0](read_run(_answered(tmp_path, shuffled=0.88)))
    assert blind.answer == "no" and "0.88" in blind.detail


def test_samples_of_answers_are_right_by_what_the_run_said(tmp_path: Path) -> None:
    root = _run(tmp_path / "run", [])
    rows = [
        replace(_rollout(None), label="4", verdict="4.0", answer_right=True),
        replace(_rollout(None), label=None, answer_right=None),
    ]
    write_rollouts(RunFolder(root).rollout_file(1), rows)
    text = "".join(_page(root).text)
    assert "Step 1: 1 of 1 answers right" in text and "answer 4.0" in text and "no label" in text


def test_the_control_says_nothing_about_a_judge_that_guesses(tmp_path: Path) -> None:
    control = _soundness(read_run(_learned(tmp_path, eval__accuracy=0.55)))[0]
    assert control.answer == "unknown" and "near chance too: 0.550 at step 10" in control.detail


def test_a_rise_within_noise_is_no_learning(tmp_path: Path) -> None:
    # On 512 pairs two standard errors of the difference of 0.60 and 0.64 are 0.061.
    accuracy, _ = _learning(read_run(_learned(tmp_path, eval__accuracy=0.64)))
    assert accuracy.answer == "no" and "2 standard errors are 0.061" in accuracy.detail


def test_what_was_not_measured_is_not_known(tmp_path: Path) -> None:
    record = read_run(_run(tmp_path / "run", [{"step": 1, "policy/loss": 1.0}]))
    assert {check.answer for check in _learning(record) + _soundness(record)} == {"unknown"}
    assert ONLINE.headline(record) == "No held-out accuracy has been measured."


def test_a_value_that_is_null_leaves_a_gap_and_not_a_zero(tmp_path: Path) -> None:
    rows: list[Mapping[str, object]] = [
        {"step": 1, "kl/ref": 0.5},
        {"step": 2, "kl/ref": None},
        {"step": 3, "kl/ref": 0.7},
    ]
    assert read_run(_run(tmp_path / "run", rows)).series("kl/ref") == [(1, 0.5), (3, 0.7)]


def test_a_curve_runs_from_corner_to_corner() -> None:
    svg = line_chart(Chart(title="t", series={"a": [(0, 0.0), (10, 1.0)]}, y_range=(0.0, 1.0)))
    (path,) = re.findall(r'class="line c0" d="([^"]+)"', svg)
    assert path == "M60.0,180.0L386.0,10.0"


def test_a_logarithmic_axis_is_used_only_above_zero() -> None:
    above = line_chart(Chart(title="t", series={"a": [(1, 1e-6), (2, 1e-4)]}, prefer_log=True))
    with_zero = line_chart(Chart(title="t", series={"a": [(1, 0.0), (2, 1e-4)]}, prefer_log=True))
    assert ">1e-05<" in above and ">1e-05<" not in with_zero
    assert Axis(low=1e-6, high=1e-4, is_log=True).y(1e-5) == pytest.approx((10 + 180) / 2)


@pytest.mark.parametrize("points", [[(3, 0.0)], [(1, 0.0), (2, 0.0)], [(1, -2.0), (2, -2.0)], [(1, 5.0)]])
def test_a_flat_curve_can_be_drawn(points: list[tuple[int, float]]) -> None:
    assert "nan" not in line_chart(Chart(title="t", series={"a": points}))


def test_thinning_keeps_the_ends_and_every_spike() -> None:
    points = [(step, 0.0) for step in range(10_000)]
    points[7_777] = (7_777, 9.0)
    kept = thinned(points)
    assert len(kept) <= 500 and (7_777, 9.0) in kept and kept[0] == points[0] and kept[-1] == points[-1]
    assert kept == sorted(kept)


def test_shares_of_the_time_bar_add_up() -> None:
    widths = re.findall(r"width:([0-9.]+)%", share_bar({"rollout": 3.0, "train": 1.0}, unit="s"))
    assert [float(width) for width in widths] == [75.0, 25.0]
    assert share_bar({"rollout": 0.0}, unit="s") == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.000"),
        (0.5, "0.500"),
        (12.34, "12.3"),
        (999.6, "999.6"),
        (5123.4, "5123"),
        (3.2e-7, "3.2e-07"),
        (-2.0, "-2.000"),
    ],
)
def test_figures_are_short(value: float, text: str) -> None:
    assert number(value) == text


def test_the_command_prints_the_path_of_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = _learned(tmp_path)
    assert main([str(root)]) == 0
    assert capsys.readouterr().out == f"{root / 'report.html'}\n"
    assert (root / "report.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["{tmp}/absent"], ["{tmp}"], ["{tmp}/file"]])
def test_a_bad_folder_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main([argument.replace("{tmp}", str(tmp_path)) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("refused: ") and captured.err.count("\n") == 1


def test_the_report_is_made_without_loading_torch_or_ray() -> None:
    code = "import sys, orchestrator.report; print(*[m for m in ('torch', 'ray', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_what_the_named_phases_leave_of_a_step_is_shown_as_other(tmp_path: Path) -> None:
    row = {"step": 1, "time/rollout_s": 2.0, "time/train_s": 1.0, "time/step_s": 4.0}
    seconds = phase_seconds(read_run(_run(tmp_path / "run", [row])))
    assert seconds == {"rollout": [(1, 2.0)], "train": [(1, 1.0)], "other": [(1, 1.0)]}


def test_every_figure_of_an_online_run_that_has_a_title_is_drawn(tmp_path: Path) -> None:
    figures = [f for f in figures_of(load_config(["--algo", "stable_reinforce"])[0]) if not f.name.endswith("*")]
    root = _run(tmp_path / "run", [{"step": 1, **dict.fromkeys([f.name for f in figures], 0.5)}])
    (root / "manifest.json").write_text(json.dumps({"figures": [asdict(figure) for figure in figures]}))
    titles = re.findall(r"<figcaption>(.*?)</figcaption>", unescape(render(read_run(root))))
    drawn = dict.fromkeys(f.title for f in figures if f.title)
    assert titles == [*drawn, "Seconds of a step"] and len(drawn) > 10


def test_a_run_that_does_not_say_what_its_figures_are_has_a_curve_of_each(tmp_path: Path) -> None:
    page = render(read_run(_run(tmp_path / "run", [{"step": 1, "mine/own": 0.5, "time/step_s": 1.0}])))
    assert re.findall(r"<figcaption>(.*?)</figcaption>", page) == ["mine/own", "Seconds of a step"]
