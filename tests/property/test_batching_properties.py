"""For any lengths: every sample once, within the budget, the same number of micro-batches on every rank."""

from itertools import chain

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cluster.microbatches import (
    GroupSize,
    SampleSize,
    Shares,
    plan_groups,
    plan_microbatches,
    plan_samples,
)
from orchestrator.cluster.row_work import TOKENS_ALONE, RowWeights
from orchestrator.run.cursor import PromptCursor, shuffled_order, split_whole

_LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=40)


def _cost(batch: list[int], lengths: list[int]) -> int:
    return max(lengths[i] for i in batch) * len(batch)


def _check_shares(plan: list[list[list[int]]], *, num_samples: int, ranks: int) -> list[list[int]]:
    """Micro-batches that are not empty, of a plan that has every sample once and as many micro-batches on every rank.

    Empty ones are last, fewer than ranks, and there only where every sample has a micro-batch of its own.
    """
    batches = list(chain.from_iterable(plan))
    assert sorted(chain.from_iterable(batches)) == list(range(num_samples))
    assert len(plan) == ranks and len({len(own) for own in plan}) == 1
    assert all(not any(own[index + 1 :]) for own in plan for index, batch in enumerate(own) if not batch)
    num_empty = sum(not batch for batch in batches)
    assert num_empty < ranks and (num_empty == 0 or all(len(batch) <= 1 for batch in batches))
    return [batch for batch in batches if batch]


@given(_LENGTHS, st.integers(1, 16), st.integers(60, 400))
def test_every_sample_is_in_one_micro_batch_within_the_budget(lengths: list[int], ranks: int, budget: int) -> None:
    plan = plan_microbatches(lengths, num_ranks=ranks, token_budget=budget)
    assert all(_cost(b, lengths) <= budget for b in _check_shares(plan, num_samples=len(lengths), ranks=ranks))
    assert plan == plan_microbatches(lengths, num_ranks=ranks, token_budget=budget)


@given(_LENGTHS, st.integers(1, 16))
def test_a_budget_of_the_longest_sample_is_enough(lengths: list[int], ranks: int) -> None:
    plan = plan_microbatches(lengths, num_ranks=ranks, token_budget=max(lengths))
    assert all(_cost(b, lengths) <= max(lengths) for b in _check_shares(plan, num_samples=len(lengths), ranks=ranks))


@given(st.integers(1, 32), st.integers(1, 8), st.sampled_from([1, 2, 3, 8, 13, 16]), st.integers(1, 3), st.data())
def test_whatever_share_of_the_rewards_is_missing_the_rest_can_be_learned_from(
    num_prompts: int, siblings: int, ranks: int, num_updates: int, data: st.DataObject
) -> None:
    """From none to all; of each optimizer step every sample is on one rank, in micro-batches within the budget."""
    failing = data.draw(st.floats(0.0, 1.0))
    random = data.draw(st.randoms(use_true_random=False))
    drawn = [f"p{i}" for i in range(num_prompts) for _ in range(siblings) if random.random() >= failing]
    sizes = [SampleSize(uid, 20, 20 + random.randint(1, 80)) for uid in drawn]
    parts = split_whole(drawn, num_updates, seed=0, epoch=0)
    assert sorted(chain.from_iterable(parts)) == list(range(len(drawn)))
    for part in parts:
        own = [sizes[i] for i in part]
        for share in (False, True):
            plan = plan_samples(own, share_prompts=share, num_ranks=ranks, token_budget=100)
            assert sorted(chain.from_iterable(chain.from_iterable(plan))) == list(range(len(part)))
            assert len(plan) == ranks and len({len(batches) for batches in plan}) == 1
            assert share or all(sum(own[i].length for i in b) <= 100 for b in chain.from_iterable(plan))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=7), st.integers(9, 30))
def test_one_rank_gets_the_fewest_micro_batches_possible(lengths: list[int], budget: int) -> None:
    (batches,) = plan_microbatches(lengths, num_ranks=1, token_budget=budget)
    assert len(batches) == _fewest(tuple(sorted(lengths, reverse=True)), budget)


@given(_LENGTHS, st.integers(2, 4))
def test_ranks_differ_by_at_most_one_micro_batch(lengths: list[int], ranks: int) -> None:
    lengths = lengths * ranks
    plan = plan_microbatches(lengths, num_ranks=ranks, token_budget=240)
    loads = [sum(_cost(batch, lengths) for batch in own) for own in plan]
    assert max(loads) - min(loads) <= max(_cost(batch, lengths) for own in plan for batch in own)


