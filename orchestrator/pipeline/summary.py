"""The end of a run, for a person: did it learn, does it look, what did it say before and after, where is it all."""

import json
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console as RichConsole
from rich.table import Table
from rich.text import Text

from orchestrator.evaluation.types import EvalResult, EvalSample
from orchestrator.run.alarms import told_at_the_end
from orchestrator.run.folder import RunFolder
from workers.models.adapters import adapter_for
from workers.models.folder import (
    ADAPTER_CONFIG,
    REWARD_HEAD_FOLDER,
    gives_rewards_alone,
    has_reward_head,
    read_model_config,
)

_SHOWN = 3
_CHANCE = 0.5
_PLAIN_WIDTH = 120


def print_summary(
    before: EvalResult | None, after: EvalResult | None, folder: Path, *, measured: Iterable[str] = ()
) -> None:
    """Print the closing summary to standard output; without held-out data only where the run lies.

    Args:
        measured: What benchmarks say, in lines.
    """
    is_terminal = sys.stdout.isatty()
    console = RichConsole(
        file=sys.stdout, force_terminal=is_terminal, width=None if is_terminal else _PLAIN_WIDTH, highlight=False
    )
    # Text, not str: rich would read "[image]" in a prompt, or brackets a model wrote, as markup.
    console.print()
    if before is not None and after is not None:
        console.print(Text(accuracy_line(before, after), style="bold"), soft_wrap=True)
        for line in (*control_lines(after), *change_lines(before, after)):
            console.print(Text(line), soft_wrap=True)
        console.print(_verdicts(before, after))
    for line in (*measured, *next_lines(folder)):
        console.print(Text(line), soft_wrap=True)


def accuracy_line(before: EvalResult, after: EvalResult) -> str:
    """Held-out accuracy before and after, with the number of pairs and chance."""
    of = f"{after.num_pairs} pairs (chance {_CHANCE:.3f})" if after.judging else f"{after.num_pairs} prompts"
    return f"Held-out accuracy {before.accuracy:.3f} before, {after.accuracy:.3f} after, on {of}"


def control_lines(after: EvalResult) -> list[str]:
    """What says whether the accuracy comes from looking, and from no leaning to one side."""
    lines = []
    if after.first_position_rate is not None:
        told = " with a clear verdict" if after.unreadable_frac else ""
        lines.append(f"It chooses the response shown first in {after.first_position_rate:.1%} of the pairs{told}.")
    if after.unreadable_frac:
        lines.append(f"{after.unreadable_frac:.1%} of its answers hold no clear {_kind(after)}.")
    if after.accuracy_shuffled_images is not None:
        lines.insert(
            0,
            f"With the images shuffled among the pairs: {after.accuracy_shuffled_images:.3f} "
            f"(a judge that looks falls to {_CHANCE:.3f})"
            if after.judging
            else f"With the images shuffled among the prompts: {after.accuracy_shuffled_images:.3f}",
        )
    return lines


def _kind(result: EvalResult) -> str:
    return "verdict" if result.judging else "answer"


def change_lines(before: EvalResult, after: EvalResult) -> list[str]:
    """How many judgements became right and how many became wrong; nothing when the pairs differ."""
    pairs = _same_pairs(before, after)
    if not pairs:
        return []
    gained = sum(not _is_right(old) and _is_right(new) for old, new in pairs)
    lost = sum(_is_right(old) and not _is_right(new) for old, new in pairs)
    kind = "judgements" if after.judging else "answers"
    return [f"{gained} {kind} turned from wrong to right, {lost} from right to wrong."]


def next_lines(folder: Path) -> list[str]:
    """What has gone wrong without a failure, where the run lies and what to do next, of what there is."""
    lines = [
        *_alarm_lines(folder),
        f"The run:  {folder}",
        f"Report:   python -m orchestrator.report {shlex.quote(str(folder))}",
    ]
    curves = folder / "tensorboard"
    if curves.is_dir():
        lines.append(f"Curves:   tensorboard --logdir {shlex.quote(str(curves))}")
    checkpoints = RunFolder(folder).complete_checkpoints()
    if checkpoints and (checkpoints[-1] / "policy" / ADAPTER_CONFIG).is_file():
        lines.append(f"Adapter:  {checkpoints[-1] / 'policy'} (peft loads it)")
        lines.append(f"Model:    python -m orchestrator.export {shlex.quote(str(folder))} FOLDER (makes one of it)")
    elif checkpoints:
        lines.append(model_line(checkpoints[-1] / "policy"))
    return lines


def _alarm_lines(folder: Path) -> list[str]:
    own = RunFolder(folder)
    if not (own.metrics.is_file() and own.config.is_file()):
        return []
    return told_at_the_end(own.metrics.read_text(), json.loads(own.config.read_text()))


def model_line(folder: Path) -> str:
    """Where a model lies and who loads it.

    Args:
        folder: A model folder that was written whole.
    Raises:
        ValueError: it is none.
    """
    if has_reward_head(folder):
        served = "; vllm serve gives its rewards" if gives_rewards_alone(folder) else ""
        return f"Model:    {folder} (a reward model: its scalar head is in {REWARD_HEAD_FOLDER}{served})"
    served = adapter_for(str(read_model_config(folder)["model_type"])).vllm
    loaders = "transformers and vLLM load it" if served else "transformers loads it, vLLM does not serve it"
    return f"Model:    {folder} ({loaders})"


def chosen_samples(before: EvalResult, after: EvalResult) -> list[tuple[EvalSample, EvalSample]]:
    """A few pairs to show: judgements that changed first, then the rest, in file order."""
    pairs = _same_pairs(before, after)
    changed = [p for p in pairs if p[0].verdict != p[1].verdict]
    same = [p for p in pairs if p[0].verdict == p[1].verdict]
    return [*changed, *same][:_SHOWN]


def _same_pairs(before: EvalResult, after: EvalResult) -> list[tuple[EvalSample, EvalSample]]:
    old = {sample.uid: sample for sample in before.samples}
    return [(old[new.uid], new) for new in after.samples if new.uid in old]


def _verdicts(before: EvalResult, after: EvalResult) -> Table:
    table = Table(
        title="Held-out answers, changed ones first", title_justify="left", title_style="bold", show_lines=True
    )
    for column in ("question", "before", "after"):
        table.add_column(column, ratio=1)
    table.add_column("label")
    for old, new in chosen_samples(before, after):
        table.add_row(Text(old.prompt_text), _said(old, _kind(after)), _said(new, _kind(after)), Text(new.label or "-"))
    return table


def _said(sample: EvalSample, kind: str) -> Text:
    verdict = f"no clear {kind}" if sample.verdict is None else f"{kind} {sample.verdict}"
    right = _is_right(sample)
    mark = Text(f"\n({verdict}: {'right' if right else 'wrong'})", style="green" if right else "red")
    return Text(sample.completion_text).append_text(mark)


def _is_right(sample: EvalSample) -> bool:
    return sample.right
