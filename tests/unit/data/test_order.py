"""The order of an epoch: everything once, the same everywhere, resumable at every position; and the two splits."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.data import store as store_module
from orchestrator.data.order import assign_split, permutation, stream_key
from orchestrator.data.store import PreferenceStore
from tests.unit.data.rows import picture
from tests.unit.data.store_rows import imported, plain, text_instruction, written

_ROWS = 101
FIXED = settings(
    derandomize=True, deadline=None, max_examples=40, database=None, suppress_health_check=[HealthCheck.too_slow]
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> PreferenceStore:
    """101 rows in 34 row groups and five windows, some of them held out."""
    rows = (text_instruction(n, num_responses=n % 4, held_out_frac=0.3) for n in range(_ROWS))
    return written(tmp_path_factory.mktemp("order") / "s", rows, group_rows=3, held_out_frac=0.3)


def _uids(store: PreferenceStore, **settings: int) -> list[str]:
    return [row.uid for row in store.iterate("train", **settings)]  # pyright: ignore[reportArgumentType]


@settings(FIXED, max_examples=15)  # each reads the store three times
@given(seed=st.integers(0, 2**63), epoch=st.integers(0, 50), data=st.data())
def test_an_epoch_resumes_at_every_position(store: PreferenceStore, seed: int, epoch: int, data: st.DataObject) -> None:
    whole = list(store.iterate("train", seed=seed, epoch=epoch))
    assert sorted(row.uid for row in whole) == sorted(row.uid for row in store.rows() if row.split == "train")
    start = data.draw(st.integers(0, len(whole)))
    assert list(store.iterate("train", seed=seed, epoch=epoch, start=start)) == whole[start:]


def test_seeds_and_epochs_and_splits_have_orders_of_their_own(store: PreferenceStore) -> None:
    orders = [_uids(store, seed=seed, epoch=epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4
    assert all(order != sorted(order) for order in orders)
    held_out = {row.uid for row in store.iterate("held_out", seed=0)}
    assert len(held_out) + len(orders[0]) == _ROWS
    assert not held_out & set(orders[0])


def test_rows_of_different_row_groups_mix(store: PreferenceStore) -> None:
    first = [int(uid[2:]) for uid in _uids(store, seed=0)[:12]]
    assert max(first) - min(first) > 30


def test_the_order_is_this_one_on_every_machine() -> None:
    # Derivation: the first output of SplitMix64 seeded with 0 is 0xE220A8397B1DCDAF (its reference code), the next
    # 0x6E789E6AA1B965F4 and 0x06C45D188009454F; so number 2 is the smallest, then 1, then 0.
    assert permutation(3, 0).tolist() == [2, 1, 0]
    digest = hashlib.blake2b(b'[0, 1, "train", "groups"]', digest_size=8).hexdigest()
    assert stream_key(0, 1, "train", "groups") == int(digest, 16)


@FIXED
@given(length=st.integers(0, 300), key=st.integers(0, 2**64 - 1))
def test_a_permutation_holds_every_number_once(length: int, key: int) -> None:
    assert np.array_equal(np.sort(permutation(length, key)), np.arange(length))


@pytest.mark.parametrize("start", [-1, _ROWS])
def test_a_start_that_is_no_position_is_refused(store: PreferenceStore, start: int) -> None:
    size = store.num_instructions("train")
    with pytest.raises(ValueError, match=f"start = {start}: must be from 0 to {size}, the rows of split 'train'"):
        store.iterate("train", seed=0, start=start)


def test_no_more_than_a_window_is_read_before_the_first_row(
    store: PreferenceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[int] = []
    read = PreferenceStore._read

    def counted(self: PreferenceStore, group, table, columns=None):
        reads.append(group.number)
        return read(self, group, table, columns)

    monkeypatch.setattr(PreferenceStore, "_read", counted)
    next(store.iterate("train", seed=0))
    assert len(set(reads)) == store_module.WINDOW_GROUPS
    reads.clear()
    next(store.iterate("train", seed=0, start=store.num_instructions("train") - 1))
    assert len(set(reads)) <= store_module.WINDOW_GROUPS  # what comes before the position is not read at all


WORDS = st.text(alphabet="ab \n", min_size=1, max_size=6).filter(str.strip)


@FIXED
@given(words=st.lists(WORDS, min_size=1, max_size=20), frac=st.floats(0, 0.99))
def test_rows_of_one_prompt_are_on_one_side(words: list[str], frac: float) -> None:
    """VL-RLHF acceptance 7."""

    def split(text: str) -> str:
        return assign_split([{"role": "user", "content": [{"type": "text", "text": text}]}], (), held_out_frac=frac)

    sides: dict[str, set[str]] = {}
    for text in words:
        sides.setdefault(" ".join(text.split()), set()).update((split(text), split(f"  {text}\n")))
    assert all(len(side) == 1 for side in sides.values())


def test_a_larger_share_holds_out_what_a_smaller_one_does_and_about_as_much_as_it_says() -> None:
    def held_out(frac: float) -> set[int]:
        rows = range(2000)
        return {n for n in rows if text_instruction(n, held_out_frac=frac).split == "held_out"}

    assert held_out(0.0) == set()
    assert held_out(0.1) < held_out(0.3)
    assert 0.27 * 2000 < len(held_out(0.3)) < 0.33 * 2000  # three standard deviations are 0.03


def test_an_image_makes_another_prompt_by_its_bytes_and_not_by_its_name(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", color="red")
    picture(tmp_path / "same.png", color="red")
    rows = [plain(prompt=f"p{n}", image=name, chosen=f"c{n}") for n in range(40) for name in ("a.png", "same.png")]
    made = imported(tmp_path, "plain_dpo", *rows, held_out_frac=0.5)
    split = {row.uid: row.split for row in made.rows()}
    by_row = [split[f"d-{n:06d}"] for n in range(1, 81)]
    assert by_row[::2] == by_row[1::2]
    assert set(by_row) == {"train", "held_out"}
