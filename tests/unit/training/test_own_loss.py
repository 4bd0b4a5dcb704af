"""What stands in files of somebody's own trains a real policy, from the command line's words on."""

import json
import math
from pathlib import Path

import pytest

from orchestrator.config import load_config
from orchestrator.data.stores import open_data
from orchestrator.report import write_report
from orchestrator.run.folder import RunFolder
from orchestrator.tasks.digits_model import build_digits_model
from orchestrator.training.figures import figures_of
from orchestrator.training.loop import run
from orchestrator.training.offline import offline_identity, offline_work
from orchestrator.training.session import open_session
from tests.in_process import InProcessPool
from tests.pages import snippet
from tests.unit.data.rows import write_jsonl
from workers.multimodal.prompt_encoder import PromptEncoder

# Importing DeepSpeed warns of what torch 2.13 has renamed.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("one_rank")]


def test_an_algorithm_a_figure_and_a_reader_of_ones_own_train_a_policy(tmp_path: Path) -> None:
    model, own, reader = build_digits_model(tmp_path / "model", seed=0), tmp_path / "own.py", tmp_path / "votes.py"
    own.write_text(snippet("algorithm", "counted.py"))
    reader.write_text(snippet("data_format", "votes.py"))
    rows = [{"question": f"which {word} ?", "answers": {"which": 2, "? ?": 1}} for word in ("a", "b", "c", "d", "e")]
    file = write_jsonl(tmp_path / "rows.jsonl", *rows)
    data_flags = ("--data.path", str(file), "--data.reader", f"{reader}:read_votes", "--data.held_out_frac", "0.3")
    flags = ("--model.path", str(model), "--model.dtype", "float32", "--policy.train_batch_size", "2")
    length = ("--run.steps", "6", "--optimizer.lr", "1e-3", "--run.dir", str(tmp_path / "run"))
    config, _ = load_config(["--algo", f"{own}:Counted", *data_flags, *flags, *length])
    folder = RunFolder(tmp_path / "run")
    folder.create()
    data = open_data(config, folder)
    pool, identity = InProcessPool(tokens_per_microbatch=999), offline_identity(config, data, {})
    with open_session(config, folder, pool, identity=identity, counts=data.counts, figures=figures_of(config)) as (
        session,
        start,
    ):
        run(session, offline_work(session, PromptEncoder(str(model)), data, {}), start)
    folder.release()
    told = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    losses, margins = ([row[name] for row in told[1:]] for name in ("policy/loss", "preference/margin"))
    # Its own reference, it begins with -log sigmoid(0).
    assert (losses[0], margins[0]) == pytest.approx((math.log(2), 0.0), abs=1e-5)
    assert losses[-1] < losses[0] and margins[-1] > 0
    assert told[-1]["eval/margin"] > told[0]["eval/margin"]
    shares = [row["counted/steep_frac"] for row in told[1:]]
    assert shares[0] == 0.0 and shares[-1] > 0.0, "a log-ratio of 1 nat is soon passed"
    assert "Steep pairs" in write_report(folder.root).read_text()
