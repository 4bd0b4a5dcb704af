"""A row on which two models differ, in full: for ``disagreements``, which says which rows those are."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from orchestrator.evaluation.benchmarks.items import Item, Part
from orchestrator.evaluation.figures import Worth
from orchestrator.evaluation.predictions import Prediction
from orchestrator.evaluation.verdict_readings import READINGS
from orchestrator.reporting.charts import number
from orchestrator.reporting.gallery import pictures
from orchestrator.reporting.markup import Html, element, join
from orchestrator.reporting.texts import cut

_THOUGHT = "</think>"
_SHORT = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A row that does not count for the same with both models."""

    index: int
    """Of the item."""
    first: Worth
    second: Worth
    """In the same figure."""

    @property
    def better(self) -> Literal[0, 1]:
        """Which model it speaks for."""
        more: Literal[0, 1] = 0 if self.first.value > self.second.value else 1
        less: Literal[0, 1] = 0 if more else 1
        return less if self.first.less_is_better else more


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What two models said of the same items."""

    items: Sequence[Item]
    said: tuple[Sequence[Sequence[Prediction]], Sequence[Sequence[Prediction]]]
    """Of the first and the second model, the predictions about each item."""
    names: tuple[str, str]
    readings: tuple[str, str]
    """How each writes its verdicts, of ``READINGS``."""
    votes: int | None


def row_name(compared: Compared, one: Difference) -> str:
    """Its number in the file."""
    return f"row {compared.items[one.index].row}"


def anchor(compared: Compared, one: Difference) -> str:
    """Where it stands on the page."""
    return f"row-{compared.items[one.index].row}"


def article(compared: Compared, one: Difference) -> Html:
    """A row in full: what it shows and asks, what is right, and what each model made of it."""
    item = compared.items[one.index]
    told = (
        f"row {item.row}" + (f", {cut(item.id)}" if item.id else "") + (f", {item.category}" if item.category else "")
    )
    return element(
        "article",
        {"id": anchor(compared, one)},
        element("div", {"class": "pictures"}, pictures((ref.path, ref.sha256) for ref in item.media)),
        element("pre", {"class": "prompt"}, cut(_words(item.question))),
        *_choices(item),
        *(_model(compared, one, model) for model in (1, 0)),
        element("p", {"class": "note"}, f"{told}; counted in {one.first.figure}"),
    )


def _choices(item: Item) -> Iterator[Html]:
    """Options or responses, and which is right."""
    if item.options:
        yield element("pre", None, cut("\n".join(f"{letter}. {text}" for letter, text in item.options.items())))
    for place, response in enumerate(item.responses, start=1):
        better = [" ", element("span", {"class": "right"}, "the better one")] if str(place) in item.truths else []
        yield element("p", {"class": "figures"}, f"Response {place}", *better)
        yield element("pre", None, cut(_words(response)))
    if not item.responses and item.truths:
        yield element("p", {"class": "figures"}, "Right: ", element("b", None, cut(" or ".join(item.truths))))


def _model(compared: Compared, one: Difference, model: int) -> Html:
    item, said = compared.items[one.index], compared.said[model][one.index]
    worth = (one.first, one.second)[model]
    badge = element("span", {"class": "right" if one.better == model else "wrong"}, f"counts {number(worth.value)}")
    orders = list(dict.fromkeys(p.order for p in said))
    told = [line for order in orders for line in _told(compared, model, item, [p for p in said if p.order == order])]
    return join(
        [
            element("h3", None, compared.names[model], " ", badge),
            *(element("p", {"class": "figures"}, line) for line in told),
            *_written(said),
        ]
    )


def _told(compared: Compared, model: int, item: Item, said: Sequence[Prediction]) -> Iterator[str]:
    """What it said of one order, greedily and as samples vote; of a question its answer."""
    greedy = next((one for one in said if one.sample == 0), None)
    if greedy is not None and greedy.rewards:
        yield "rewards " + ", ".join(f"{n}: {value:.4g}" for n, value in enumerate(greedy.rewards, start=1))
    elif greedy is not None and not greedy.order:
        answer = " ".join(greedy.text.rpartition(_THOUGHT)[2].split())
        yield f"answer: {answer if len(answer) <= _SHORT else f'{answer[:_SHORT]} …'}" if answer else "no answer"
        if greedy.reply is not None:
            yield f"the judge of answers: {cut(greedy.reply)}"
    elif greedy is not None:
        where = {"12": "as listed", "21": "the second first"}.get(greedy.order, greedy.order)
        shown = f"{where}: " if item.responses else ""
        reading = compared.readings[model]
        yield f"{shown}{_verdict(greedy, reading)}"
        votes = Counter(_verdict(one, reading) for one in said if one.sample)
        if votes:
            most = ", ".join(f"{count} {verdict}" for verdict, count in votes.most_common())
            used = "" if compared.votes is None else f", of which the first {compared.votes} vote"
            yield f"{shown}{votes.total()} samples{used}: {most}"


def _verdict(one: Prediction, reading: str) -> str:
    """By number of the response in the file, whatever the order that it was shown in."""
    verdict = READINGS[reading](one.text)
    return "not readable" if verdict is None else f"for response {one.order[int(verdict) - 1]}"


def _written(said: Sequence[Prediction]) -> Iterator[Html]:
    """All that it wrote, behind a click, the greedy answers before the samples."""
    texts = [one for one in sorted(said, key=lambda p: (p.sample > 0, p.order, p.sample)) if one.text]
    if texts:
        blocks = [
            part
            for one in texts
            for part in (
                element("p", {"class": "note"}, _which(one)),
                element("pre", {"class": "completion"}, cut(one.text)),
            )
        ]
        yield element("details", None, element("summary", None, "what it wrote"), *blocks)


def _which(one: Prediction) -> str:
    shown = {"12": ", as listed", "21": ", the second response first"}.get(one.order, "")
    return ("greedy" if one.sample == 0 else f"sample {one.sample}") + shown


def _words(parts: Sequence[Part]) -> str:
    return "".join(part["text"] if part["type"] == "text" else "[image]" for part in parts)
