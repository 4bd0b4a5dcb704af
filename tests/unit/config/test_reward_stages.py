"""A reward model and the policy that learns from it in one file: refused or not before the first stage starts."""

from pathlib import Path

import pytest

from orchestrator.config.load import load_runs
from orchestrator.errors import RefusedInput
from orchestrator.pipeline import several
from orchestrator.tasks.digits_model import build_digits_model
from tests.unit.data.rows import write_jsonl
from tests.unit.data.store_rows import plain

_FILE = """
[run]
dir = "{dir}"
[model]
path = "{model}"
{lora}

[[stage]]
name = "reward"
algo = "{algo}"
data.path = "{pairs}"

[[stage]]
name = "policy"
algo = "ppo"
data.path = "{prompts}"
rollout.max_new_tokens = 8
reward.functions = ["scalar"]
reward.scalar_path = "stage:reward"
critic.init = "reward"
critic.head = "reward_head"
{shared}
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_digits_model(tmp_path_factory.mktemp("reward_stages") / "model", seed=0)


def _refuse(tmp_path: Path, model: Path, *, algo: str = "scalar_rm", share_base: bool = False) -> None:
    rows = [plain(prompt=f"which {word} ?", chosen="which", rejected="? ?") for word in ("a", "b")]
    pairs = write_jsonl(tmp_path / "pairs.jsonl", *rows)
    prompts = write_jsonl(tmp_path / "prompts.jsonl", *({"problem": f"which {word} ?"} for word in ("a", "b")))
    lora = "lora_rank = 4" if share_base else ""
    shared = "placement.share_base = true" if share_base else ""
    file = tmp_path / "stages.toml"
    made = {"dir": tmp_path / "run", "model": model, "pairs": pairs, "prompts": prompts}
    file.write_text(_FILE.format(**made, algo=algo, lora=lora, shared=shared))
    several._refuse(load_runs(["--config", str(file)])[0])


@pytest.mark.parametrize("share_base", [False, True])
def test_what_the_first_stage_is_to_make_is_not_looked_for(tmp_path: Path, model: Path, share_base: bool) -> None:
    """Its head, its adapter, and the format of the file, which nobody has named."""
    _refuse(tmp_path, model, share_base=share_base)


def test_a_stage_that_trains_no_reward_model_is_refused_as_one(tmp_path: Path, model: Path) -> None:
    told = "reward.scalar_path = 'stage:reward' is no scalar reward model, as its algo is 'dpo'"
    with pytest.raises(RefusedInput, match=f"^stage 'policy': {told}$"):
        _refuse(tmp_path, model, algo="dpo")
