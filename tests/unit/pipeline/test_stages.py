"""The stages of a run before it starts: told, each with its own workers, and refused where one does not fit."""

from pathlib import Path

import pytest

from orchestrator.cluster.resources import ClusterResources, NodeResources
from orchestrator.config import load_config
from orchestrator.config.schema import TrainConfig
from orchestrator.errors import RefusedInput
from orchestrator.pipeline.stages import Stage, describe_stages, stages_of
from orchestrator.train import main
from tests.critique_models import write_critique_model
from tests.unit.data.rows import picture, write_jsonl
from tests.unit.data.store_rows import ranked

_CLUSTER = ClusterResources(nodes=(NodeResources(name="one", cpus=16.0, gpus=4),))


def _config(*flags: str, algo: str = "mm_dpo") -> TrainConfig:
    return load_config(["--algo", algo, "--model.path", "model", "--data.path", "rows.jsonl", *flags])[0]


def _workers(stage: Stage) -> list[tuple[str, int]]:
    """Role and number of workers of each plan, in order."""
    return [(worker.role, len(plan.workers)) for plan in stage.plans for worker in plan.workers[:1]]


def test_every_stage_of_mm_dpo_has_its_workers() -> None:
    flags = (
        *("--reward.critique.num_workers", "3", "--rollout.num_engines", "2"),
        *("--reference.mode", "precomputed", "--reference.num_ranks", "4", "--mm_dpo.critique_rm_steps", "7"),
    )
    stages = stages_of(_config(*flags), _CLUSTER)
    assert [_workers(s) for s in stages] == [
        [],
        [("critique_reward", 3)],
        [("reference", 4)],
        [("rollout", 2), ("critique_reward", 3)],
    ]
    told = describe_stages(stages)
    assert told[0] == "stage 1 of 4, critique reward model: 7 steps on the policy's workers"
    assert [line.partition(": ")[2] for line in told if line.startswith("stage ")] == [s.what for s in stages]
    assert "    bundle 2 on one, 1 GPU + 1 CPU: critique_reward 2 (1 GPU, 1 CPU)" in told


def test_a_model_that_is_there_is_not_trained() -> None:
    stages = stages_of(_config("--reward.critique.path", "some/model"), _CLUSTER)
    assert describe_stages(stages)[0] == "stage 1 of 4, critique reward model: taken from some/model"
    assert [_workers(s) for s in stages] == [[], [("critique_reward", 1)], [], [("rollout", 1), ("critique_reward", 1)]]


def test_without_margins_a_model_only_judges_answers() -> None:
    fixed = ("--mm_dpo.beta_mode", "fixed")
    assert [_workers(s) for s in stages_of(_config(*fixed), _CLUSTER)] == [[], [], [], []]
    judged = stages_of(_config(*fixed, "--reward.critique.path", "some/model"), _CLUSTER)
    assert [_workers(s) for s in judged] == [[], [], [], [("rollout", 1), ("critique_reward", 1)]]
    assert "stage 2 of 4, margins: none, as mm_dpo.beta_mode = 'fixed'" in describe_stages(judged)


def test_other_algorithms_have_stages_only_for_what_is_precomputed() -> None:
    assert describe_stages(stages_of(_config(algo="dpo"), _CLUSTER)) == []
    (only,) = stages_of(_config("--reference.mode", "precomputed", algo="dpo"), _CLUSTER)
    assert _workers(only) == [("reference", 1)]
    assert describe_stages([only])[0].startswith("stage 1 of 1, dpo: reference log-probs, then ")


@pytest.mark.parametrize(("algo", "number"), [("stable_reinforce", 2), ("mm_dpo", 5)])
def test_a_run_of_the_embedded_task_begins_with_a_cold_start_unless_it_has_a_model(algo: str, number: int) -> None:
    told = describe_stages(stages_of(load_config(["--algo", algo])[0], _CLUSTER))
    assert told[0].startswith(f"stage 1 of {number}, cold start: ") and told[0].endswith("0 steps on demonstrations")
    taught = describe_stages(stages_of(load_config(["--algo", algo, "--model.path", "model"])[0], _CLUSTER))
    assert not any("cold start" in line for line in taught)


def test_a_stage_that_does_not_fit_is_refused_with_its_sum() -> None:
    with pytest.raises(RefusedInput, match=r"critique_reward 5 x 1 GPU = 5 GPUs, the cluster has 4"):
        stages_of(_config("--reward.critique.num_workers", "5"), _CLUSTER)


@pytest.fixture(scope="module")
def critique_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_critique_model(tmp_path_factory.mktemp("critique_model") / "model")


def _arguments(critique_model: Path, tmp_path: Path, *flags: str) -> list[str]:
    picture(tmp_path / "a.png", size=(56, 56))
    said = [{"response": word, "reason": f"the image shows {word} ."} for word in ("one", "two")]
    data = write_jsonl(tmp_path / "rows.jsonl", ranked("1>2", *said, prompt="which digit ?"))
    return [
        *(
            "--algo",
            "mm_dpo",
            "--model.path",
            str(critique_model),
            "--data.path",
            str(data),
            "--data.format",
            "mm_rlhf",
        ),
        *("--run.dir", str(tmp_path / "run"), *flags),
    ]


def test_a_dry_run_tells_the_stages_and_starts_nothing(
    critique_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*_arguments(critique_model, tmp_path, "--reference.mode", "precomputed"), "--dry-run"]) == 0
    told = capsys.readouterr().out.splitlines()
    stages = [line for line in told if line.startswith("stage ")]
    assert [line.split(":")[0] for line in stages] == [
        "stage 1 of 4, critique reward model",
        "stage 2 of 4, margins",
        "stage 3 of 4, reference and MM-DPO",
        "stage 4 of 4, evaluation",
    ]
    roles = [line.split(": ")[1].split()[0] for line in told if line.startswith(("  bundle ", "    bundle "))]
    assert roles == ["policy", "critique_reward", "reference", "rollout", "critique_reward"]
    for what in ("data", "critique reward model"):
        assert f"{what}: learned from: 1 of 1 rows, 2 of their 2 responses, 1 pairs" in told
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("dry", [True, False])
@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda folder: "no/such/model", "'no/such/model' is not a folder"),
        (lambda folder: _without_head(folder), "is no critique reward model (no request in reward_head/config.json)"),
    ],
    ids=["no folder", "no head"],
)
def test_a_path_that_is_no_critique_reward_model_is_refused_before_anything_starts(
    critique_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil, reason: str, dry: bool
) -> None:
    flags = ["--reward.critique.path", spoil(critique_model), *(["--dry-run"] if dry else [])]
    assert main(_arguments(critique_model, tmp_path, *flags)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("refused: reward.critique.path: ") and reason in captured.err
    assert not (tmp_path / "run").exists()


def _without_head(critique_model: Path) -> str:
    """The same model, as the policy starts from."""
    plain = critique_model.with_name("plain")
    plain.mkdir(exist_ok=True)
    for file in critique_model.iterdir():
        if file.is_file():
            (plain / file.name).write_bytes(file.read_bytes())
    return str(plain)
