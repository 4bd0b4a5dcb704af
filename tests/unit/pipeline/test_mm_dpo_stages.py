"""The stages of MM-DPO without Ray: what is there is not made again, what was made from something else is refused.

Training and the workers are replaced by something that leaves what they leave; the stages are the real ones.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from orchestrator.config import load_config
from orchestrator.config.schema import TrainConfig
from orchestrator.data.stores import open_data
from orchestrator.errors import RefusedInput
from orchestrator.pipeline import answers, mm_dpo
from orchestrator.pipeline.stages import Running, go_through, stages_of
from orchestrator.rewards import offline_judge
from orchestrator.rewards.critique_judge import CritiqueCache, CritiqueJudge
from orchestrator.run.folder import RunFolder
from orchestrator.tasks.digits_critiques import REQUEST, VOCABULARY
from orchestrator.tasks.digits_model import build_digits_model
from orchestrator.training.loop import Outcome
from orchestrator.training.offline import offline_identity
from orchestrator.training.session import Evaluation
from tests.checkpoints import leave_checkpoint
from tests.critique_models import judge_of
from tests.unit.data.rows import picture
from tests.unit.data.store_rows import imported, ranked
from tests.unit.rewards.fake_workers import FakeWorkers
from workers.models.reward_head import RewardHead, save_reward_head
from workers.scalar_reward import ScalarRewardSpec
from workers.types import Prompt

_TEXTS = ("it is one .", "it is two .", "no digit to see .")


@dataclass
class Run:
    """One run folder, and what was done in it since the last look."""

    root: Path
    model: Path
    store: Path
    workers: FakeWorkers = field(default_factory=FakeWorkers)
    trained: list[str] = field(default_factory=list)
    sampled: list[str] = field(default_factory=list)

    def __call__(self, *flags: str) -> tuple[list[str], int, int]:
        """Trainings by algorithm, critiques that were asked for, and policies that were sampled."""
        if "--reward.critique.max_new_tokens" not in flags:
            flags = (*flags, "--reward.critique.max_new_tokens", "8")
        config = load_config(
            [
                *("--algo", "mm_dpo", "--model.path", str(self.model), "--data.path", str(self.store)),
                *("--run.dir", str(self.root / "run"), "--run.steps", "2", "--critique_rm.request", REQUEST),
                *("--rollout.engine", "transformers", "--model.dtype", "float32", *flags),
            ]
        )[0]
        folder = RunFolder(Path(config.run.dir))
        folder.create()
        self.workers.batches, self.trained[:], self.sampled[:] = [], [], []
        try:
            plan: Any = None
            data = open_data(config, folder)
            go_through(stages_of(config), Running(config=config, plan=plan, folder=folder, data=data))
        finally:
            folder.release()
        return list(self.trained), len(self.workers.requests), len(self.sampled)

    @property
    def answers_mark(self) -> Path:
        """What says from what the answers were made."""
        return self.root / "run" / "evaluations" / "answers_made_from.json"

    def refusal(self, *flags: str) -> str:
        """The sentence, and that nothing was done before it."""
        with pytest.raises(RefusedInput) as refused:
            self(*flags)
        assert (self.trained, self.workers.requests, self.sampled) == ([], [], [])
        return str(refused.value)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    picture(tmp_path / "a.png")
    made = [{"response": text, "reason": "right ."} for text in _TEXTS]
    rows = [ranked("1>2=3", *made, id=f"m-{n}", prompt=f"which digit ? {word}") for n, word in enumerate("abcdefgh")]
    store = imported(tmp_path, "mm_rlhf", *rows, held_out_frac=0.4)
    assert store.num_instructions("held_out") and store.num_instructions("train")
    model = build_digits_model(tmp_path / "model", seed=0, words=VOCABULARY)
    made_run = Run(tmp_path, model, store.folder)

    def learn(config: TrainConfig, plan: Any, folder: RunFolder, data: Any, tables: Any) -> Outcome:
        made_run.trained.append(config.algo)
        target = folder.checkpoint(config.run.steps)
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(config.model.path or "", target / "policy")
        head = RewardHead("linear", 128)
        if config.algo == "critique_rm":
            torch.nn.init.constant_(head.weight, config.optimizer.lr)
            save_reward_head("linear", dict(head.named_parameters()), target / "policy", request=REQUEST)
        identity = offline_identity(config, data, tables)
        leave_checkpoint(folder.root, identity, step=config.run.steps)
        folder.evaluations.mkdir(exist_ok=True)
        for step in (0, config.run.steps):
            folder.evaluation_file(step).write_text(json.dumps({"eval/pair_accuracy": step / 8}))
        return Outcome(before=Evaluation(figures={}), after=Evaluation(figures={}))

    @contextmanager
    def critique_judge(
        config: TrainConfig, folder: RunFolder, model: str, *_: Any, **__: Any
    ) -> Iterator[CritiqueJudge]:
        with CritiqueCache(folder.root / "critiques.sqlite") as cache:
            yield judge_of(made_run.workers, Path(model), cache, max_new_tokens=config.reward.critique.max_new_tokens)

    def sampled(config: TrainConfig, policy: str, prompts: list[Prompt]) -> list[str]:
        made_run.sampled.append(policy)
        return ["it is three ."] * len(prompts)

    monkeypatch.setattr(mm_dpo, "learn", learn)
    monkeypatch.setattr(offline_judge, "critique_judge", critique_judge)
    monkeypatch.setattr(answers, "sampled", sampled)
    return made_run


_NUM_RESPONSES = 8 * len(_TEXTS)


def test_the_second_call_makes_nothing_again_and_says_so(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    trained, asked, sampled = run()
    assert (trained, sampled) == (["critique_rm", "mm_dpo"], 2)
    assert asked > _NUM_RESPONSES, "every response, and the sampled answers"
    first = capsys.readouterr().out
    assert "made before" not in first
    assert f"rewards of responses: {_NUM_RESPONSES} ok\n" in first
    outcome = [line for line in first.splitlines() if line.startswith(("Held-out answers", "critique reward model:"))]
    assert len(outcome) == 3

    assert run() == ([], 0, 0)
    again = capsys.readouterr().out
    stages = [line for line in again.splitlines() if line.startswith("stage ")]
    assert len(stages) == 4 and all(line.endswith(", made before") for line in stages)
    assert [line for line in again.splitlines() if line in outcome] == outcome


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--critique_rm.head", "mlp"), "critique_rm.head = 'linear', this run has 'mlp'"),
        (("--mm_dpo.critique_rm_lr", "0.5"), "optimizer.lr = 1e-06, this run has 0.5"),
        (("--run.seed", "5"), "run.seed = 0, this run has 5"),
        (("--mm_dpo.critique_rm_steps", "9"), "run.steps = 2, this run has 9"),
        (("--run.steps", "9"), "run.steps = 2, this run has 9"),
        (("--reward.critique.max_new_tokens", "9"), "reward.critique.max_new_tokens = 8, this run has 9"),
        (("--policy.tokens_per_microbatch", "300"), "policy.tokens_per_microbatch = 16384, this run has 300"),
        (("--mm_dpo.margin_weight", "0.75"), "mm_dpo.margin_weight = 0.5, this run has 0.75"),
        (("--preference.beta", "0.2"), "preference.beta = 0.1, this run has 0.2"),
        (("--mm_dpo.beta_mode", "fixed"), "mm_dpo.beta_mode = 'margin', this run has 'fixed'"),
        (("--rollout.temperature", "0.5"), "rollout.temperature = 1.0, this run has 0.5"),
    ],
)
def test_with_other_settings_nothing_is_reused_and_what_differs_is_named(
    run: Run, flags: tuple[str, ...], named: str
) -> None:
    run()
    told = run.refusal(*flags)
    assert named in told and "\n" not in told
    assert run() == ([], 0, 0), "the refusal has changed nothing"


def test_another_reward_model_does_not_get_the_tables_of_the_first(run: Run, tmp_path: Path) -> None:
    run()
    own = RunFolder(tmp_path / "run" / "critique_rm").complete_checkpoints()[-1] / "policy"
    other = tmp_path / "other"
    shutil.copytree(own, other)
    assert run("--reward.critique.path", str(other)) == ([], 0, 0), "the same weights are the same model"
    head = RewardHead("linear", 128)
    save_reward_head("linear", dict(head.named_parameters()), other, request=REQUEST)
    told = run.refusal("--reward.critique.path", str(other))
    assert "rewards/train" in told and "weights is " in told


def test_another_start_is_another_run(run: Run, tmp_path: Path) -> None:
    run()
    shutil.rmtree(run.model)
    build_digits_model(run.model, seed=1, words=VOCABULARY)
    told = run.refusal()
    assert "has model.path = " in told and "(weights " in told


def test_the_same_start_elsewhere_is_the_same_run(run: Run, tmp_path: Path) -> None:
    run()
    run.model = run.model.rename(tmp_path / "moved")
    assert run() == ([], 0, 0)


def test_answers_that_nothing_vouches_for_are_asked_for_again(run: Run) -> None:
    run()
    run.answers_mark.unlink()
    assert run() == ([], 0, 2), "the same texts are known to the cache"
    assert run() == ([], 0, 0)


def test_answers_that_are_half_replaced_are_vouched_for_by_nobody(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run()
    run.answers_mark.write_text("{}")

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(mm_dpo, "evaluate_answers", killed)
        run()
    assert not run.answers_mark.exists()
    assert run()[2] == 2


def test_a_longer_run_goes_on_from_the_same_tables(run: Run) -> None:
    run("--mm_dpo.critique_rm_steps", "2")
    trained, asked, _ = run("--mm_dpo.critique_rm_steps", "2", "--run.steps", "4")
    assert (trained, asked) == (["mm_dpo"], 0)


def test_a_run_that_starts_afresh_makes_everything_again(run: Run) -> None:
    run()
    trained, asked, sampled = run("--run.resume", "never", "--mm_dpo.critique_rm_lr", "0.5")
    assert (trained, sampled) == (["critique_rm", "mm_dpo"], 2)
    assert not asked, "the fake cache does not know one model from the other"
    assert "optimizer.lr = 0.5, this run has 1e-06" in run.refusal()


def test_a_run_that_must_go_on_goes_on_from_whatever_stage_it_has_reached(run: Run) -> None:
    assert "holds nothing that a stage has made" in run.refusal("--run.resume", "must")
    run()
    shutil.rmtree(run.root / "run" / "checkpoints")
    assert run("--run.resume", "must")[0] == ["mm_dpo"]


def test_settings_may_change_as_long_as_nothing_was_made(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(mm_dpo, "learn", killed)
        run()
    assert run("--critique_rm.head", "mlp")[0] == ["critique_rm", "mm_dpo"]
    assert "critique_rm.head = 'mlp', this run has 'linear'" in run.refusal()


def test_responses_without_a_reward_are_counted_over_the_whole_store(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run.workers = FakeWorkers(finish=lambda request: "length" if request.sample_index == 0 else "stop")
    run()
    told = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("rewards of responses"))
    counts = json.loads((run.root / "run" / "rewards" / "counts.json").read_text())
    assert set(counts) == {"ok", "cut"} and sum(counts.values()) == _NUM_RESPONSES
    assert told == "rewards of responses: " + ", ".join(f"{count} {name}" for name, count in counts.items())


class _Scores:
    """Stands in for the workers of a scalar reward model: longer samples are worth more, the longest is no number."""

    def __init__(self) -> None:
        self.num_asked = 0

    @contextmanager
    def pool(self, config: TrainConfig, plan: Any, spec: Any) -> Iterator[SimpleNamespace]:
        assert [worker.role for worker in plan.workers] == ["scalar_reward"]
        yield SimpleNamespace(role={"scalar_reward": self}.__getitem__)

    def start(self, spec: ScalarRewardSpec) -> None:
        self.model = spec.model.path

    def each(self, method: str, items: Sequence[Any], *, deadline_s: float) -> list[float]:
        assert method == "rewards"
        self.num_asked += len(items)
        lengths = [len(one.input_ids) for one in items]
        return [float("nan") if n == max(lengths) else float(n) for n in lengths]


def test_a_scalar_reward_model_measures_margins_and_answers(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    judge = run.root / "judge"
    shutil.copytree(run.model, judge)
    save_reward_head("linear", dict(RewardHead("linear", 128).named_parameters()), judge, request=None)
    scores = _Scores()
    monkeypatch.setattr(offline_judge, "worker_pool", scores.pool)
    flags = ("--reward.scalar_path", str(judge))
    assert run(*flags) == (["mm_dpo"], 0, 2)
    assert scores.model == str(judge) and scores.num_asked == _NUM_RESPONSES + 1
    told = capsys.readouterr().out
    assert "stage 1 of 4, scalar reward model" in told and f"taken from {judge}" in told
    assert "not_finite" in told and "scalar reward model: right on" in told
    kept = (run.root / "run" / "evaluations" / "answers.jsonl").read_text().splitlines()
    assert {json.loads(line)["before"]["critique"] for line in kept} == {""}
    # Again: nothing is made; with other weights: refused by name.
    assert run(*flags) == ([], 0, 0)
    save_reward_head("linear", {"weight": torch.ones(1, 128), "bias": torch.zeros(1)}, judge, request=None)
    with pytest.raises(RefusedInput, match="reward"):
        run(*flags)


def test_one_reward_model_measures_margins(run: Run) -> None:
    both = ("--reward.scalar_path", str(run.model), "--reward.critique.path", str(run.model))
    with pytest.raises(RefusedInput, match=r"reward\.critique\.path and reward\.scalar_path both say which"):
        run(*both)
