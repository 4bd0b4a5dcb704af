"""The data of an offline run: imported once, looked at from end to end, refused with the row and the reason."""

from pathlib import Path
from typing import Any

import pytest

from algorithms.registry import ALGORITHMS
from orchestrator.config import load_config
from orchestrator.config.schema import TrainConfig
from orchestrator.data.choice import Choice, choose
from orchestrator.data.stores import held_out_rows, open_data
from orchestrator.data.stream import ExampleStream
from orchestrator.errors import RefusedInput
from orchestrator.run.cursor import PromptCursor
from orchestrator.run.folder import RunFolder
from tests.unit.algorithms.asks import learner
from tests.unit.algorithms.examples import example
from tests.unit.data.rows import write_jsonl
from tests.unit.data.store_rows import feedback, imported, labelled, plain, query, rated


def _config(path: Path, algo: str, *flags: str) -> TrainConfig:
    return load_config(["--algo", algo, "--model.path", "model", "--data.path", str(path), *flags])[0]


def _folder(tmp_path: Path) -> RunFolder:
    (tmp_path / "run").mkdir()
    return RunFolder(tmp_path / "run")


def _refusal(tmp_path: Path, algo: str, *rows: Any, flags: tuple[str, ...] = ()) -> str:
    store = imported(tmp_path, "vlfeedback", *rows)
    with pytest.raises(RefusedInput) as refusal:
        open_data(_config(store.folder, algo, *flags), _folder(tmp_path))
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


_GOOD = feedback()
_TIE = feedback(rated("4", "4", "4"), rated("4", "4", "4", response="that"))
_SAME = feedback(rated("5", "5", "5"), rated("4", "4", "4"))


