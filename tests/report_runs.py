"""Run folders for reports, as a run leaves them: written here in milliseconds."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from PIL import Image

from orchestrator.evaluation.types import EvalSample
from orchestrator.run.folder import RunFolder
from orchestrator.run.rollout_store import RolloutRow, write_rollouts

Media = tuple[tuple[str, str], ...]
ATTACK = "</pre><script>alert('x')</script><img src=x onerror=alert(1)>\"'&amp;"
_ROLLOUT = RolloutRow(
    uid="train-000001",
    sample_index=0,
    prompt_text="which ?",
    media=(),
    media_paths=(),
    completion_text="<answer> 1 </answer>",
    completion_ids=(1,),
    rollout_logprobs=(-0.5,),
    reward=1.5,
    reward_status="scored",
    parts={"format": 1.0, "accuracy": 1.0, "consistency": None},
    label="1",
    verdict="1",
    answer_right=True,
    finish_reason="stop",
    seed=1,
    policy_version=0,
    oldest_version=0,
)


def picture(path: Path, colour: tuple[int, int, int] = (10, 200, 30), size: tuple[int, int] = (40, 30)) -> Media:
    """A picture in a file, as rows name it."""
    Image.new("RGB", size, colour).save(path)
    return media(path)


def media(path: Path) -> Media:
    """Path and digest of a file."""
    return ((str(path), hashlib.sha256(path.read_bytes()).hexdigest()),)


def rollout(shown: Media = (), **changed: Any) -> RolloutRow:
    """A rollout that is right, but for what is changed."""
    paths, digests = tuple(path for path, _ in shown), tuple(digest for _, digest in shown)
    return replace(_ROLLOUT, media=digests, media_paths=paths, **changed)


def write_run(
    root: Path,
    rows: Sequence[Mapping[str, object]] = (),
    *,
    config: Mapping[str, object] | None = None,
    rollouts: Mapping[int, Sequence[RolloutRow]] | None = None,
    evaluations: Mapping[int, Sequence[EvalSample]] | None = None,
) -> Path:
    """A run folder with these files.

    Args:
        rollouts: By step.
        evaluations: Likewise.
    """
    folder = RunFolder(root)
    for made in (root, folder.rollouts, folder.evaluations):
        made.mkdir(parents=True, exist_ok=True)
    folder.config.write_text(
        json.dumps({"algo": "stable_reinforce", "run": {"steps": 10}} if config is None else config)
    )
    folder.manifest.write_text(json.dumps({"num_held_out": 512, "versions": {"torch": "2.13.0"}}))
    folder.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for step, kept in (rollouts or {}).items():
        write_rollouts(folder.rollout_file(step), kept)
    for step, samples in (evaluations or {}).items():
        told = {"accuracy": 0.5, "samples": [asdict(sample) for sample in samples]}
        folder.evaluation_file(step).write_text(json.dumps(told))
    return root


def held_out(uid: str, text: str, *, right: bool, shown: Media = (), source: str = "") -> EvalSample:
    """An answer to a held-out prompt."""
    return EvalSample(
        uid=uid,
        prompt_text=f"prompt {uid}",
        completion_text=text,
        verdict="1" if right else "2",
        label="1",
        right=right,
        source=source,
        media=shown,
    )
