"""What the policy saw and said at the first, the middle and the last step, with its images as the model saw them.

Images are decoded and written anew into the page, so only pictures get in.
"""

import base64
import io
from pathlib import Path

import pyarrow as pa

from orchestrator.reporting.charts import number
from orchestrator.reporting.markup import Html, element, join
from orchestrator.run.folder import RunFolder
from orchestrator.run.rollout_store import RolloutRow, read_rollouts
from orchestrator.run.thumbnails import thumbnail
from workers.multimodal.pictures import PictureError

_PER_STEP = 4
_LONGEST_TEXT = 4000


def sample_section(folder: RunFolder) -> Html:
    """A few rollouts of three steps, with their images."""
    steps = folder.rollout_steps()
    if not steps:
        return element("p", None, "No rollouts have been written.")
    return join(_step(folder, step) for step in dict.fromkeys((steps[0], steps[len(steps) // 2], steps[-1])))


def chosen(rows: list[RolloutRow]) -> list[RolloutRow]:
    """Right and wrong answers in turn, each in file order: neither the best nor the worst of the step."""
    right = [row for row in rows if row.answer_right]
    wrong = [row for row in rows if not row.answer_right]
    half = _PER_STEP // 2
    num_right = min(len(right), max(half, _PER_STEP - len(wrong)))
    return [*right[:num_right], *wrong[: _PER_STEP - num_right]]


def _step(folder: RunFolder, step: int) -> Html:
    try:
        rows = read_rollouts(folder.rollout_file(step))
    except (pa.ArrowInvalid, OSError, TypeError) as error:
        return join([element("h3", None, f"Step {step}"), element("p", None, f"Its rollouts cannot be read: {error}")])
    known = [row for row in rows if row.answer_right is not None]
    title = f"Step {step}" + (
        f": {sum(bool(r.answer_right) for r in known)} of {len(known)} answers right" if known else ""
    )
    return join([element("h3", None, title), element("div", {"class": "samples"}, *map(_sample, chosen(rows)))])


def _sample(row: RolloutRow) -> Html:
    answer = "no clear answer" if row.verdict is None else f"answer {cut(row.verdict)}"
    told = "no label" if row.answer_right is None else "right" if row.answer_right else "wrong"
    badge = element("span", {"class": "right" if row.answer_right else "wrong"}, told)
    figures = [f"reward {_or_none(row.reward)} ({row.reward_status})", f"label {row.label or '-'}", answer]
    figures += [f"{name} {_or_none(value)}" for name, value in row.parts.items()]
    return element(
        "article",
        None,
        element("div", {"class": "pictures"}, pictures(row.media_paths, row.media)),
        element("pre", {"class": "prompt"}, cut(row.prompt_text)),
        element("pre", {"class": "completion"}, cut(row.completion_text)),
        element("p", {"class": "figures"}, badge, " " + " · ".join(figures)),
        element("p", {"class": "note"}, f"{row.uid}, sample {row.sample_index}, finished by {row.finish_reason}"),
    )


def _or_none(value: float | None) -> str:
    return "none" if value is None else number(value)


def cut(text: str) -> str:
    """As much of a text as a page shows, and how much it leaves out."""
    left_out = len(text) - _LONGEST_TEXT
    return text if left_out <= 0 else f"{text[:_LONGEST_TEXT]} … {left_out} characters more"


_MOST_SHOWN = 4


def pictures(paths: tuple[str, ...], digests: tuple[str, ...]) -> Html:
    """The first few images of one prompt; one that cannot be shown is a sentence that says why.

    Args:
        digests: SHA-256 of each file as the run saw it.
    """
    shown = [_picture(Path(path), digest) for path, digest in list(zip(paths, digests, strict=True))[:_MOST_SHOWN]]
    if len(paths) > _MOST_SHOWN:
        shown.append(element("span", {"class": "missing"}, f"and {len(paths) - _MOST_SHOWN} more"))
    return join(shown)


def _picture(path: Path, digest: str) -> Html:
    try:
        small = thumbnail(path, digest)
    except PictureError as error:
        return element("span", {"class": "missing"}, f"{path.name} {error}")
    buffer = io.BytesIO()
    small.save(buffer, format="PNG")
    source = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return element("img", {"src": source, "alt": path.name, "title": path.name})
