"""An image that is exchanged behind the run's back: one sentence with its name from a worker, not a traceback."""

from pathlib import Path

import pytest

from tests.integration.conftest import run_cli
from tests.unit.data.rows import picture
from tests.unit.data.store_rows import imported, plain

pytestmark = [pytest.mark.integration, pytest.mark.soak]


def test_an_image_that_has_changed_since_the_import_is_named(random_model: Path, tmp_path: Path) -> None:
    # Each its own: images are known by their content, and one that is known is not read again.
    for index, color in enumerate(("red", "green", "yellow", "white")):
        picture(tmp_path / f"{index}.png", color=color)
    rows = [plain(prompt=f"<image> which digit ? {n}", images=[f"{n}.png"], chosen="1", rejected="2") for n in range(4)]
    store = imported(tmp_path, "plain_dpo", *rows)
    picture(tmp_path / "2.png", color="blue")

    flags = ["--model.path", str(random_model), "--data.path", str(store.folder), "--run.dir", str(tmp_path / "run")]
    done = run_cli("--algo", "dpo", "--run.steps", "2", "--policy.train_batch_size", "4", *flags)

    assert done.returncode == 3, done.stderr[-2000:]
    stopped = [line for line in done.stderr.splitlines() if line.startswith("stopped: ")]
    assert len(stopped) == 1
    assert "2.png' has changed since the data was read" in stopped[0]
    assert (tmp_path / "run" / "checkpoints" / "step_000000" / "manifest.json").is_file()
    assert "Traceback" not in done.stderr