@given(st.integers(1, 20), st.integers(0, 3), st.lists(st.integers(1, 25), min_size=1, max_size=6))
def test_batches_of_any_size_walk_through_whole_epochs(num_prompts: int, seed: int, sizes: list[int]) -> None:
    cursor, taken = PromptCursor(num_prompts=num_prompts, seed=seed), []
    for size in sizes:
        picks, cursor = cursor.take(size)
        assert len(set(picks)) == size
        taken += [pick.index for pick in picks]
    epochs = range(cursor.epoch + 1)
    walk = list(chain.from_iterable(shuffled_order(num_prompts, seed=seed, epoch=epoch) for epoch in epochs))
    assert taken == walk[: sum(sizes)]
    assert cursor.epoch * num_prompts + cursor.position == sum(sizes)


def _fewest(lengths: tuple[int, ...], budget: int) -> int:
    """Fewest micro-batches by trying every set of companions for the first sample."""
    if not lengths:
        return 0
    first, rest = lengths[0], lengths[1:]
    best = len(lengths)
    for chosen in range(2 ** len(rest)):
        companions = [i for i in range(len(rest)) if chosen >> i & 1]
        if max((first, *(rest[i] for i in companions))) * (1 + len(companions)) <= budget:
            left = tuple(length for i, length in enumerate(rest) if i not in companions)
            best = min(best, 1 + _fewest(left, budget))
    return best


_SAMPLES = st.lists(st.tuples(st.sampled_from("abcde"), st.integers(1, 20)), min_size=1, max_size=24)


@given(_SAMPLES, st.integers(1, 16), st.integers(60, 300), st.booleans())
def test_samples_of_a_prompt_stay_together_and_it_counts_once(
    drawn: list[tuple[str, int]], ranks: int, budget: int, share: bool
) -> None:
    prompt_lens = {uid: 5 * index + 1 for index, uid in enumerate("abcde")}
    samples = [SampleSize(uid, prompt_lens[uid], prompt_lens[uid] + n) for uid, n in drawn]
    plan = plan_samples(samples, share_prompts=share, num_ranks=ranks, token_budget=budget)
    batches = list(chain.from_iterable(plan))
    assert sorted(chain.from_iterable(batches)) == list(range(len(samples)))
    assert len({len(own) for own in plan}) == 1
    for batch in batches:
        rows: dict[object, int] = {}
        for i in batch:
            row = samples[i].uid if share else i
            rows[row] = rows.get(row, samples[i].prompt_len) + samples[i].length - samples[i].prompt_len
        # Pieces of one prompt that meet in a micro-batch share a row again, which can only be longer.
        assert sum(rows.values()) <= budget
    if share and budget == 300 and ranks == 1:
        assert len({tuple(sorted({samples[i].uid for i in b})) for b in batches}) == len(batches)


@given(
    st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=30),
    st.integers(1, 6),
    st.integers(0, 3),
)
def test_optimizer_steps_take_every_sample_once_and_whole_prompts_where_they_can(
    prompts: list[str], parts: int, seed: int
) -> None:
    dealt = split_whole(prompts, parts, seed=seed, epoch=0)
    assert sorted(chain.from_iterable(dealt)) == list(range(len(prompts)))
    assert len(dealt) == min(parts, len(prompts)) and all(dealt)
    owners = [{prompts[i] for i in part} for part in dealt]
    together = sum(map(len, owners)) == len(set(prompts))
    sizes = [len(part) for part in dealt]
    assert together or max(sizes) - min(sizes) <= 1, "what is not dealt by prompts is dealt evenly"
    if len(set(prompts)) % parts == 0 and together:
        assert len({len(owner) for owner in owners}) == 1


_WEIGHTS = st.builds(RowWeights, pair=st.floats(0.0, 0.2), action=st.floats(0.0, 2.0), patch=st.floats(0.0, 2.0))
_SIZED = st.lists(
    st.tuples(st.integers(0, 9), st.integers(1, 60), st.integers(1, 60), st.integers(0, 30)), min_size=1, max_size=60
)


def _work(samples: list[SampleSize], weights: RowWeights, plan: Shares, *, share: bool) -> list[list[int]]:
    """Of every micro-batch of a plan; without sharing, samples are filled up to the longest."""

    def of_batch(batch: list[int]) -> int:
        rows: dict[object, list[SampleSize]] = {}
        for i in batch:
            rows.setdefault(samples[i].uid if share else i, []).append(samples[i])
        each = [
            weights.of_row(some[0].prompt_len, [s.length - s.prompt_len for s in some], some[0].patches)
            for some in rows.values()
        ]
        return sum(each) if share else max(each, default=0) * len(each)

    return [[of_batch(batch) for batch in own] for own in plan]


