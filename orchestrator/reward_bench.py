"""``python -m orchestrator.reward_bench MODEL FILE OUT``: a critique reward model on MM-RLHF-RewardBench.

Every response is criticised and rewarded once, however many pairs it is in. ``OUT`` keeps what was said of each, so
that a second call, or one after an interruption, asks only for the rest.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from orchestrator.cluster.waits import WaitTimeout
from orchestrator.config.load import load_config
from orchestrator.config.schema import TrainConfig
from orchestrator.data.image_check import ImageCheck
from orchestrator.data.pairs import preference_pairs
from orchestrator.data.reading import read_records
from orchestrator.data.records import Instruction, prompt_of
from orchestrator.data.rows import BadRow, uid_parts
from orchestrator.data.source_file import SourceFile
from orchestrator.errors import GuardStop, RefusedInput
from orchestrator.evaluation.benchmarks.mm_rlhf_reward_bench import CATEGORIES, count_mm_rlhf_reward_bench
from orchestrator.evaluation.benchmarks.pairs import PairRow
from orchestrator.evaluation.figures import Counting
from orchestrator.evaluation.statistics import Interval, intervals
from orchestrator.rewards.critique_judge import CritiqueReward, Question
from orchestrator.run.folder import RunFolder, write_atomic


@dataclass(frozen=True)
class RewardBench:
    """Score a critique reward model by MM-RLHF-RewardBench: pairs right (ACC), instructions wholly right (ACC+)."""

    model: tyro.conf.Positional[str]
    """Folder that a run of critique_rm left."""
    file: tyro.conf.Positional[str]
    """Pairs in the format of dpo_pairs.jsonl, named by their id."""
    out: tyro.conf.Positional[str]
    """Folder for the answers and the figures."""
    media_root: str | None = None
    """Folder of the media; none = that of the file."""
    max_new_tokens: int = 1024
    """Longest critique, tokens."""
    video_frames: int = 8
    """Frames read from each video."""
    seed: int = 0
    """Of the intervals."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0 done, 2 refused, 3 stopped."""
    command = tyro.cli(RewardBench, prog="python -m orchestrator.reward_bench", args=argv)
    try:
        sys.stdout.write(told(run(command), seed=command.seed))
    except RefusedInput as refusal:
        sys.stderr.write(f"refused: {refusal}\n")
        return 2
    except (GuardStop, WaitTimeout) as stop:
        sys.stderr.write(f"stopped: {stop}\n")
        return 3
    return 0


def run(command: RewardBench) -> Counting:
    """Judge the file's responses and write ``OUT/rewards.jsonl`` and ``OUT/figures.txt``.

    Raises:
        RefusedInput: the model is no critique reward model, or the file has a bad row or a category of its own.
    """
    # Deferred: refusals of the command line need neither torch nor Ray.
    from orchestrator.cluster.choices import settled_dtype
    from orchestrator.cluster.launch import ray_cluster
    from orchestrator.cluster.plan import single_role_plan
    from orchestrator.preflight import check_model, check_processors
    from orchestrator.rewards.critique_service import critique_judge, known_request, reward_fingerprint
    from orchestrator.run.log import quiet_libraries
    from orchestrator.run.recovery import with_restarts

    known_request(command.model)
    config, root = _config(command), Path(command.media_root or Path(command.file).parent)
    check_model(config)
    check_processors(config)
    instructions = _read(command, root)
    questions = [
        Question(prompt_of(row, media_root=root), response.text) for row in instructions for response in row.responses
    ]
    quiet_libraries()
    plan = single_role_plan(config, "critique_reward")
    config = settled_dtype(config, plan)
    fingerprint = reward_fingerprint(config, None, command.model)
    images = max(len(i.media) for i in instructions)
    folder = RunFolder(Path(command.out))
    folder.create()
    try:

        def ask(again: TrainConfig) -> list[CritiqueReward]:
            with critique_judge(again, folder, command.model, fingerprint, max_images=images) as judge:
                return judge.judge(questions)

        with ray_cluster(plan):
            answers = with_restarts(ask, config, folder)
        rows = bench_rows(instructions, answers)
        try:
            result = count_mm_rlhf_reward_bench(rows)
        except ValueError as error:
            raise RefusedInput(f"{command.file!r}: {error}") from error
        write_atomic(folder.root / "rewards.jsonl", _answers(instructions, answers))
        write_atomic(folder.root / "figures.txt", told(result, seed=command.seed))
    finally:
        folder.release()
    return result


