"""The critique reward worker itself, engine and model in this process: what it computes, and what changes a reward."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from algorithms.records import Sequence as TokenSequence
from orchestrator.data.reading import SourceFile
from orchestrator.data.records import prompt_of
from orchestrator.data.side_tables import Fingerprint, SideTable
from orchestrator.data.store import PreferenceStore
from orchestrator.data.writer import import_file
from orchestrator.rewards.critique_judge import CritiqueCache, CritiqueJudge, Question
from tests.critique_models import (
    CRITIQUE,
    CRITIQUE_TOKENS,
    WorkersHere,
    critique_reward_spec,
    judge_of,
    write_critique_model,
)
from tests.tiny_prompts import picture_prompts
from tests.unit.data.rows import write_jsonl
from workers.models.loading import ModelSpec
from workers.multimodal.media import MediaError
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.reference import ReferenceWorker
from workers.types import Prompt

RESPONSES = ("it is one because the image shows one .", "it is one .", "it is two .", "no digit to see .")
_SIDE = 56
_FRAMES = 32
PRINT = Fingerprint(store="s", model={"weights": "m"}, settings={"model.dtype": "float32"}, limits={})


@pytest.fixture(scope="module")
def critique_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_critique_model(tmp_path_factory.mktemp("critique_model") / "model")


@pytest.fixture(scope="module")
def shared_pool(critique_model: Path) -> WorkersHere:
    return WorkersHere(critique_reward_spec(critique_model, max_images=_FRAMES))


@pytest.fixture
def workers(shared_pool: WorkersHere) -> WorkersHere:
    shared_pool.requests, shared_pool.num_scored = [], 0
    return shared_pool


def _ask(judge: CritiqueJudge, *prompts: Prompt) -> list[float]:
    """Rewards of all four responses to each prompt."""
    answers = judge.judge([Question(prompt=p, response=text) for p in prompts for text in RESPONSES])
    assert {(a.critique, a.num_tokens, a.status) for a in answers} == {(CRITIQUE, CRITIQUE_TOKENS, "ok")}
    return [a.reward for a in answers if a.reward is not None]


class _Looks:
    """Counts forwards of a vision tower and the images in them."""

    def __init__(self, tower: torch.nn.Module) -> None:
        self.images: list[int] = []
        self._hook = tower.register_forward_pre_hook(self._see, with_kwargs=True)

    def _see(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        grid = kwargs["grid_thw"] if "grid_thw" in kwargs else args[1]
        self.images.append(len(grid))

    def __enter__(self) -> "_Looks":
        return self

    def __exit__(self, *_: object) -> None:
        self._hook.remove()


def test_four_responses_of_six_pairs_cost_four_critiques_and_one_look_at_the_image(
    critique_model: Path, workers: WorkersHere, cache: CritiqueCache, tmp_path: Path
) -> None:
    (prompt,) = picture_prompts(tmp_path, {"a": 1}, text="which digit ?")
    judge = judge_of(workers, critique_model, cache)
    with _Looks(workers.worker._module.model.model.visual) as scoring:
        first = _ask(judge, prompt)
    assert len(workers.requests) == workers.num_scored == len(RESPONSES)
    assert scoring.images == [1]
    assert len(set(first)) == len(RESPONSES)
    # Six pairs ask for each response three times: those are answers already.
    pairs = [(i, j) for i in range(4) for j in range(i + 1, 4)]
    assert len(pairs) == 6
    sides = [Question(prompt=prompt, response=RESPONSES[i]) for pair in pairs for i in pair]
    assert [a.reward for a in judge.judge(sides)] == [first[i] for pair in pairs for i in pair]
    assert len(workers.requests) == workers.num_scored == len(RESPONSES)


def test_prompts_in_one_forward_are_looked_at_once_each(
    critique_model: Path, workers: WorkersHere, cache: CritiqueCache, tmp_path: Path
) -> None:
    prompts = picture_prompts(tmp_path, {"a": 1, "b": 2}, text="which digit ?")
    with _Looks(workers.worker._module.model.model.visual) as scoring:
        _ask(judge_of(workers, critique_model, cache), *prompts)
    assert scoring.images == [3]


def test_shared_or_alone_a_reward_is_the_same(
    critique_model: Path, workers: WorkersHere, cache: CritiqueCache, tmp_path: Path
) -> None:
    prompts = picture_prompts(tmp_path, {"a": 1, "b": 1}, text="which digit ?")
    together = _ask(judge_of(workers, critique_model, cache), *prompts)
    alone = []
    with CritiqueCache(tmp_path / "other.sqlite") as other:
        judge = judge_of(workers, critique_model, other)
        for prompt in prompts:
            for text in RESPONSES:
                (answer,) = judge.judge([Question(prompt=prompt, response=text)])
                alone.append(answer.reward)
    np.testing.assert_allclose(together, alone, atol=1e-5, rtol=0)


def test_another_image_is_another_reward(
    critique_model: Path, workers: WorkersHere, cache: CritiqueCache, tmp_path: Path
) -> None:
    one, other = picture_prompts(tmp_path, {"a": 1, "b": 1}, text="which digit ?")
    assert one.messages == other.messages and one.media != other.media
    rewards = _ask(judge_of(workers, critique_model, cache), one, other)
    assert min(abs(x - y) for x, y in zip(rewards[:4], rewards[4:], strict=True)) > 1e-3


def _video(folder: Path, frames: list[np.ndarray], name: str) -> dict[str, Any]:
    clip = folder / "video" / name
    clip.mkdir(parents=True)
    for number, pixels in enumerate(frames):
        Image.fromarray(pixels).save(clip / f"{number:03d}.png")
    responses = [{"response": text} for text in RESPONSES]
    ranking = "1>2>3=4"
    return {"id": name, "prompt": "<image> which digit ?", "video": f"video/{name}", "responses": responses} | {
        "ranking": ranking
    }


def test_one_of_32_frames_exchanged_or_moved_changes_the_reward(
    critique_model: Path, workers: WorkersHere, cache: CritiqueCache, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (_FRAMES + 1, _SIDE, _SIDE, 3), dtype=np.uint8)
    frames = list(noise[:_FRAMES])
    exchanged = [*frames[:20], noise[_FRAMES], *frames[21:]]
    moved = [*frames[:20], frames[21], frames[20], *frames[22:]]
    rows = [
        _video(tmp_path, images, name)
        for name, images in (("plain", frames), ("exchanged", exchanged), ("moved", moved), ("again", frames))
    ]
    source = SourceFile(
        path=write_jsonl(tmp_path / "d.jsonl", *rows),
        read_by="mm_rlhf",
        media_root=tmp_path,
        max_pixels=_SIDE * _SIDE,
        video_frames=_FRAMES,
    )
    import_file(source, out=tmp_path / "store", held_out_frac=0.0, max_bad_frac=0.0)
    store = PreferenceStore(tmp_path / "store")
    prompts = {row.meta["id"]: prompt_of(row, media_root=store.media_root) for row in store.rows()}
    assert all(len({m.sha256 for m in p.media}) == _FRAMES for p in prompts.values())
    judge = judge_of(workers, critique_model, cache)
    with _Looks(workers.worker._module.model.model.visual) as scoring:
        plain, exchanged_, moved_ = (_ask(judge, prompts[n]) for n in ("plain", "exchanged", "moved"))
    assert scoring.images == [_FRAMES] * 3, "every frame is looked at, not the first alone"
    for changed in (exchanged_, moved_):
        assert min(abs(x - y) for x, y in zip(plain, changed, strict=True)) > 1e-5
    asked = len(workers.requests)
    assert _ask(judge, prompts["again"]) == plain
    assert len(workers.requests) == asked, "the same frames under another name are the same question"


def test_a_question_over_the_length_is_counted_and_its_neighbours_keep_their_rewards(
    critique_model: Path, workers: WorkersHere, cache: CritiqueCache, tmp_path: Path
) -> None:
    (prompt,) = picture_prompts(tmp_path, {"a": 1}, text="which digit ?")
    long = Question(prompt=prompt, response=" ".join(["one"] * 600))
    others = [Question(prompt=prompt, response=text) for text in RESPONSES]
    judge = judge_of(workers, critique_model, cache)
    mixed = judge.judge([others[0], long, *others[1:]])
    assert (mixed[1].reward, mixed[1].status, judge.counts["too_long"]) == (None, "too_long", 1)
    with CritiqueCache(tmp_path / "other.sqlite") as apart:
        assert judge_of(workers, critique_model, apart).judge(others) == [mixed[0], *mixed[2:]]


def test_an_unreadable_image_is_set_aside_and_its_neighbours_keep_their_rewards(
    critique_model: Path, workers: WorkersHere, cache: CritiqueCache, tmp_path: Path
) -> None:
    picture_prompts(tmp_path, {"a": 1, "b": 1})
    (tmp_path / "torn.png").write_bytes((tmp_path / "a-0.png").read_bytes()[:100])
    rows = [
        {
            "id": name,
            "prompt": f"<image> which digit ? {name}",
            "image": image,
            "responses": [{"response": t} for t in RESPONSES],
            "ranking": "1>2>3=4",
        }
        for name, image in (("one", "a-0.png"), ("two", "torn.png"), ("three", "b-0.png"))
    ]
    rewards = {}
    for folder, some, allowed in (("all", rows, 0.5), ("good", [rows[0], rows[2]], 0.0)):
        source = SourceFile(
            path=write_jsonl(tmp_path / f"{folder}.jsonl", *some),
            read_by="mm_rlhf",
            media_root=tmp_path,
            max_pixels=_SIDE * _SIDE,
            video_frames=1,
        )
        import_file(source, out=tmp_path / folder, held_out_frac=0.0, max_bad_frac=allowed)
        store = PreferenceStore(tmp_path / folder)
        assert store.manifest.counts.bad_rows == len(some) - 2
        prompts = [prompt_of(row, media_root=store.media_root) for row in store.rows()]
        with CritiqueCache(tmp_path / f"{folder}.sqlite") as own:
            rewards[folder] = _ask(judge_of(workers, critique_model, own), *prompts)
    assert rewards["all"] == rewards["good"]


def test_an_image_that_has_changed_since_is_never_scored_as_the_one_it_was(
    critique_model: Path, workers: WorkersHere, cache: CritiqueCache, tmp_path: Path
) -> None:
    # Of a size of their own: what a worker has seen it knows by content, and need not read again.
    one, other = picture_prompts(tmp_path, {"a": 1, "b": 1}, sizes=((84, 56),), text="which digit ?")
    Path(other.media[0].path).write_bytes(Path(one.media[0].path).read_bytes())
    with pytest.raises(MediaError, match="has changed since the data was read"):
        judge_of(workers, critique_model, cache).judge([Question(prompt=other, response=RESPONSES[0])])
    assert cache._db.execute("SELECT count(*) FROM rewards").fetchone() == (0,)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_reward_reaches_the_table_and_comes_back_without_losing_a_bit(
    dtype: Any, critique_model: Path, cache: CritiqueCache, tmp_path: Path
) -> None:
    (prompt,) = picture_prompts(tmp_path, {"a": 1}, text="which digit ?")
    workers = WorkersHere(critique_reward_spec(critique_model, dtype=dtype))
    seen: list[float] = []
    computed: Callable[..., list[float]] = workers.worker.rewards
    workers.worker.rewards = lambda batches: seen.extend(computed(batches)) or seen[-4:]  # type: ignore[method-assign]
    rewards = _ask(judge_of(workers, critique_model, cache), prompt)
    assert sorted(rewards) == sorted(seen)
    table = SideTable(tmp_path / "table", fingerprint=PRINT, num_shards=1)
    with table.begin(0) as writer:
        for index, reward in enumerate(rewards):
            writer.add("a", index, np.array([reward], np.float32))
    read = SideTable(tmp_path / "table", fingerprint=PRINT, num_shards=1).read(0).values
    assert [float(v[0]) for v in read] == rewards


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_reference_log_probs_keep_every_bit_that_the_released_cast_loses(
    dtype: Any, critique_model: Path, tmp_path: Path
) -> None:
    spec = ModelSpec(path=str(critique_model), dtype=dtype, share_prompts=True)
    worker = ReferenceWorker(spec=spec, num_threads=2)
    rng = np.random.default_rng(0)
    (prompt,) = picture_prompts(tmp_path, {"a": 1}, text="which digit ?")
    ids = PromptEncoder(critique_model).encode(prompt).prompt_ids
    sequences = [
        TokenSequence(
            uid="a",
            sample_index=index,
            input_ids=np.concatenate([ids, rng.integers(8, 40, 60)]).astype(np.int64),
            prompt_len=len(ids),
            media=prompt.media,
        )
        for index in range(4)
    ]
    computed = [row[len(ids) :] for row in worker.score([sequences])]
    assert all(row.dtype == np.float32 for row in computed)
    table = SideTable(tmp_path / "table", fingerprint=PRINT, num_shards=1)
    with table.begin(0) as writer:
        for index, row in enumerate(computed):
            writer.add("a", index, row)
    read = SideTable(tmp_path / "table", fingerprint=PRINT, num_shards=1).read(0).values
    assert [row.tobytes() for row in read] == [row.tobytes() for row in computed]

    exact = np.array([row.sum(dtype=np.float64) for row in computed])
    assert np.array_equal(np.array([row.sum(dtype=np.float64) for row in read]), exact)
    # Numbers with more bits than bfloat16 has, also where the model's own format is that: its logits are summed wider.
    assert all((torch.from_numpy(row).bfloat16().float().numpy() != row).any() for row in computed)
    # dpo_trainer.py of the release casts the stored sums to the model's format: sums beyond 128 nats lose whole nats.
    released = torch.from_numpy(exact).float().bfloat16().double().numpy()
    assert np.abs(exact).min() > 128
    assert 0.1 < np.abs(released - exact).max() < 2.0