@pytest.mark.parametrize(
    ("algo", "row", "reason"),
    [
        ("dpo", _TIE, "row 2: all its responses tie"),
        ("dpo", _SAME, "row 2: "),
        ("kto", _TIE, "row 2: all its responses tie"),
        ("scalar_rm", feedback(rated("5", "5", "5")), "row 2: it has 1 responses, a pair needs 2"),
    ],
)
def test_a_row_to_learn_nothing_from_is_refused_or_counted(
    algo: str, row: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    told = _refusal(tmp_path, algo, _GOOD, row, feedback(prompt="and which ?"))
    assert "has 1 bad rows out of 3, data.max_bad_frac = 0 allows 0" in told
    assert reason in told
    allowed = _config(tmp_path / "store", algo, "--data.max_bad_frac", "0.5")
    assert len(open_data(allowed, RunFolder(tmp_path / "run")).learnable.unused) == 1


def test_supervised_learning_never_imitates_what_somebody_disliked(tmp_path: Path) -> None:
    store = imported(tmp_path, "plain_kto", *(labelled(prompt=f"{k} ?", label=False) for k in range(3)))
    with pytest.raises(RefusedInput, match=r"row 1: its only response is disliked \(score -1\)$"):
        open_data(_config(store.folder, "sft"), _folder(tmp_path))
    (tmp_path / "mixed").mkdir()
    mixed = imported(tmp_path / "mixed", "plain_kto", *(labelled(prompt=f"{k} ?", label=k > 0) for k in range(3)))
    with pytest.raises(RefusedInput, match=r"1 bad rows out of 3, .*; the first is row 1: its only response is dis"):
        open_data(_config(mixed.folder, "sft"), RunFolder(tmp_path / "run"))
    allowed = _config(mixed.folder, "sft", "--data.max_bad_frac", "0.5")
    assert len(open_data(allowed, RunFolder(tmp_path / "run")).learnable.unused) == 1


def test_supervised_learning_takes_every_answer_of_a_conversation(tmp_path: Path) -> None:
    turns = [(who, f"{what} {k}") for k in range(3) for who, what in (("human", "ask"), ("gpt", "say"))]
    store = imported(tmp_path, "vlquery_json", query(*turns), query(("human", "why ?"), ("gpt", "so")))
    assert not open_data(_config(store.folder, "sft"), _folder(tmp_path)).learnable.unused
    learned = []
    for row in store.rows():
        choice = choose(row.responses, learner("sft").needs, score_margin=0.0)
        assert isinstance(choice, Choice)
        learned += [row.responses[index].text for index in choice.responses]
    assert learned == ["say 0", "say 1", "say 2", "so"]


def test_kto_needs_both_kinds(tmp_path: Path) -> None:
    alone = [feedback(rated(r, r, r), prompt=f"{r} ?") for r in "345"]
    told = _refusal(tmp_path, "kto", *alone)
    assert "--algo kto needs desirable and undesirable responses, found 3 and 0" in told


def test_kto_learns_from_single_responses_that_were_liked_or_not(tmp_path: Path) -> None:
    rows = [labelled(prompt=f"{i} ?", label=i % 3 == 0) for i in range(6)]
    store = imported(tmp_path, "plain_kto", *rows)
    needs = learner("kto").needs
    choices = [choose(row.responses, needs, score_margin=0.0) for row in store.rows()]
    assert [c.desirable for c in choices if isinstance(c, Choice)] == [(i % 3 == 0,) for i in range(6)]
    config = _config(store.folder, "kto", "--preference.desirable_weight", "2.0")
    assert open_data(config, _folder(tmp_path)).learnable.unused == []


def test_kto_needs_strangers(tmp_path: Path) -> None:
    """VL-RLHF acceptance 4: a step of one instruction has no mismatched pair, whatever policy.train_batch_size is."""
    told = _refusal(tmp_path, "kto", feedback())
    assert "--algo kto needs at least 2 usable instructions, found 1" in told


def test_kto_is_warned_of_weights_out_of_balance(tmp_path: Path) -> None:
    """VL-RLHF acceptance 4."""
    several = [rated(r, r, r, response=text) for r, text in zip("5111", "abcd", strict=True)]
    store = imported(tmp_path, "vlfeedback", *(feedback(*several, prompt=f"{i} ?") for i in range(2)))
    warning = open_data(_config(store.folder, "kto"), _folder(tmp_path)).warning
    assert warning is not None and "set desirable_weight between 3 and 4" in warning
    balanced = _config(store.folder, "kto", "--preference.desirable_weight", "3")
    assert open_data(balanced, RunFolder(tmp_path / "run")).warning is None


def test_a_file_becomes_a_store_once(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "pairs.jsonl", *(plain(prompt=f"{i} ?") for i in range(20)))
    config = _config(file, "dpo", "--data.format", "plain_dpo", "--data.held_out_frac", "0.3")
    folder = _folder(tmp_path)
    data = open_data(config, folder)
    held_out = held_out_rows(data, side_tables={})
    assert data.train.num_instructions("train") + len(held_out) == 20
    assert held_out
    before = (folder.root / "store" / "manifest.json").stat().st_mtime_ns
    assert open_data(config, folder).train.manifest == data.train.manifest
    assert (folder.root / "store" / "manifest.json").stat().st_mtime_ns == before
    write_jsonl(file, plain())
    with pytest.raises(RefusedInput, match="was imported from another file"):
        open_data(config, folder)


def test_every_algorithm_learns_from_the_same_instructions_and_none_from_held_out_ones(tmp_path: Path) -> None:
    """VL-RLHF acceptance 7, where supervised learning saw the rows that were held out."""
    ratings = [[rated(r, r, r, response=f"{n} {r}") for r in "53"] for n in range(60)]
    # Every prompt twice, with responses of its own: a pair of one prompt could land on both sides.
    rows = [feedback(*said, prompt=f"{number % 30} ?") for number, said in enumerate(ratings)]
    file = write_jsonl(tmp_path / "rated.jsonl", *rows)
    seen: dict[str, tuple[list[str], list[str]]] = {}
    for algo in ALGORITHMS:
        needs = learner(algo).needs
        if "preferences" not in needs.data or needs.critiques:
            continue  # these rows have no critiques to learn from
        config = _config(file, algo, "--data.format", "vlfeedback", "--data.held_out_frac", "0.3")
        folder = tmp_path / algo
        folder.mkdir()
        data = open_data(config, RunFolder(folder))
        held_out = held_out_rows(data, side_tables={})
        stream = ExampleStream(data.train, lambda row: example(row.uid, [[1], [2]], pairs=((0, 1),)), side_tables={})
        num_train = data.train.num_instructions("train")
        examples, *_ = stream.take(PromptCursor(num_prompts=num_train, seed=0), 2 * num_train)
        seen[algo] = [e.uid for e in examples], [row.uid for row in held_out]
        prompts = {row.uid: str(row.messages) for row in data.train.rows()}
        learnt, measured = ({prompts[uid] for uid in uids} for uids in seen[algo])
        assert learnt and measured and not learnt & measured
        assert len(learnt | measured) == 30
    assert all(uids == seen["sft"] for uids in seen.values())


def test_a_share_to_hold_out_is_never_ignored(tmp_path: Path) -> None:
    """VL-RLHF acceptance 7: where the option cannot act it is refused."""
    file = write_jsonl(tmp_path / "d.jsonl", *(plain(prompt=f"{i} ?") for i in range(20)))
    folder = _folder(tmp_path)
    flags = ("--data.format", "plain_dpo", "--data.held_out_frac")
    store = open_data(_config(file, "dpo", *flags, "0.3"), folder).train
    for path, frac in ((file, "0.2"), (file, "0"), (store.folder, "0.2")):
        with pytest.raises(RefusedInput, match=rf"data\.held_out_frac = {frac}, but the store '.*' was split at 0\.3"):
            open_data(_config(path, "sft", *flags, frac), folder)
    for frac in ("0", "0.3"):
        assert open_data(_config(store.folder, "sft", *flags, frac), folder).train.manifest == store.manifest


def test_held_out_data_may_come_from_a_file_of_their_own(tmp_path: Path) -> None:
    train = write_jsonl(tmp_path / "train.jsonl", *(plain(prompt=f"{i} ?") for i in range(3)))
    held_out = write_jsonl(tmp_path / "held_out.jsonl", plain(prompt="other ?"))
    flags = ("--data.format", "plain_dpo", "--data.eval_path", str(held_out))
    data = open_data(_config(train, "dpo", *flags), _folder(tmp_path))
    assert [row.uid for row in held_out_rows(data, side_tables={})] == ["held_out-000001"]
    assert data.train.num_instructions("train") == 3


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--algo", "hinge", "--preference.label_smoothing", "0.1"), "has no meaning for algo = 'hinge'"),
        (("--algo", "dpo", "--rollout.top_p", "0.9"), "rollout.top_p = 0.9 has no meaning for algo = 'dpo'"),
        (("--algo", "dpo", "--preference.score_margin", "-0.5"), "must be at least 0, or -1 for the largest gap"),
        (("--algo", "kto", "--reference.mode", "precomputed"), "cannot serve kto"),
        (("--algo", "kto", "--policy.train_batch_size", "1"), "must be at least 2 for kto"),
        (("--algo", "dpo", "--reference.mode", "lora_off"), "needs model.lora_rank"),
        (("--algo", "sft", "--data.held_out_frac", "0.1"), "data.held_out_frac = 0.1 splits a file of preferences"),
        (("--algo", "reinforce_pp", "--data.held_out_frac", "0.1"), "set data.eval_path"),
        (("--algo", "stable_reinforce", "--data.format", "plain_dpo"), "only 'llava_ppo', 'r1_reward'"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(flags: tuple[str, ...], told: str) -> None:
    with pytest.raises(RefusedInput) as refusal:
        load_config([*flags, "--model.path", "model", "--data.path", "data"])
    assert told in str(refusal.value)
