"""Trackers get the same few answers with their images at every evaluation, and nobody's words become markup."""

import hashlib
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from orchestrator.run.folder import RunFolder
from orchestrator.run.sample_table import ShownSample, markdown, sheet
from orchestrator.run.tracking import open_tracker


def table(folder: Path) -> list[ShownSample]:
    """Two photographs with a right answer, and a wrong one without any."""
    media = []
    for name in ("china", "flower"):
        path = folder / f"{name}.png"
        Image.fromarray(load_sample_image(f"{name}.jpg")).save(path)
        media.append((str(path), hashlib.sha256(path.read_bytes()).hexdigest()))
    return [
        ShownSample(media=tuple(media), prompt="Which is red?", answer="the second", label="2", right=True),
        ShownSample(media=(), prompt="And?", answer="a | b\n<script>", label="1", right=False),
    ]


@pytest.fixture
def samples(tmp_path: Path) -> list[ShownSample]:
    return table(tmp_path)


def test_images_stand_beside_each_other_in_the_order_of_the_table(samples: list[ShownSample]) -> None:
    picture = sheet(samples)
    assert picture is not None and picture.size == (448, 149)
    # The flower fills the right half: its middle is red.
    red, green, blue = np.asarray(picture)[60:90, 310:360].mean(axis=(0, 1))
    assert red > 2 * green and red > 2 * blue
    assert samples[1].picture() is None and sheet(samples[1:]) is None


def test_what_a_model_writes_makes_no_cell_no_line_and_no_markup(samples: list[ShownSample]) -> None:
    lines = markdown(samples).splitlines()
    assert len(lines) == 4
    assert lines[3] == "| And? | a \\| b<br>&lt;script&gt; | 1 | wrong |"


def test_an_image_that_has_changed_is_told_and_not_shown(samples: list[ShownSample]) -> None:
    Image.new("RGB", (8, 8)).save(samples[0].media[0][0])
    assert samples[0].cells[0] == "Which is red? [china.png has changed since the run]"
    picture = samples[0].picture()
    assert picture is not None and picture.size == (224, 149)


def test_tensorboard_gets_text_and_picture_of_every_evaluation(tmp_path: Path, samples: list[ShownSample]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with open_tracker(RunFolder(tmp_path), trackers=["tensorboard"]) as tracker:
        for step in (0, 4):
            tracker.show(step, samples)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.width, event.height) for event in events.Images("eval/samples")] == [
        (0, 448, 149),
        (4, 448, 149),
    ]
    (text, _) = events.Tensors("eval/samples/text_summary")
    assert b"the second" in text.tensor_proto.string_val[0]


def test_mlflow_gets_text_and_picture(tmp_path: Path, samples: list[ShownSample]) -> None:
    with open_tracker(RunFolder(tmp_path), trackers=["mlflow"]) as tracker:
        tracker.show(4, samples)
    (text,) = tmp_path.glob("mlflow/**/artifacts/eval/samples/step_000004.md")
    assert text.read_text() == markdown(samples)
    with Image.open(text.with_suffix(".png")) as picture:
        assert picture.size == (448, 149)


_SHOW = """
import sys
from pathlib import Path
from orchestrator.run.folder import RunFolder
from orchestrator.run.sample_table import ShownSample
from orchestrator.run.tracking import open_tracker
from {module} import table

with open_tracker(RunFolder(Path(sys.argv[1])), trackers=[sys.argv[2]]) as tracker:
    tracker.show(4, table(Path(sys.argv[1])))
    tracker.log(4, {{"reward/mean": 0.5}})
"""


def test_wandb_gets_a_table_with_a_column_of_images(tmp_path: Path) -> None:
    # In a process of its own: wandb's helper lives as long as its process, and reads the environment once.
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_DATA_DIR"}
    script = _SHOW.format(module="tests.unit.run.test_sample_table")
    subprocess.run([sys.executable, "-c", script, str(tmp_path), "wandb"], env=environment, check=True, timeout=120)
    tables = list(tmp_path.glob("wandb/wandb/offline-run-*/files/media/table/eval/samples_*.json"))
    told = json.loads(tables[0].read_text())
    assert told["columns"] == ["image", "prompt", "answer", "label", "right"]
    (first, second) = told["data"]
    assert first[1:] == ["Which is red?", "the second", "2", "right"]
    assert second[0] is None
    pictures = [path.read_bytes() for path in (tmp_path / "wandb" / "artifacts").rglob("*") if path.is_file()]
    assert any(content.startswith(b"\x89PNG") for content in pictures), "the images wait beside the run, to be sent"


def test_trackio_gets_figures_and_a_table_with_its_images_and_a_resume_goes_on_with_them(tmp_path: Path) -> None:
    # In a process of its own: it reads where it keeps runs once, when it is imported.
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path / "runs")}
    script = _SHOW.format(module="tests.unit.run.test_sample_table")
    for _ in range(2):
        command = [sys.executable, "-c", script, str(tmp_path), "trackio"]
        told = subprocess.run(command, env=environment, check=True, timeout=120, capture_output=True, text=True)
        assert "Created new run" not in told.stdout
    with sqlite3.connect(tmp_path / "runs" / "raylign.db") as found:
        rows = found.execute("SELECT run_name, step, metrics FROM metrics ORDER BY id").fetchall()
    assert len({name for name, _, _ in rows}) == 1
    assert [step for _, step, _ in rows] == [4] * 4
    figures = [json.loads(text) for _, _, text in rows]
    assert figures[1]["reward/mean"] == 0.5
    assert "the second" in json.dumps(figures[0]["eval/samples"])
    assert any(path.suffix == ".png" for path in (tmp_path / "runs" / "media").rglob("*"))
