"""Which answers a step learns from follows from seeds and lengths alone, whatever lengths there are and engines do."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.rewards.reward import Reward
from orchestrator.run.ahead import read_ahead, write_ahead
from orchestrator.run.checkpoint import Progress
from orchestrator.run.cursor import PromptCursor, sample_seed
from orchestrator.run.metrics import PhaseClock
from orchestrator.training import ahead
from orchestrator.training.ahead import AheadWork
from orchestrator.training.learning import Kept, Learned
from orchestrator.training.online_metrics import Sampled
from orchestrator.training.online_step import OnlineWork
from orchestrator.training.waiting import Waiting
from tests.unit.training.ahead_engines import SeededEngines
from workers.types import EncodedPrompt, Prompt

_LONGEST, _DATA, _UPDATES = 64, 7, 2
_CASES = st.fixed_dictionaries(
    {
        "staleness": st.integers(1, 4),
        "prompts": st.integers(1, 5),
        "samples": st.integers(1, 3),
        "steps": st.integers(1, 9),
        "round": st.none() | st.integers(1, 40),
        "lengths": st.integers(0, 2**20),
    }
)


class _Stream:
    def __init__(self) -> None:
        self._found: dict[str, Reward] = {}

    def add(self, item: Any) -> None:
        self._found[item.id] = Reward(value=float(item.length), parts={"long": 0.1}, status="scored")

    def results(self) -> dict[str, Reward]:
        return self._found


class _Run:
    """A run without a policy: what its steps would learn from."""

    def __init__(self, case: dict[str, Any]) -> None:
        self.case, self.learned = case, list[Sampled]()
        self.engines = SeededEngines(range(5, 30), self.length, prompt_lens={f"p{n}": 3 for n in range(_DATA)})
        train = [Prompt(uid=f"p{n}", messages=(), media=()) for n in range(_DATA)]
        rollout = SimpleNamespace(
            staleness=case["staleness"], tokens_per_round=case["round"], prompts_per_step=case["prompts"],
            samples_per_prompt=case["samples"], max_new_tokens=_LONGEST, temperature=1.0,
        )  # fmt: skip
        config = SimpleNamespace(
            rollout=rollout, run=SimpleNamespace(seed=9, steps=case["steps"]), max_unknown=None,
            reward=SimpleNamespace(url=None, functions=(), min_coverage=0.9),
        )  # fmt: skip
        nobody = SimpleNamespace(actors=())
        pool = SimpleNamespace(role=lambda name: nobody)
        session = SimpleNamespace(config=config, phase=self._phase, pool=pool, deadline_s=60.0)
        encoder = SimpleNamespace(
            encode=lambda p: EncodedPrompt(uid=p.uid, engine_prompt_ids=(1, 2), prompt_ids=(1, 2, 2), media=()),
            decode=lambda ids: " ".join(map(str, ids)),
        )
        answering: Any = SimpleNamespace(
            session=session, engines=self.engines, train=train, encoder=encoder, learned=self.learned
        )
        client: Any = SimpleNamespace(open_stream=_Stream)
        work = OnlineWork(answering=answering, client=client)
        self.work = AheadWork(online=work, waiting=Waiting(work))

    def length(self, name: str, index: int) -> int:
        rng = np.random.Generator(np.random.Philox(sample_seed(self.case["lengths"], name, index, 0)))
        return int(np.clip(rng.lognormal(2.5, 0.8), 1, _LONGEST))

    def start(self) -> Progress:
        return Progress(step=0, num_updates=0, policy_version=0, cursor=PromptCursor(num_prompts=_DATA, seed=9))

    def step(self, progress: Progress) -> Progress:
        progress, figures = self.work.step(progress, PhaseClock())
        assert figures["rollout/staleness_max"] <= self.case["staleness"]
        self.engines.version = progress.policy_version
        return progress

    @contextmanager
    def _phase(self, name: str, clock: PhaseClock) -> Iterator[None]:
        yield


@pytest.fixture(autouse=True, scope="module")
def _no_policy() -> Iterator[None]:
    def learn(answering: Any, progress: Progress, found: Any, clock: PhaseClock) -> Learned:
        answering.learned.append(found.sampled)
        done = replace(progress, step=progress.step + 1, policy_version=progress.policy_version + _UPDATES)
        return Learned(done=done, figures={}, updates=(), num_planned=0, mismatch=None, remedy="none")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ahead, "learn", learn)
        patch.setattr(ahead, "synced", lambda *_: None)
        patch.setattr(ahead, "stored", lambda answering, step, found: nullcontext(Kept(found, {})))
        patch.setattr(ahead, "recorded", lambda *_: {})
        yield


def _go_on(run: _Run, progress: Progress, *, lost: dict[int, int] | None = None) -> list[Progress]:
    """Take the steps that are left; where the run stood behind each."""
    stands = list[Progress]()
    while progress.step < run.case["steps"]:
        run.engines.lost_after = (lost or {}).get(progress.step)
        progress = run.step(progress)
        stands.append(progress)
    assert progress.ahead == ()
    return stands


def _check(run: _Run) -> None:
    """What holds of any run: sizes, prompts, ids, seeds, and that no answer is older than allowed."""
    case, longest = run.case, 0
    assert [len(batch.completions) for batch in run.learned] == [case["prompts"] * case["samples"]] * case["steps"]
    taken = [c.uid.partition("~")[0] for batch in run.learned for c in batch.completions if c.sample_index == 0]
    picks, _ = run.start().cursor.take(case["prompts"] * case["steps"])
    assert sorted(taken) == sorted(f"p{pick.index}" for pick in picks), "every prompt as often as the cursor says"
    for step, batch in enumerate(run.learned):
        assert len({(c.uid, c.sample_index) for c in batch.completions}) == len(batch.completions)
        for request, completion, spans in zip(batch.requests, batch.completions, batch.spans, strict=True):
            age = step - spans[0][1] // _UPDATES
            longest = max(longest, age)
            assert 0 <= age <= case["staleness"] and [v for _, v in spans] == sorted({v for _, v in spans})
            name = completion.uid.partition("~")[0]
            assert len(completion.completion_ids) == run.length(name, completion.sample_index)
            assert sum(tokens for tokens, _ in spans) == len(completion.completion_ids)
            assert completion.finish_reason == "stop"
            assert request.seed == sample_seed(9, completion.uid, completion.sample_index, spans[0][1])
    for uid, index, drawn, seed, version in run.engines.asked:
        assert seed == sample_seed(9, uid, index, version, drawn)


@settings(max_examples=150, deadline=None)
@given(_CASES)
def test_every_prompt_is_learned_once_in_time_and_by_its_seed(case: dict[str, Any]) -> None:
    run = _Run(case)
    _go_on(run, run.start())
    _check(run)
    assert len(run.engines.asked) == len(set(run.engines.asked)), "nothing is drawn twice"
    assert (
        sum(drawn == 0 for _, _, drawn, _, _ in run.engines.asked) == case["steps"] * case["prompts"] * case["samples"]
    )


@settings(max_examples=60, deadline=None)
@given(_CASES, st.dictionaries(st.integers(0, 8), st.integers(0, 10), max_size=4))
def test_where_no_engine_is_left_answers_wait_and_stay_in_time(case: dict[str, Any], lost: dict[int, int]) -> None:
    run = _Run(case)
    _go_on(run, run.start(), lost=lost)
    _check(run)


@settings(max_examples=40, deadline=None)
@given(_CASES)
def test_a_run_goes_on_from_what_a_checkpoint_keeps(case: dict[str, Any]) -> None:
    whole = _Run(case)
    stands = _go_on(whole, whole.start())
    for progress in stands[:-1]:
        with tempfile.TemporaryDirectory() as folder:
            write_ahead(Path(folder), progress.ahead)
            kept = replace(progress, ahead=read_ahead(Path(folder)))
        again = _Run(case)
        again.engines.version = progress.policy_version
        _go_on(again, kept)
        for one, other in zip(whole.learned[progress.step :], again.learned, strict=True):
            assert [c.uid for c in one.completions] == [c.uid for c in other.completions]
            assert (one.rewards, one.spans, one.requests) == (other.rewards, other.spans, other.requests)
            for before, after in zip(one.completions, other.completions, strict=True):
                assert np.array_equal(before.completion_ids, after.completion_ids)
                assert np.array_equal(before.rollout_logprobs, after.rollout_logprobs)


def test_whole_answers_are_learned_in_the_order_of_issue() -> None:
    case = {"staleness": 2, "prompts": 3, "samples": 2, "steps": 6, "round": None, "lengths": 1}
    run = _Run(case)
    _go_on(run, run.start())
    picks, _ = run.start().cursor.take(18)
    taken = [c.uid.partition("~")[0] for batch in run.learned for c in batch.completions if c.sample_index == 0]
    assert taken == [f"p{pick.index}" for pick in picks]
    assert [batch.spans[0][0][1] // _UPDATES for batch in run.learned] == [0, 0, 0, 1, 2, 3]


def test_long_answers_are_overtaken_and_carried_over() -> None:
    case = {"staleness": 4, "prompts": 3, "samples": 2, "steps": 9, "round": 16, "lengths": 3}
    run = _Run(case)
    _go_on(run, run.start())
    spans = [own for batch in run.learned for own in batch.spans]
    assert max(len(own) for own in spans) > 1
    picks, _ = run.start().cursor.take(27)
    taken = [c.uid.partition("~")[0] for batch in run.learned for c in batch.completions if c.sample_index == 0]
    assert taken != [f"p{pick.index}" for pick in picks]
