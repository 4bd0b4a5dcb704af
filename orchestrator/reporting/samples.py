"""What the policy saw and said while it learned, step by step, under filters, with its images."""

from collections.abc import Sequence

from orchestrator.reporting.filters import choice, facts, filtered, group, span
from orchestrator.reporting.gallery import Gallery
from orchestrator.reporting.markup import Html, element, join
from orchestrator.reporting.rollouts import Rollout, StepRollouts
from orchestrator.reporting.texts import cut, longest_of, or_none


def sample_section(steps: Sequence[StepRollouts], gallery: Gallery, *, share: float = 1.0) -> Html:
    """Some rollouts of the steps, with their images, under controls.

    Args:
        share: Of the page's room for texts.
    """
    if not steps:
        return element("p", None, "No rollouts have been written.")
    rows = [row for step in steps for row in step.shown]
    longest = longest_of((text for row in rows for text in (row.prompt_text, row.completion_text)), share=share)
    controls = [
        *(span("step", "step") if len(steps) > 1 else []),
        *span("reward", "reward"),
        *choice("status", "status", (row.reward_status for row in rows)),
        *choice("source", "source", (row.source for row in rows)),
        *choice("answer", "answer", map(_answer, rows)),
    ]
    drawn = [_step(step, gallery, longest) for step in steps]
    note = element("p", {"class": "note"}, _told(steps, len(rows)))
    return join([note, filtered("rollouts", drawn, controls=controls, total=len(rows))])


def _told(steps: Sequence[StepRollouts], shown: int) -> str:
    total = sum(step.num_rows for step in steps)
    if shown == total:
        return f"All {total} rollouts."
    return f"{shown} of {total} rollouts, of each of {len(steps)} steps some of every kind: answer, status, source."


def _step(step: StepRollouts, gallery: Gallery, longest: int) -> Html:
    title = f"Step {step.step}"
    if step.problem:
        return group(element("h3", None, title), element("p", {"class": "missing"}, step.problem))
    if step.num_labelled:
        title += f": {step.num_right} of {step.num_labelled} answers right"
    cards = [_card(row, step.step, gallery, longest) for row in step.shown]
    return group(element("h3", None, title), element("div", {"class": "samples"}, *cards))


def _answer(row: Rollout) -> str:
    return "no label" if row.answer_right is None else "right" if row.answer_right else "wrong"


def _card(row: Rollout, step: int, gallery: Gallery, longest: int) -> Html:
    told = {
        "step": str(step),
        "reward": "" if row.reward is None else repr(row.reward),
        "status": row.reward_status,
        "source": row.source,
        "answer": _answer(row),
    }
    answer = "no clear answer" if row.verdict is None else f"answer {cut(row.verdict, longest)}"
    figures = [f"reward {or_none(row.reward)} ({row.reward_status})", f"label {cut(row.label or '-', longest)}", answer]
    figures += [f"{name} {or_none(value)}" for name, value in row.parts.items()]
    source = f" of {cut(row.source, longest)}" if row.source else ""
    return element(
        "article",
        facts(told),
        element("div", {"class": "pictures"}, gallery.pictures(row.media)),
        element("pre", {"class": "prompt"}, cut(row.prompt_text, longest)),
        element("pre", {"class": "completion"}, cut(row.completion_text, longest)),
        element("p", {"class": "figures"}, badge(row.answer_right), " " + " · ".join(figures)),
        element(
            "p",
            {"class": "note"},
            f"step {step}, {cut(row.uid, longest)}{source}, sample {row.sample_index}, finished by {row.finish_reason}",
        ),
    )


def badge(right: bool | None) -> Html:
    """Whether an answer is right, as a word in its colour."""
    word, kind = {None: ("no label", "unknown"), True: ("right", "right"), False: ("wrong", "wrong")}[right]
    return element("span", {"class": f"badge {kind}"}, word)
