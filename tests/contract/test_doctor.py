"""The doctor on runs with a planted fault each: named in a sentence, never a secret, never without an end."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.config.load import load_runs
from orchestrator.diagnosis.checks import Check, Job, jobs_of
from orchestrator.diagnosis.examination import examined
from orchestrator.diagnosis.finding import Finding, Patient
from orchestrator.diagnosis.worker import looked
from orchestrator.run.checkpoint import Identity
from orchestrator.run.identity import option_identity
from orchestrator.tasks.digits_model import build_digits_model
from tests.checkpoints import leave_checkpoint
from tests.contract.bad_inputs import Case, valid_case
from tests.contract.fake_judge import Body, Say, fake_judge
from tests.contract.service import serving

ROOT = Path(__file__).parents[2]
_KEY = "sk-planted-0123456789"
_RUBRIC = ("--reward.functions", "judge", "--reward.judge_model", "m", "--reward.judge_url")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_digits_model(tmp_path_factory.mktemp("doctor") / "model", seed=0)


@pytest.fixture
def case(tmp_path: Path, model: Path) -> Case:
    return valid_case(tmp_path, model)


def seen(case: Case, subject: str) -> list[Finding]:
    """What one check finds of the case's run."""
    runs, _ = load_runs(case.argv())
    (check,) = {job.check for job in jobs_of(runs) if job.run is not None and job.check.subject == subject}
    return looked(check.looks, Patient(runs, 0))


def _set(**flags: object) -> Callable[[Case], None]:
    return lambda case: case.flags.update({f"--{name.replace('__', '.')}": str(value) for name, value in flags.items()})


def _two_placeholders(case: Case) -> None:
    case.row = {"problem": "<image> and <image>: which response ?", "image": "good.png", "answer": "1"}


