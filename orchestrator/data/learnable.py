"""What an algorithm learns from in its training rows and what not, with the reasons: counted before a worker starts."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from algorithms.algorithm import Needs
from algorithms.maths.kto import kto_weight_warning
from algorithms.preference import PreferenceSection
from algorithms.records import Example
from orchestrator.config.schema import TrainConfig
from orchestrator.data.choice import Choice, choose
from orchestrator.data.counted import Counted, refuse_bad_share
from orchestrator.data.image_check import ImageCheck
from orchestrator.data.records import Instruction
from orchestrator.data.rows import BadRow, uid_parts
from orchestrator.errors import RefusedInput

_FEWEST_LABELLED = 2
"""With one instruction every response would be taken for a stranger to its own prompt."""
Encode = Callable[[Instruction], Example | str]


@dataclass(slots=True, kw_only=True)
class Learnable:
    """Counts over the training rows."""

    num_rows: int = 0
    num_held_out: int = 0
    """Rows beside them."""
    num_responses: int = 0
    num_learned: int = 0
    """Responses that are learned from."""
    num_pairs: int = 0
    """Of all rows, where pairs are learned from."""
    kinds: Counter[bool] = field(default_factory=Counter)
    """Desirable and undesirable responses, where these are told apart."""
    unused: list[BadRow] = field(default_factory=list)
    """Rows that nothing is learned from."""
    pairs_passed_over: Counted = field(default_factory=lambda: Counted("pairs passed over"))

    @property
    def num_used(self) -> int:
        """Rows that are learned from."""
        return self.num_rows - len(self.unused)

    def lines(self) -> Iterator[str]:
        """For people: always what is learned from, and what is not where there is any."""
        pairs = f", {self.num_pairs - self.pairs_passed_over.total} pairs" if self.num_pairs else ""
        yield (
            f"learned from: {self.num_used} of {self.num_rows} rows, "
            f"{self.num_learned} of their {self.num_responses} responses{pairs}"
        )
        yield from Counted("rows not learned from", self.unused).lines(self.num_rows)
        yield from self.pairs_passed_over.lines(self.num_pairs)

    def to_json(self) -> dict[str, Any]:
        """The same for a file."""
        return {
            "rows_not_learned_from": Counted("", self.unused).to_json(self.num_rows),
            "pairs_passed_over": self.pairs_passed_over.to_json(self.num_pairs),
            "responses_learned_from": {"count": self.num_learned, "of": self.num_responses},
        }


def look(
    rows: Iterable[Instruction],
    needs: Needs,
    *,
    score_margin: float,
    unfit: ImageCheck | None = None,
    encode: Encode | None = None,
) -> Learnable:
    """Go through the training rows as the run will.

    Args:
        rows: Of a whole file; those that are held out are counted alone.
        unfit: Says which images a model of the run cannot take; None looks at none.
        encode: Makes examples of them; None looks at texts, ranks and scores alone.
    """
    found = Learnable()
    for row in rows:
        if row.split != "train":
            found.num_held_out += 1
            continue
        found.num_rows += 1
        found.num_responses += len(row.responses)
        choice = (unfit and unfit(row.media)) or choose(row.responses, needs, score_margin=score_margin)
        made = choice if encode is None or isinstance(choice, str) else encode(row)
        num_pairs = len(choice.pairs) if isinstance(choice, Choice) and needs.responses == "pairs" else 0
        found.num_pairs += num_pairs
        if isinstance(made, str):
            bad = BadRow(uid_parts(row.uid)[1], made)
            found.unused.append(bad)
            found.pairs_passed_over.add(bad, num_pairs)
            continue
        found.num_learned += len(made.desirable or (made.responses if isinstance(made, Choice) else made.sequences))
        found.kinds.update(made.desirable)
        if num_pairs > len(made.pairs):
            same = BadRow(uid_parts(row.uid)[1], "the two responses of a pair are the same tokens")
            found.pairs_passed_over.add(same, num_pairs - len(made.pairs))
    return found


def refuse_unlearnable(found: Learnable, config: TrainConfig, *, bad_rows: Sequence[BadRow]) -> str | None:
    """Stop where too little is left to learn from; return what a person should know of the rest.

    Args:
        bad_rows: Of the file, which count with those that are not learned from.

    Raises:
        RefusedInput: more unused rows than ``data.max_bad_frac`` of those to be learned from, or more with the bad ones
            than that of the file; KTO with one instruction or one kind of response.
    """
    together = sorted([*bad_rows, *found.unused], key=lambda bad: bad.row) if found.unused else []
    for rows, num_held_out in ((found.unused, 0), (together, found.num_held_out)):
        refuse_bad_share(
            rows,
            num_good=found.num_used + num_held_out,
            name=str(config.data.path),
            option="data.max_bad_frac",
            max_bad_frac=config.data.max_bad_frac,
        )
    if not config.offline or config.needs.responses != "labels":
        return None
    kinds, settings = found.kinds, config.section(PreferenceSection)
    if found.num_used < _FEWEST_LABELLED:
        raise RefusedInput(
            f"data.path: --algo {config.algo} needs at least {_FEWEST_LABELLED} usable instructions, "
            f"found {found.num_used}: its baseline mixes them"
        )
    if not (kinds[True] and kinds[False]):
        raise RefusedInput(
            f"data.path: --algo {config.algo} needs desirable and undesirable responses, "
            f"found {kinds[True]} and {kinds[False]}"
        )
    return kto_weight_warning(
        kinds[True],
        kinds[False],
        desirable_weight=settings.desirable_weight,
        undesirable_weight=settings.undesirable_weight,
    )
