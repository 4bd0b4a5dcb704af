"""What a stage was made from: kept, compared, and told where it differs."""

from pathlib import Path

import pytest

from orchestrator.config import load_config
from orchestrator.errors import RefusedInput
from orchestrator.offline.made_from import begin, fingerprint_of, fits, keep, settings_of
from orchestrator.preference_store.side_tables import Fingerprint

CONFIG = load_config(["--algo", "mm_dpo", "--model.path", "model", "--data.path", "rows", "--run.seed", "3"])[0]


def test_options_and_sections_go_by_their_names() -> None:
    found = settings_of(CONFIG, "run.seed", "critique_rm")
    assert found["run.seed"] == 3 and found["critique_rm.head"] == "linear"
    assert {name.partition(".")[0] for name in found} == {"run", "critique_rm"}
    assert "run.steps" not in found


@pytest.mark.parametrize("name", ["seed", "run.sed", "critique"])
def test_a_name_that_is_none_is_a_mistake_and_not_left_out(name: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}' is neither an option nor a section"):
        settings_of(CONFIG, name)


def test_a_fingerprint_is_all_its_parts() -> None:
    parts = fingerprint_of(
        "rewards", Fingerprint(store="s", model="m", chat_template="c", preprocessing="p", dtype="d")
    )
    assert parts["rewards.model"] == "m"
    assert {name.partition(".")[2] for name in parts} == set(Fingerprint.__dataclass_fields__)


def test_something_fits_only_what_it_was_made_from(tmp_path: Path) -> None:
    made_from = settings_of(CONFIG, "run", "model", "rollout")
    file = tmp_path / "made_from.json"
    assert not fits(file, made_from)
    keep(file, made_from)
    assert fits(file, made_from)
    assert not fits(file, {**made_from, "run.seed": 4})
    assert not fits(file, {name: value for name, value in made_from.items() if name != "run.seed"})


def test_a_stage_goes_on_from_what_it_was_begun_from(tmp_path: Path) -> None:
    file = tmp_path / "stage" / "made_from.json"
    begin(file, {"a": 1, "b": [1.5, None]}, afresh=False)
    begin(file, {"b": [1.5, None], "a": 1}, afresh=False)
    with pytest.raises(RefusedInput) as refusal:
        begin(file, {"a": 2, "c": "x", "b": [1.5, None]}, afresh=False)
    assert str(refusal.value) == (
        f"{str(file.parent)!r} was made from something else: a was 1, this run has 2, c was None, this run has 'x'; "
        "use another run.dir or run.resume = 'never'"
    )
    assert fits(file, {"a": 1, "b": [1.5, None]}), "a refusal changes nothing"
    begin(file, {"a": 2}, afresh=True)
    assert fits(file, {"a": 2})
