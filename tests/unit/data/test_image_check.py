"""Images that a run's model cannot take cost their rows, told by number and name; ordinary photos are accepted."""

import json
from pathlib import Path

import pytest
from PIL import Image

from orchestrator.cluster.specs import prompt_encoder
from orchestrator.config.load import load_config
from orchestrator.config.schema import TrainConfig
from orchestrator.data.image_check import ImageCheck, describe_bound
from orchestrator.data.prompts import read_data
from orchestrator.data.side_tables import table_fingerprint
from orchestrator.data.stores import open_data
from orchestrator.errors import RefusedInput
from orchestrator.run.folder import RunFolder
from orchestrator.training.offline import example_encoder, looked_through
from tests.tiny_models import TINY_MODELS

_PHOTOS = ((1024, 1024), (1024, 768), (4000, 3000))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return TINY_MODELS["qwen2_5_vl"](tmp_path_factory.mktemp("model") / "model")


def _online(root: Path, *sizes: tuple[int, int]) -> Path:
    rows = []
    for width, height in sizes:
        Image.new("RGB", (width, height)).save(root / f"{width}x{height}.png")
        parts = [{"type": "image", "image": f"{width}x{height}.png"}, {"type": "text", "text": "which ?"}]
        rows.append({"message": json.dumps([{"role": "user", "content": parts}]), "question": "q", "answer": ["1"]})
    (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root / "rows.jsonl"


def _pairs(root: Path, *sizes: tuple[int, int]) -> Path:
    rows = []
    for width, height in sizes:
        Image.new("RGB", (width, height)).save(root / f"{width}x{height}.png")
        rows.append({"image": f"{width}x{height}.png", "prompt": f"q {width}", "chosen": "one", "rejected": "two"})
    (root / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root / "pairs.jsonl"


def _config(model: Path, data: Path, *options: str, algo: str = "stable_reinforce") -> TrainConfig:
    flags = ["--algo", algo, "--model.path", str(model), "--data.path", str(data), *options]
    return load_config([*flags, *(("--data.format", "plain_dpo") if algo == "dpo" else ())])[0]


def test_ordinary_photos_are_accepted_by_default(model: Path, tmp_path: Path) -> None:
    data = read_data(_config(model, _online(tmp_path, *_PHOTOS))).train
    assert [(m.width, m.height) for p in data.prompts for m in p.media] == list(_PHOTOS) and not data.bad_rows


def test_ordinary_photos_are_accepted_by_the_shipped_recipe(model: Path, tmp_path: Path) -> None:
    data = _online(tmp_path, *_PHOTOS)
    for name in ("recipe.toml", "sft.toml"):
        config = load_config(["--algo", "stable_reinforce", "--config", f"examples/r1_reward_7b/{name}"])[0]
        config = config.model_copy(
            update={
                "model": config.model.model_copy(update={"path": str(model)}),
                "data": config.data.model_copy(update={"path": str(data), "media_root": None, "eval_path": None}),
            }
        )
        assert not read_data(config.model_copy(update={"algo": "stable_reinforce"})).train.bad_rows


def test_a_bound_that_refuses_names_both_numbers(model: Path, tmp_path: Path) -> None:
    data = _online(tmp_path, *_PHOTOS[:2])
    options = ("--data.max_pixels", "800000", "--data.oversize", "refuse")
    found = read_data(_config(model, data, *options, "--data.max_bad_frac", "0.5")).train
    assert [(bad.row, bad.reason) for bad in found.bad_rows] == [
        (1, "image '1024x1024.png' has 1024 x 1024 = 1048576 pixels, more than max_pixels = 800000")
    ]
    assert not read_data(_config(model, data, *options[:2])).train.bad_rows


def test_a_thin_image_is_a_bad_row_online(model: Path, tmp_path: Path) -> None:
    data = _online(tmp_path, (56, 56), (1200, 4), (90, 90))
    with pytest.raises(RefusedInput, match=r"the first is row 2: image '1200x4.png' is 1200 x 4: .* at most 200 : 1$"):
        read_data(_config(model, data))
    found = read_data(_config(model, data, "--data.max_bad_frac", "0.4")).train
    assert ([p.uid for p in found.prompts], [b.row for b in found.bad_rows]) == (["rows-000001", "rows-000003"], [2])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ((), "image '1200x4.png' is 1200 x 4: the model's processor takes at most 200 : 1"),
        (
            ("--data.max_pixels", "4000", "--data.oversize", "refuse"),
            "image '1200x4.png' has 1200 x 4 = 4800 pixels, more than",
        ),
    ],
)
def test_a_thin_or_large_image_is_a_bad_row_offline(
    model: Path, tmp_path: Path, options: tuple[str, ...], reason: str
) -> None:
    data = _pairs(tmp_path, (56, 56), (1200, 4), (60, 60))
    refusing = _config(model, data, *options, "--run.dir", str(tmp_path / "a"), algo="dpo")
    (tmp_path / "a").mkdir()
    with pytest.raises(RefusedInput) as caught:
        open_data(refusing, RunFolder(tmp_path / "a"))
    assert f"row 2: {reason}" in str(caught.value)
    lenient = _config(model, data, *options, "--data.max_bad_frac", "0.4", algo="dpo")
    (tmp_path / "b").mkdir()
    store = open_data(lenient, RunFolder(tmp_path / "b"))
    assert len(store.learnable.unused) + store.train.manifest.counts.bad_rows == 1