def bench_rows(instructions: Sequence[Instruction], answers: Sequence[CritiqueReward]) -> list[PairRow]:
    """A row for every pair; NaN stands for a response without a reward, which makes its pairs wrong.

    Args:
        answers: One a response, instruction after instruction.
    """
    remaining = iter(answers)
    rows = []
    for instruction in instructions:
        rewards = [float("nan") if (a := next(remaining)).reward is None else a.reward for _ in instruction.responses]
        rows += [
            PairRow(
                id=str(instruction.meta["id"]),
                media=instruction.media[0].path,
                rewards=(rewards[pair.chosen], rewards[pair.rejected]),
            )
            for pair in preference_pairs(instruction.responses, score_margin=0.0)
        ]
    return rows


def told(result: Counting, *, seed: int) -> str:
    """The figures as a table, with the intervals that other instructions might have given."""
    spread = intervals(result, seed=seed)
    names = {figure.name for figure in result.figures}
    lines = ["             pairs  ids    ACC  95 %           ACC+  95 %"]
    lines += [_line(n, f"/{n}", result, spread) for n in CATEGORIES if f"accuracy/{n}" in names]
    lines.append(_line("overall", "", result, spread))
    if undecided := result.counts["undecided"]:
        lines.append(f"{undecided} pairs have equal rewards, or a response without one")
    return "\n".join([*lines, *result.notes]) + "\n"


def _line(name: str, suffix: str, result: Counting, spread: dict[str, Interval | None]) -> str:
    acc, plus = (next(f for f in result.figures if f.name == f"{n}{suffix}") for n in ("accuracy", "accuracy_plus"))
    (low, high), (low_plus, high_plus) = (spread[figure.name] or (0.0, 0.0) for figure in (acc, plus))
    return (
        f"{name:<12} {acc.weight:5.0f} {plus.weight:4.0f}  {acc.value:.3f}  {low:.3f}-{high:.3f}  "
        f"{plus.value:.3f}  {low_plus:.3f}-{high_plus:.3f}"
    )


def _config(command: RewardBench) -> TrainConfig:
    flags = ["--algo", "critique_rm", "--model.path", command.model, "--data.path", command.file]
    flags += ["--run.dir", command.out, "--reward.critique.max_new_tokens", str(command.max_new_tokens)]
    return load_config(flags)[0]


def _read(command: RewardBench, root: Path) -> list[Instruction]:
    source = SourceFile(
        path=Path(command.file),
        read_by="mm_rlhf_pairs",
        media_root=root,
        max_pixels=None,
        video_frames=command.video_frames,
    )
    instructions: list[Instruction] = []
    check = ImageCheck(_config(command))
    for record in read_records(source):
        # One missing instruction makes the figures those of another benchmark.
        if isinstance(record, BadRow):
            raise RefusedInput(f"{command.file!r}, row {record.row}: {record.reason}")
        if (problem := check(record.media)) is not None:
            raise RefusedInput(f"{command.file!r}, row {record.uid.rpartition('-')[2].lstrip('0')}: {problem}")
        if added := record.meta.get("num_pairs_added"):
            raise RefusedInput(f"{command.file!r}, id {record.meta['id']!r} lacks {added} pairs of its responses")
        if not record.media:
            raise RefusedInput(
                f"{command.file!r}, row {uid_parts(record.uid)[1]}: it has no image, which tells the category"
            )
        instructions.append(record)
    if not instructions:
        raise RefusedInput(f"{command.file!r} has no rows")
    return instructions


def _answers(instructions: Sequence[Instruction], answers: Sequence[CritiqueReward]) -> str:
    remaining = iter(answers)
    rows = [
        {"id": i.meta["id"], "response": r.text, "reward": a.reward, "critique": a.critique, "status": a.status}
        for i in instructions
        for r, a in ((r, next(remaining)) for r in i.responses)
    ]
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


if __name__ == "__main__":
    sys.exit(main())