_MANY_CHECKPOINTS = _set(run__steps=10**9, run__checkpoint_every=1, run__keep_checkpoints=10**8)
PLANTED: dict[str, tuple[str, Callable[[Case], object], tuple[str, ...]]] = {
    "no such model": ("model", _set(model__path="/nowhere/model"), ("model.path", "/nowhere/model")),
    "no such file": ("files", _set(data__eval_path="/nowhere.jsonl"), ("data.eval_path '/nowhere.jsonl'",)),
    "a missing image": ("data", lambda case: case.show("gone.png"), ("row 1", "gone.png")),
    "a bad placeholder": ("data", _two_placeholders, ("row 1", "2 '<image>' placeholders, the row has 1 images")),
    "an image too large": ("data", _set(data__max_pixels=100, data__oversize="refuse"), ("row 1", "56 x 56")),
    "a row too long": ("data", _set(data__max_prompt_tokens=4), ("data.max_prompt_tokens = 4", "row", "tokens")),
    "longer than positions": ("data", _set(rollout__max_new_tokens=499), ("rollout.max_new_tokens = 499", "512")),
    "a plan larger than the cluster": (
        "plan",
        _set(rollout__num_engines=4096),
        ("rollout 4096 x", "the cluster has"),
    ),
    "memory over the machine": ("memory", _set(policy__tokens_per_microbatch=10**9), ("which does not fit",)),
    "too little disk": ("disk", _MANY_CHECKPOINTS, ("100000001 checkpoints", "are free in")),
    "a reward server that is down": (
        "reward",
        _set(reward__url="http://127.0.0.1:9", reward__max_outage_s=1),
        ("reward.url 'http://127.0.0.1:9' does not serve",),
    ),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_named_by_its_check(fault: str, case: Case) -> None:
    subject, spoil, words = PLANTED[fault]
    spoil(case)
    findings = seen(case, subject)
    assert [one.verdict for one in findings][:1] == ["FAIL"], findings
    for part in words:
        assert part in findings[0].told
    assert len(findings[0].told.splitlines()) == 1


def test_a_run_without_a_fault_has_none(case: Case) -> None:
    runs, _ = load_runs(case.argv())
    patient = Patient(runs, 0)
    findings = [(job.subject, one) for job in jobs_of(runs) if job.run == 0 for one in looked(job.check.looks, patient)]
    assert {one.verdict for _, one in findings} == {"ok"}, findings
    assert not patient.folder.exists()


def _checkpoint(case: Case, **changes: object) -> None:
    """One that says that it is of the case's run, but for these."""
    patient = Patient(load_runs(case.argv())[0], 0)
    identity: Identity = option_identity(patient.settled) | changes
    leave_checkpoint(patient.folder, identity, step=7)


def test_a_run_folder_of_another_run_is_named_with_key_and_both_values(case: Case) -> None:
    _checkpoint(case, **{"optimizer.lr": 0.5})
    (finding,) = seen(case, "run folder")
    assert finding.verdict == "FAIL"
    assert "checkpoint step_000007 has optimizer.lr = 0.5, this run has 1e-06" in finding.told


def test_other_weights_than_the_checkpoint_s_are_named_though_the_options_agree(case: Case) -> None:
    _checkpoint(case, **{"model.path": {"path": "elsewhere", "weights": "0" * 64}})
    (finding,) = seen(case, "run folder")
    assert finding.verdict == "FAIL" and "model.path = 'elsewhere'" in finding.told


def test_a_judge_that_refuses_the_key_is_named_and_the_key_is_not(case: Case, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{_KEY}\n")
    refusal = Body(json.dumps({"error": {"message": f"Incorrect API key provided: {_KEY}"}}).encode(), status=401)
    with fake_judge(refusal) as judge:
        case.extra += [*_RUBRIC, judge.url, "--reward.judge_key_file", str(tmp_path / "key")]
        (finding,) = seen(case, "judge")
    assert finding.verdict == "FAIL" and "401" in finding.told and _KEY not in finding.told


def test_a_judge_that_answers_nonsense_is_named_with_its_words(case: Case) -> None:
    with fake_judge(Say("purple elephants")) as judge:
        case.extra += [*_RUBRIC, judge.url]
        (finding,) = seen(case, "judge")
        assert finding.verdict == "FAIL" and "no verdict can be read in 'purple elephants'" in finding.told
        judge.behave(Say("<answer>7</answer>"))
        (finding,) = seen(case, "judge")
    assert finding.verdict == "ok"


def test_a_reward_service_is_asked_one_question_and_its_kind_of_answer_told(case: Case) -> None:
    with serving() as (url, _):
        case.extra += ["--reward.url", url]
        (finding,) = seen(case, "reward")
    assert finding.verdict == "ok" and f"reward.url {url} answered: scored, " in finding.found


def test_what_hangs_or_falls_over_costs_its_own_line_and_no_other() -> None:
    hangs = Check(subject="torchvision", looks="packages:vision_operators", deadline_s=0.0)
    falls = Check(subject="nothing", looks="packages:no_such_function", deadline_s=60.0)
    follows = Check(subject="compiler", looks="packages:compiler", deadline_s=60.0)
    waits = Check(subject="later", looks="packages:compiler", after=("nothing",))
    told = {job.subject: one for job, one in examined([], [Job(one) for one in (hangs, falls, follows, waits)])}
    assert told["torchvision"].verdict == "FAIL" and "no end of it within 0 s" in told["torchvision"].found
    assert told["nothing"].verdict == "FAIL" and "no_such_function" in told["nothing"].found
    assert told["compiler"].verdict == "ok"
    assert told["later"] == Finding("warn", "not looked at, as nothing comes first")


def _doctor(*flags: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "orchestrator.doctor", *flags]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)


def test_the_last_line_says_fit_or_why_not_and_no_line_says_a_secret(case: Case, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(_KEY)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and says nothing
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/{_KEY}"
        flags = {"reward__url": url, "reward__token_file": tmp_path / "token"}
        _set(**flags, reward__timeout_s=1, reward__max_outage_s=1)(case)
        case.flags["--model.path"] = "/nowhere/model"
        said = _doctor(*case.argv())
    lines = said.stdout.splitlines()
    assert (said.returncode, said.stderr) == (2, "")
    assert lines[-1].startswith("unfit: model: ") and lines[-1].endswith("(and 1 more)")
    assert all(line.startswith(("ok  ", "warn  ", "FAIL  ")) for line in lines[:-1])
    assert _KEY not in said.stdout
    assert "warn  run folder      not looked at, as model comes first" in lines


def test_a_command_line_that_is_refused_is_unfit() -> None:
    said = _doctor("--algo", "dpo", "--run.steps", "none")
    assert (said.returncode, said.stderr) == (2, "")
    assert said.stdout.startswith("unfit: run.steps = 'none'") and len(said.stdout.splitlines()) == 1
