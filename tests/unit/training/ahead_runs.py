"""Runs that learn from what earlier weights sampled, on real ranks here, with engines that answer by seed."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.rewards.reward import Reward
from orchestrator.run.cursor import sample_seed
from orchestrator.run.folder import RunFolder
from orchestrator.run.rollout_store import RolloutRow, read_rollouts
from orchestrator.training import answering as answering_module
from orchestrator.training.ahead import AheadWork
from orchestrator.training.answering import answering, online_identity
from orchestrator.training.loop import run
from orchestrator.training.online_step import OnlineWork
from orchestrator.training.session import open_session
from orchestrator.training.waiting import Waiting
from tests.in_process import InProcessPool
from tests.loops import BUDGET, loop_config, metric_rows, run_folder, told_prompts
from tests.unit.training.ahead_engines import SeededEngines
from workers.multimodal.prompt_encoder import PromptEncoder

PROMPTS, SAMPLES, LONGEST = 3, 2, 8
_AWAY = Reward(value=None, status="failed", detail="the service is away")
WHOLE = ("--rollout.staleness", "1")
PARTIAL = ("--rollout.staleness", "3", "--rollout.tokens_per_round", "3")


class ByText:
    """Rewards that are a function of what is said."""

    def __init__(self, away: Collection[int] = (), instead: Reward = _AWAY) -> None:
        """
        Args:
            away: Streams, counted from 0, whose items all earn ``instead``.
        """
        self._away, self._instead, self.asked = away, instead, list[set[str]]()

    def open_stream(self) -> Any:
        found: dict[str, Reward] = {}
        is_away, instead, asked = len(self.asked) in self._away, self._instead, set[str]()
        self.asked.append(asked)

        class Stream:
            def add(self, item: Any) -> None:
                value = float(sample_seed(0, item.response, item.length, 0) % 5)
                scored = Reward(value=value, parts={"format": 1.0}, status="scored")
                found[item.id] = instead if is_away else scored
                asked.add(item.id)

            def results(self) -> dict[str, Reward]:
                return found

        return Stream()


def answer_length(uid: str, index: int) -> int:
    return 1 + sample_seed(2, uid, index, 0) % LONGEST


def run_ahead(
    model: Path,
    root: Path,
    steps: int,
    monkeypatch: pytest.MonkeyPatch,
    *flags: str,
    lost_after: int | None = None,
    client: ByText | None = None,
    algo: str = "grpo",
) -> tuple[RunFolder, SeededEngines]:
    root.mkdir(exist_ok=True)
    config = loop_config(
        model, root, algo, "--data.path", "rows.json", "--rollout.prompts_per_step", str(PROMPTS),
        "--rollout.samples_per_prompt", str(SAMPLES), "--rollout.max_new_tokens", str(LONGEST),
        "--policy.train_batch_size", "3", "--guard.max_mismatch", "100", "--run.steps", str(steps), "--optimizer.lr",
        "1e-3", "--optimizer.schedule", "constant", "--run.checkpoint_every", "1", "--run.keep_checkpoints", "10",
        *flags,
    )  # fmt: skip
    encoder, data = PromptEncoder(str(model)), told_prompts(root)
    words = [encoder.encode_target(word)[0] for word in ("which", "?")]
    lens = {prompt.uid: len(encoder.encode(prompt).prompt_ids) for prompt in (*data.train.prompts, *data.held_out)}
    engines = SeededEngines(words, answer_length, prompt_lens=lens)
    engines.lost_after = lost_after
    monkeypatch.setattr(answering_module, "policy_engines", lambda *_, **__: engines)
    pool = InProcessPool(tokens_per_microbatch=BUDGET)
    identity = online_identity(config, data)
    with (
        run_folder(root) as folder,
        open_session(config, folder, pool, identity=identity, counts=data.counts, figures=()) as (session, start),
    ):
        asked = answering(session, encoder, data, policy_version=start.policy_version)
        work = OnlineWork(answering=asked, client=client or ByText())  # type: ignore[arg-type]
        run(session, AheadWork(online=work, waiting=Waiting(work)), start)
        return folder, engines


def rollouts_of(folder: RunFolder) -> list[list[RolloutRow]]:
    """Without the folders that the pictures lie in."""
    steps = [read_rollouts(folder.rollout_file(step)) for step in folder.rollout_steps()]
    return [[replace(row, media_paths=()) for row in rows] for rows in steps]


def told_figures(folder: RunFolder) -> list[dict[str, Any]]:
    """Figures without times and memory."""
    rows = metric_rows(folder)[1:]
    return [{k: v for k, v in r.items() if not k.startswith(("time/", "memory/", "throughput/"))} for r in rows]
