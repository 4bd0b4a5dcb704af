"""For any lengths: every sample once, within the budget, the same number of micro-batches on every rank."""

from itertools import chain

from hypothesis import assume, given
from hypothesis import strategies as st

from orchestrator.batching import (
    PromptCursor,
    SampleSize,
    plan_microbatches,
    plan_samples,
    shuffled_order,
    split_whole,
)
from orchestrator.errors import RefusedInput

_LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=40)


def _cost(batch: list[int], lengths: list[int]) -> int:
    return max(lengths[i] for i in batch) * len(batch)


@given(_LENGTHS, st.integers(1, 4), st.integers(60, 400))
def test_every_sample_is_in_one_micro_batch_within_the_budget(lengths: list[int], ranks: int, budget: int) -> None:
    lengths = (lengths * ranks)[: max(ranks, len(lengths) - len(lengths) % ranks)]
    plan = plan_microbatches(lengths, num_ranks=ranks, token_budget=budget)
    batches = list(chain.from_iterable(plan))
    assert sorted(chain.from_iterable(batches)) == list(range(len(lengths)))
    assert all(batch and _cost(batch, lengths) <= budget for batch in batches)
    assert len(plan) == ranks and len({len(own) for own in plan}) == 1
    assert plan == plan_microbatches(lengths, num_ranks=ranks, token_budget=budget)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=7), st.integers(9, 30))
def test_one_rank_gets_the_fewest_micro_batches_possible(lengths: list[int], budget: int) -> None:
    (batches,) = plan_microbatches(lengths, num_ranks=1, token_budget=budget)
    assert len(batches) == _fewest(tuple(sorted(lengths, reverse=True)), budget)


@given(_LENGTHS, st.integers(1, 4), st.integers(60, 200))
def test_refusal_of_an_unequal_share_is_never_avoidable(lengths: list[int], ranks: int, budget: int) -> None:
    assume(len(lengths) >= ranks)
    try:
        plan_microbatches(lengths, num_ranks=ranks, token_budget=budget)
    except RefusedInput:
        (alone,) = plan_microbatches(lengths, num_ranks=1, token_budget=budget)
        assert not any(k % ranks == 0 for k in range(len(alone), len(lengths) + 1))


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


@given(_SAMPLES, st.integers(1, 4), st.integers(60, 300), st.booleans())
def test_samples_of_a_prompt_stay_together_and_it_counts_once(
    drawn: list[tuple[str, int]], ranks: int, budget: int, share: bool
) -> None:
    prompt_lens = {uid: 5 * index + 1 for index, uid in enumerate("abcde")}
    samples = [SampleSize(uid, prompt_lens[uid], prompt_lens[uid] + n) for uid, n in drawn] * ranks
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
    st.integers(1, 4),
    st.integers(0, 3),
)
def test_optimizer_steps_take_every_sample_once_and_whole_prompts_where_they_can(
    prompts: list[str], parts: int, at_least: int, seed: int
) -> None:
    dealt = split_whole(prompts, parts, at_least=at_least, seed=seed, epoch=0)
    assert sorted(chain.from_iterable(dealt)) == list(range(len(prompts)))
    assert len(dealt) == min(parts, len(prompts)) and all(dealt)
    owners = [{prompts[i] for i in part} for part in dealt]
    together = sum(map(len, owners)) == len(set(prompts))
    sizes = [len(part) for part in dealt]
    assert together or max(sizes) - min(sizes) <= 1, "what is not dealt by prompts is dealt evenly"
    if len(set(prompts)) % parts == 0 and together:
        assert len({len(owner) for owner in owners}) == 1


def test_a_step_that_missing_rewards_left_too_small_for_the_ranks_takes_samples_of_other_prompts() -> None:
    prompts = ["a"] * 8 + ["b"] * 3
    dealt = split_whole(prompts, 2, at_least=4, seed=0, epoch=0)
    assert sorted(map(len, dealt)) == [5, 6]
    assert sorted(map(len, split_whole(prompts, 2, at_least=3, seed=0, epoch=0))) == [3, 8]
