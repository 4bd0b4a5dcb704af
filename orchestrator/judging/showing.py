"""What a judge says of a question, for people."""

from collections.abc import Iterator, Sequence

from orchestrator.evaluation.benchmarks.items import Item
from orchestrator.judging.verdicts import Compared, Pair, Ranked


def lines_of(item: Item, told: Compared | Ranked, *, with_texts: bool) -> Iterator[str]:
    """The greedy texts, then the verdict; nothing in them that a terminal would obey.

    Args:
        with_texts: Without, the verdict alone, behind the name of the row.
    """
    whose = "" if with_texts else f"row {item.row}{f' ({item.id})' if item.id else ''}: "
    texts = _texts(told) if with_texts else ()
    for line in (
        *texts,
        *(whose + line for line in (_of_votes(told) if isinstance(told, Compared) else _of_rewards(told))),
    ):
        yield from (_harmless(part) for part in line.split("\n"))


def _texts(told: Compared | Ranked) -> Iterator[str]:
    if isinstance(told, Ranked):
        yield from [told.text, ""] if told.text else []
        return
    for one in told.judgements:
        if one.sample == 0:
            yield f"{one.order[0]} shown before {one.order[1]}:"
            yield from (one.text.strip(), "")


def _of_votes(told: Compared) -> Iterator[str]:
    if len(told.pairs) > 1:
        yield from (f"{pair.responses[0]} or {pair.responses[1]}: {_of_pair(pair)}" for pair in told.pairs)
    unreadable = f"; {told.unreadable} unreadable" if told.unreadable else ""
    if told.winner is None:
        yield _undecided(told.tied, f"no verdict{_on_which(told.pairs)} can be read") + unreadable
        return
    own = [pair for pair in told.pairs if told.winner in pair.responses]
    votes = sum(pair.votes[pair.responses.index(told.winner)] for pair in own)
    confidence = "none" if told.confidence is None else f"{told.confidence:.3f}"
    yield (
        f"response {told.winner} is best: confidence {confidence}, {votes} of "
        f"{sum(sum(pair.votes) for pair in own)} readable votes{unreadable}"
    )


def _on_which(pairs: Sequence[Pair]) -> str:
    """The pairs that are not compared, unless none is."""
    silent = [f"{pair.responses[0]} or {pair.responses[1]}" for pair in pairs if not pair.is_compared]
    return f" on {', '.join(silent)}" if len(silent) < len(pairs) else ""


def _of_pair(pair: Pair) -> str:
    if not pair.is_compared:
        return f"undecided, {pair.unreadable} unreadable"
    unreadable = f", {pair.unreadable} unreadable" if pair.unreadable else ""
    votes = f"{pair.votes[0]} and {pair.votes[1]} votes{unreadable}"
    return f"a tie, {votes}" if pair.winner is None else f"{pair.winner}, {votes}"


def _of_rewards(told: Ranked) -> Iterator[str]:
    for number in told.ranking:
        yield f"response {number}: {told.rewards[number - 1]:.6g}"
    if told.missing:
        yield f"without a reward: {told.missing}"
    if told.winner is None:
        yield _undecided(told.tied, "there is no reward")
    elif told.margin is None:
        yield f"response {told.winner} alone has a reward"
    else:
        yield f"response {told.winner} is best: margin {told.margin:.6g}"


def _undecided(tied: Sequence[int], nobody: str) -> str:
    return f"a tie of responses {' and '.join(map(str, tied))}" if tied else f"undecided: {nobody}"


def _harmless(line: str) -> str:
    return "".join(c if c.isprintable() or c == "\t" else "\N{REPLACEMENT CHARACTER}" for c in line)