def test_an_instruction_with_a_thin_image_makes_no_example(model: Path, tmp_path: Path) -> None:
    """Held-out instructions are looked at only here, and tables are made of every one in the store."""
    config = _config(model, _pairs(tmp_path, (1200, 4), (56, 56)), "--data.max_bad_frac", "0.5", algo="dpo")
    (tmp_path / "run").mkdir()
    data = open_data(config, RunFolder(tmp_path / "run"))
    encode = example_encoder(config, prompt_encoder(config), data.train.media_root, weighs_pairs=False)
    thin, fine = sorted(data.train.rows(), key=lambda row: row.uid)
    assert encode(thin) == "its image 1 is 1200 x 4: the model's processor takes at most 200 : 1"
    assert encode.scorable_sequences(thin) == () and len(encode.scorable_sequences(fine)) == 2
    assert not isinstance(encode(fine), str)


def test_what_is_too_long_is_told_at_the_size_that_images_are_resized_to(model: Path, tmp_path: Path) -> None:
    """Above the processor's own bound here, which takes the image to 2 tokens."""
    bound = ("--data.max_pixels", "100000", "--data.max_prompt_tokens", "40")
    config = _config(model, _pairs(tmp_path, (1024, 768)), *bound, algo="dpo")
    (tmp_path / "run").mkdir()
    data = open_data(config, RunFolder(tmp_path / "run"))
    with pytest.raises(RefusedInput, match=r"its prompt has 1\d\d tokens, data.max_prompt_tokens = 40"):
        looked_through(config, data)


def test_tables_made_under_another_bound_are_of_something_else(model: Path, tmp_path: Path) -> None:
    bounds = [(), ("--data.max_pixels", "5000"), ("--data.max_pixels", "6000")]
    configs = [_config(model, tmp_path / "none.jsonl", "--model.dtype", "float32", *bound) for bound in bounds]
    found = [table_fingerprint(config, "", str(model)) for config in configs]
    assert all(one != other for at, one in enumerate(found) for other in found[:at])


def test_the_critique_reward_model_is_asked_as_well(model: Path, tmp_path: Path) -> None:
    other = TINY_MODELS["llava"](tmp_path / "other")
    config = _config(other, tmp_path / "none.jsonl")
    critique = config.reward.critique.model_copy(update={"path": str(model)})
    both = config.model_copy(update={"reward": config.reward.model_copy(update={"critique": critique})})
    prompts = read_data(_config(other, _online(tmp_path, (1200, 4)))).train.prompts
    assert ImageCheck(config)(prompts[0].media) is None
    assert "at most 200 : 1" in (ImageCheck(both)(prompts[0].media) or "")


def test_a_bound_that_changes_nothing_is_said(model: Path, tmp_path: Path) -> None:
    llava = TINY_MODELS["llava"](tmp_path / "llava")
    bound = ("--data.max_pixels", "5000")
    (said,) = describe_bound(_config(llava, tmp_path / "d.jsonl", *bound))
    assert "data.max_pixels = 5000 changes nothing" in said and "llava" in said
    assert describe_bound(_config(model, tmp_path / "d.jsonl", *bound)) == []
    assert describe_bound(_config(llava, tmp_path / "d.jsonl")) == []


def test_refusing_needs_a_bound(model: Path, tmp_path: Path) -> None:
    with pytest.raises(RefusedInput, match=r"data.max_pixels is not set, but data.oversize = 'refuse' needs it"):
        _config(model, tmp_path / "d.jsonl", "--data.oversize", "refuse")
