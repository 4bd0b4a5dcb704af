"""VL-RLHF acceptance 1: a prompt that is too long is left out with a count; it never loses an image token."""

import pytest

from orchestrator.data.examples import ExampleEncoder, Limits
from orchestrator.data.store import PreferenceStore
from orchestrator.data.stream import ExampleStream
from orchestrator.run.cursor import PromptCursor
from tests.unit.algorithms.asks import learner
from tests.unit.data.rows import picture
from tests.unit.data.store_rows import imported, plain
from tests.user_files import write_llava
from workers.multimodal.prompt_encoder import PromptEncoder

_TOKENS_AN_IMAGE = 16
_LIMIT = 100
_LONG = "so many words that they do not fit beside the images " * 6


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> PromptEncoder:
    return PromptEncoder(write_llava(tmp_path_factory.mktemp("llava") / "model"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> PreferenceStore:
    """Rows of none to two images, each once with few words and once with many, on either side of the images."""
    folder = tmp_path_factory.mktemp("data")
    picture(folder / "a.png", size=(8, 8))
    rows = []
    for words in ("which ?", _LONG):
        rows += [
            plain(prompt=words),
            plain(prompt=f"<image> {words}", images=["a.png"]),
            plain(prompt=f"<image> {words} <image>", images=["a.png", "a.png"]),
        ]
    return imported(folder, "plain_dpo", *rows)


@pytest.mark.parametrize(
    "limits",
    [
        Limits(max_prompt_tokens=_LIMIT, tokens_per_microbatch=4096, share_prompts=True),
        Limits(max_prompt_tokens=4096, tokens_per_microbatch=_LIMIT + 20, share_prompts=True),
        Limits(max_prompt_tokens=4096, tokens_per_microbatch=_LIMIT + 60, share_prompts=False),
        Limits(max_prompt_tokens=4096, tokens_per_microbatch=4096, share_prompts=True, positions=_LIMIT),
    ],
    ids=["prompt", "micro-batch", "micro-batch of pairs apart", "positions"],
)
@pytest.mark.parametrize("algo", ["dpo", "ddpo", "kto", "scalar_rm", "sft"])
def test_what_is_learnt_from_has_all_its_image_tokens_and_the_rest_is_counted(
    encoder: PromptEncoder, store: PreferenceStore, algo: str, limits: Limits
) -> None:
    encode = ExampleEncoder(encoder, learner(algo).needs, media_root=store.media_root, score_margin=0.0, limits=limits)
    stream = ExampleStream(store, encode, side_tables={})
    # An epoch and the start of the next one, so that all rows have had their turn.
    examples, _, passed_over = stream.take(PromptCursor(num_prompts=6, seed=0), 4)
    long = {"d-000004", "d-000005", "d-000006"}
    assert {e.uid for e in examples} == {"d-000001", "d-000002", "d-000003"}
    assert len(passed_over) >= 3 and set(passed_over) == long
    for sequence in (s for e in examples for s in e.sequences):
        images = (sequence.input_ids == encoder.image_token_id).sum()
        assert images == _TOKENS_AN_IMAGE * len(sequence.media)
