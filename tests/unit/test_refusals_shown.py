"""What a refusal looks like: one line, bounded, with nothing in it that a terminal would obey."""

import pytest

from orchestrator.errors import GuardStop, RefusedInput, one_line

_MOST = 300 - len("refused: ")


@pytest.mark.parametrize(
    "value", ["x" * 100_000, "word " * 20_000, "'" * 50_000, "\"'" * 50_000, "\x1b" * 100_000, "ü" * 9999]
)
def test_a_long_value_gives_way_before_the_words_around_it(value: str) -> None:
    told = str(RefusedInput(f"data.path = {value!r} on the command line: expected a file"))
    assert len(told) <= _MOST
    assert told.startswith("data.path = ") and told.endswith("expected a file")


def test_two_long_values_leave_the_words_between_them() -> None:
    told = str(RefusedInput(f"the name {'x' * 9999!r} is not the name {'y' * 9999!r}, as it should be"))
    assert "is not the name" in told and told.endswith("as it should be") and len(told) <= _MOST


def test_an_apostrophe_within_a_word_begins_no_value() -> None:
    words = "the run's own words are kept, and so are the user's, however many there are between the two of them, " * 2
    assert str(RefusedInput(words[:280])) == words[:280]


@pytest.mark.parametrize("error", [RefusedInput, GuardStop])
def test_what_a_terminal_obeys_is_spelled_out(error: type[Exception]) -> None:
    assert str(error("a\x1b[31mb\x07c\u202ed\x00e\nf")) == r"a\x1b[31mb\x07c\u202ed\x00e f"


def test_half_a_character_can_be_written_anywhere() -> None:
    assert one_line("a\udc80b", most=100).encode() == rb"a\udc80b"


@pytest.mark.parametrize(
    "words",
    [
        "data.path = 'https://u:hunter2secret@h/x' on the command line: is an address",
        "rows.jsonl, row 3: https%3A%2F%2Fu%3Ahunter2secret%40h%2Fx is no picture",
        "https://h/x?X-Amz-Signature=hunter2secret&b=c cannot be read",
        "s3://hunter2secret@bucket/x",
        "https://bob:p@hunter2secret@host/x is gone",
    ],
)
def test_credentials_in_an_address_are_not_told(words: str) -> None:
    assert "hunter2" not in str(RefusedInput(words)) and "***" in str(GuardStop(words))


@pytest.mark.parametrize("words", ["a@b.c", "https://h/x?seed=3", "grpo@own_task.py", "file://x and y@z"])
def test_what_only_looks_like_credentials_is_told(words: str) -> None:
    assert str(RefusedInput(words)) == words
