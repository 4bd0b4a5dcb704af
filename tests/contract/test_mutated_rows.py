"""Rows spoiled in one place each, over every format: refused by number, or read with nothing altered in silence."""

import random
import sys
from collections import Counter
from pathlib import Path

import pytest

from orchestrator.config.formats import FORMATS
from orchestrator.data.reading import read_prompts
from orchestrator.data.store import PreferenceStore
from orchestrator.data.writer import import_file
from tests.base_rows import base_rows
from tests.mutated_rows import altered, media_folder, mutate, read_row, said
from tests.unit.data.rows import source

_MOST_CHARS = 601


def _mutations(reader: str, count: int, folder: Path, *, seed: int) -> Counter[str]:
    """How many were refused and how many read, none of them with a word changed."""
    bases = base_rows(reader)
    reads = [read_row(folder, reader, base) for base in bases]
    assert all(read.found and not read.bad for read in reads)
    counted: Counter[str] = Counter()
    for number in range(count):
        rng = random.Random(f"{seed}/{reader}/{number}")
        which = rng.randrange(len(bases))
        mutation = mutate(rng, bases[which])
        read = read_row(folder, reader, mutation.row)
        where = (reader, seed, number, mutation.told)
        counted["refused" if read.bad else "read"] += 1
        for bad in read.bad:
            assert bad.row == 1 and bad.reason.isprintable() and len(bad.reason) <= _MOST_CHARS, where
        if not read.bad:
            assert altered(reader, mutation, read, reads[which]) is None, (where, mutation.row)
            _goes_through_a_store(folder, reader, read, where)
    return counted


def _goes_through_a_store(folder: Path, reader: str, read: object, where: object) -> None:
    """What a run would learn from and be asked is what was read."""
    file = source(folder / "d0.jsonl", reader, media_root=folder)
    prompts = read_prompts(file).prompts
    assert [p.messages for p in prompts] == [r.messages for r in read.found], where  # type: ignore[attr-defined]
    out = folder / "stores" / str(len(list((folder / "stores").iterdir())))
    import_file(file, out=out, held_out_frac=0.0, max_bad_frac=0.0)
    kept = list(PreferenceStore(out).rows())
    # Equal and not only written alike: JSON keeps the order of no key. NaN is equal to nothing, and there is none.
    found = [(r.messages, r.media, r.responses) for r in read.found]  # type: ignore[attr-defined]
    assert [(r.messages, r.media, r.responses) for r in kept] == found, where


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "stores").mkdir()
    return media_folder(tmp_path)


@pytest.mark.parametrize("reader", FORMATS)
def test_a_spoiled_row_is_refused_or_read_as_it_stands(reader: str, folder: Path) -> None:
    counted = _mutations(reader, 25, folder, seed=0)
    assert counted["refused"] and counted["read"]


@pytest.mark.soak
@pytest.mark.parametrize("reader", FORMATS)
def test_nine_hundred_spoiled_rows_of_a_format_are_refused_or_read_as_they_stand(
    reader: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counted = _mutations(reader, 900, folder, seed=1)
    with capsys.disabled():
        sys.stdout.write(f"\n{reader}: {counted['refused']} refused, {counted['read']} read, 0 altered\n")


def test_the_oracle_sees_what_a_reader_would_drop(folder: Path) -> None:
    row = {"prompt": "which ?", "chosen": "this", "rejected": "that"}
    base = read_row(folder, "plain_dpo", row)
    rng = random.Random(0)
    mutation = next(m for m in (mutate(rng, row) for _ in range(500)) if m.place == ("chosen",) and m.after == "</s>")
    assert said(read_row(folder, "plain_dpo", mutation.row)) != said(base)
    assert altered("plain_dpo", mutation, base, base) is not None