def _rounds(work: list[list[int]]) -> int:
    """How long all micro-batches take where every rank waits for the slowest."""
    return sum(map(max, zip(*work, strict=True)))


@given(_SIZED, _WEIGHTS, st.integers(1, 8), st.integers(120, 600))
def test_ranks_wait_no_longer_than_by_tokens_alone_and_no_longer_than_one_micro_batch(
    drawn: list[tuple[int, int, int, int]], weights: RowWeights, ranks: int, budget: int
) -> None:
    samples = [SampleSize(str(i), prompt, prompt + n, patches) for i, (_, prompt, n, patches) in enumerate(drawn)]
    plan, alone = (
        plan_samples(samples, share_prompts=False, num_ranks=ranks, token_budget=budget, weights=w)
        for w in (weights, TOKENS_ALONE)
    )
    work = _work(samples, weights, plan, share=False)
    assert _rounds(work) <= _rounds(_work(samples, weights, alone, share=False))
    total = sum(map(sum, work))
    assert _rounds(work) * ranks <= total + ranks * max(map(max, work))


@given(_SIZED, _WEIGHTS, st.integers(1, 8), st.integers(300, 900))
def test_balanced_by_work_every_sample_is_learned_once_within_the_budget(
    drawn: list[tuple[int, int, int, int]], weights: RowWeights, ranks: int, budget: int
) -> None:
    prompts = {uid: (prompt, patches) for uid, prompt, _, patches in drawn}
    samples = [SampleSize(str(uid), prompts[uid][0], prompts[uid][0] + n, prompts[uid][1]) for uid, _, n, _ in drawn]
    plan, again = (
        plan_samples(samples, share_prompts=True, num_ranks=ranks, token_budget=budget, weights=weights)
        for _ in range(2)
    )
    assert plan == again and sorted(chain.from_iterable(chain.from_iterable(plan))) == list(range(len(samples)))
    assert len({len(own) for own in plan}) == 1
    for batch in chain.from_iterable(plan):
        tokens = {samples[i].uid: samples[i].prompt_len for i in batch}
        assert sum(tokens.values()) + sum(samples[i].length - samples[i].prompt_len for i in batch) <= budget
    work = _work(samples, weights, plan, share=True)
    assert _rounds(work) * ranks <= sum(map(sum, work)) + ranks * max(map(max, work))


_GROUPS = st.lists(
    st.builds(
        GroupSize,
        prompt_len=st.integers(1, 40),
        completions=st.lists(st.integers(1, 60), min_size=1, max_size=6).map(tuple),
        patches=st.integers(0, 30),
    ),
    min_size=1,
    max_size=40,
)


@given(_GROUPS, _WEIGHTS, st.integers(1, 8), st.integers(600, 1200), st.booleans())
def test_groups_stay_whole_within_the_budget_whatever_their_sizes(
    groups: list[GroupSize], weights: RowWeights, ranks: int, budget: int, share: bool
) -> None:
    plan = plan_groups(groups, share_prompts=share, num_ranks=ranks, token_budget=budget, weights=weights)
    batches = _check_shares(plan, num_samples=len(groups), ranks=ranks)
    for batch in batches:
        own = [groups[i] for i in batch]
        if share:
            tokens = sum(g.prompt_len + sum(g.completions) for g in own)
        else:  # as the collator lays them out
            tokens = max(g.prompt_len + max(g.completions) for g in own) * sum(len(g.completions) for g in own)
        assert tokens <= budget


@given(_GROUPS, _WEIGHTS, st.integers(1, 8))
def test_filling_counts_as_work_of_groups_that_do_not_share(
    groups: list[GroupSize], weights: RowWeights, ranks: int
) -> None:
    def work_of(batch: list[int]) -> int:
        slowest = (
            weights.of_row(g.prompt_len, [max(g.completions)], g.patches) for g in map(groups.__getitem__, batch)
        )
        return max(slowest, default=0) * sum(len(groups[i].completions) for i in batch)

    plan, alone = (
        plan_groups(groups, share_prompts=False, num_ranks=ranks, token_budget=600, weights=w)
        for w in (weights, TOKENS_ALONE)
    )
    found, by_tokens = (_rounds([[work_of(batch) for batch in own] for own in p]) for p in (plan, alone))
    assert found <= by_tokens
