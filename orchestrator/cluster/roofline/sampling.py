"""What engines do: prompts read once, then a token of every running sequence at a time."""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.cluster.resources import GIB
from orchestrator.cluster.roofline.hardware import PEAK, Machine, Reach
from orchestrator.cluster.roofline.layout import Laid, best_layout
from orchestrator.cluster.roofline.lengths import Asked, Lengths
from orchestrator.cluster.roofline.passes import forward_flops, total
from orchestrator.cluster.roofline.phase import Phase, phase_of
from orchestrator.cluster.roofline.shape import ModelCounts
from orchestrator.cluster.roofline.work import Work, busiest, seconds

_PREFILLED_AT_ONCE = 8192
"""Tokens; about what vLLM batches on these GPUs. It bounds how often weights are read."""
_REDUCED_A_LAYER = 2
"""All-reduces of tensor parallelism in a forward (Shoeybi et al. 2019, https://arxiv.org/abs/1909.08053)."""


@dataclass(frozen=True, kw_only=True)
class Engines:
    """Some engines alike."""

    shape: ModelCounts
    machine: Machine
    reach: Reach
    width: int
    """Bytes of a weight, and of a key or value."""
    number: float
    """Of engines; a share of one where the best plan has fewer GPUs than an engine spans."""
    tp: int
    """GPUs that share one engine."""
    slots: int
    """Sequences that one may run at once."""
    memory_share: float = 1.0
    """Of a GPU's memory that one may take."""

    def fits(self, lengths: Lengths) -> int:
        """Sequences for whose keys and values an engine has room, at their full lengths; no more than its slots."""
        if self.machine.gpu_memory_gib is None:
            return self.slots
        room = self.machine.gpu_memory_gib * GIB * self.memory_share * self.tp - self.shape.num_params * self.width
        whole = [a.prompt / max(1, len(a.answers)) + n for a in lengths for n in a.answers]
        each = sum(whole) / max(1, len(whole)) * self.shape.key_value_width * self.width
        return max(1, min(self.slots, int(room / max(each, 1.0))))

    def token_work(self, running: float, context: float) -> Work:
        """One token of each running sequence, on one GPU of an engine; ``context`` is their mean length before it."""
        shape, tp = self.shape, self.tp
        products = 2 * (shape.language.products + shape.head) + 4 * shape.attention_width * context
        read = shape.read_a_token(running) + running * context * shape.key_value_width
        reduced = _REDUCED_A_LAYER * shape.layers * 2 * (tp - 1) / tp * shape.hidden * self.width
        rounds = _REDUCED_A_LAYER * shape.layers * 2 * math.ceil(math.log2(tp))
        return Work(
            flops=running * products / tp, memory=read * self.width / tp, link=running * reduced, messages=rounds
        )

    def token_seconds(self, running: float, context: float) -> float:
        """Least time of one such token."""
        return seconds(self.token_work(running, context), self.machine, self.reach)


def prefill(engines: Engines, lengths: Lengths, *, best_number: float) -> Phase:
    """Every prompt once, with its image: all samples of a prompt are on one engine, which keeps what it has read."""
    shape, each = engines.shape, len(lengths) / engines.number
    prompts = tuple(Asked(prompt=a.prompt, image=a.image, answers=()) for a in lengths)
    laid = best_layout(shape, prompts) + Laid(predicted=sum(len(a.answers) for a in lengths))
    flops = total({**forward_flops(shape, laid), "adapters": 0.0})
    read = shape.read_a_token(_PREFILLED_AT_ONCE) * engines.width

    def on(number: float) -> Work:
        calls = math.ceil(laid.tokens / number / _PREFILLED_AT_ONCE)
        return Work(flops=flops / number / engines.tp, memory=calls * read / engines.tp)

    busy = len(lengths) / math.ceil(each)  # as if all had as many prompts as the one with the most
    return phase_of(
        "prefill", on(best_number), on(busy), engines.machine, engines.reach, gpus=round(engines.number * engines.tp)
    )


def decode(engines: Engines, lengths: Lengths, *, best_number: float) -> Phase:
    """All answers, token after token.

    At best every engine runs all of its share from the start and reads its weights once for a token of each, and no
    step ends before its longest answer has been written at the pace of one sequence alone.
    """
    best, tail = _best_decode(engines, lengths, best_number)
    alone = engines.token_work(1, 0.0)
    ours, ours_s = slowest_engine(engines, lengths)
    bound_s = max(seconds(best, engines.machine, engines.reach), tail * seconds(alone, engines.machine, engines.reach))
    return Phase(
        name="decode", best=best, ours=ours, gpus=round(engines.number * engines.tp),
        peak_s=max(seconds(best, engines.machine, PEAK), tail * seconds(alone, engines.machine, PEAK)),
        bound_s=bound_s, ours_s=max(ours_s, bound_s), bound_by=busiest(ours, engines.machine, engines.reach),
    )  # fmt: skip


def _best_decode(engines: Engines, lengths: Lengths, number: float) -> tuple[Work, int]:
    """On one GPU of so many engines; and the tokens of the longest answer."""
    answers = [(a.prompt, n) for a in lengths for n in a.answers]
    tokens = sum(n for _, n in answers)
    seen = sum(n * p + n**2 / 2 for p, n in answers)  # positions that a token attends to, over all tokens
    unlimited = Engines(**{**_fields(engines), "slots": max(1, len(answers))})
    together = min(len(answers) / number, unlimited.fits(lengths))
    one = engines.token_work(together, seen / max(tokens, 1)) * (1 / together)
    return one * (tokens / number), max((n for _, n in answers), default=0)


def slowest_engine(engines: Engines, lengths: Lengths) -> tuple[Work, float]:
    """Work and least seconds of the engine that ends last, where prompts are dealt out in turn."""
    number = max(1, round(engines.number))
    slots = engines.fits(lengths)
    shares = [[(a.prompt, n) for a in lengths[i::number] for n in a.answers] for i in range(number)]
    done = [engine_seconds(engines, share, slots=slots) for share in shares if share]
    return max(done, key=lambda one: one[1], default=(Work(), 0.0))


def engine_seconds(engines: Engines, sequences: Sequence[tuple[int, int]], *, slots: int) -> tuple[Work, float]:
    """Work on one GPU of an engine, and least seconds, for sequences that begin in order as others end.

    Args:
        sequences: Prompt and answer, tokens.
    """
    waiting, running = list(reversed(sequences)), list[tuple[int, int, int]]()
    now, work, spent, behind = 0, Work(), 0.0, 0
    while waiting or running:
        while waiting and len(running) < slots:
            prompt, length = waiting.pop()
            heapq.heappush(running, (now + length, now, prompt))
            behind += prompt - now  # what a sequence attends to, but for the step it is in
        tokens = running[0][0] - now
        context = behind / len(running) + now + tokens / 2
        one = engines.token_work(len(running), context)
        work, spent = work + one * tokens, spent + tokens * seconds(one, engines.machine, engines.reach)
        now += tokens
        while running and running[0][0] == now:
            _, began, prompt = heapq.heappop(running)
            behind -= prompt - began
    return work, spent


def _fields(engines: Engines) -> dict[str, object]:
    return {name: getattr(engines, name) for name in Engines.__dataclass_fields__}
