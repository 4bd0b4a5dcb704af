"""A policy equal to its reference prefers nothing: real models and real forwards, without Ray.

The reference scores in micro-batches of its own making, once directly and once through a table on disk.
"""

import math
import shutil
from collections.abc import Sequence as Seq
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from algorithms.algorithm import Scores
from algorithms.figures import values
from algorithms.records import Example
from algorithms.records import Sequence as TokenSequence
from orchestrator.config import load_config
from orchestrator.config.schema import TrainConfig
from orchestrator.data.examples import ExampleEncoder, Limits
from orchestrator.data.side_tables import SideTable
from orchestrator.data.store import PreferenceStore
from orchestrator.errors import RefusedInput
from orchestrator.pipeline.learn import reference_table
from orchestrator.tasks.digits_model import build_digits_model
from orchestrator.training.ask import RunAsk
from orchestrator.training.session import Session
from tests.unit.algorithms.asks import Answers, learner
from tests.unit.data.rows import picture
from tests.unit.data.store_rows import feedback, imported, plain, rated
from workers.models.loading import ModelSpec, load_model
from workers.models.policy_module import PolicyModule
from workers.multimodal.collate import Collator
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.reference import ReferenceWorker

_BETA = 0.1
_EXPECTED = {
    "dpo": math.log(2),
    "ddpo": math.log(2),
    "hinge": 1.0,
    "ipo": (0.5 / _BETA) ** 2,
    "kto": 0.5,
    "kto_pair": 0.5,
}


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    folder = build_digits_model(tmp_path_factory.mktemp("model"), seed=0)
    return ModelSpec(path=str(folder), dtype="float32", share_prompts=True)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> PreferenceStore:
    folder = tmp_path_factory.mktemp("data")
    rows = []
    for number, color in enumerate(("red", "green", "blue")):
        picture(folder / f"{number}.png", size=(8, 8), color=color)
        said = ("the image shows one .", "the image shows two two .", "three", "so four , four four .")
        completions = [rated(r, r, r, response=text) for r, text in zip("5322", said, strict=True)]
        rows.append(feedback(*completions, prompt="<image> which digit ?", img_path=f"{number}.png"))
    return imported(folder, "vlfeedback", *rows)


def _config(model: str, *flags: str) -> TrainConfig:
    dtype = () if "--model.dtype" in flags else ("--model.dtype", "float32")
    return load_config(["--algo", "dpo", "--model.path", model, "--data.path", "rows", *dtype, *flags])[0]


def _encoder(spec: ModelSpec, store: PreferenceStore, algo: str) -> ExampleEncoder:
    return ExampleEncoder(
        PromptEncoder(spec.path),
        learner(algo).needs,
        media_root=store.media_root,
        score_margin=0.0,
        limits=Limits(max_prompt_tokens=256, tokens_per_microbatch=512, share_prompts=True),
    )


def _fill(table: SideTable, store: PreferenceStore, encode: ExampleEncoder, worker: ReferenceWorker) -> None:
    for shard in table.missing_shards():
        with table.begin(shard) as writer:
            for row in store.read_group(shard):
                for sequence in encode.scorable_sequences(row):
                    (values,) = worker.score([[sequence]])
                    writer.add(row.uid, sequence.sample_index, values[sequence.prompt_len :])


class _Itself(Answers):
    """A policy that is its own reference: one worker answers for both, or a table for the reference."""

    def __init__(self, worker: ReferenceWorker) -> None:
        super().__init__(longest_row=1000)
        self._worker = worker

    def policy(self, sequences: Seq[TokenSequence]) -> list[np.ndarray]:
        return [row[s.prompt_len :] for s, row in zip(sequences, self._worker.score([sequences]), strict=True)]

    def reference(self, sequences: Seq[TokenSequence]) -> list[np.ndarray]:
        return self.policy(sequences)

    def reference_of(self, examples: Seq[Example]) -> list[list[np.ndarray]]:
        return [list(e.ref_logprobs or self.policy(e.sequences)) for e in examples]


@pytest.mark.parametrize("precomputed", [False, True])
@pytest.mark.parametrize("algo", list(_EXPECTED))
def test_no_margin_and_the_loss_of_indifference(
    algo: str, precomputed: bool, spec: ModelSpec, store: PreferenceStore, tmp_path: Path
) -> None:
    encode, worker = _encoder(spec, store, algo), ReferenceWorker(spec=spec, num_threads=1)
    table = reference_table(tmp_path / "table", store, _config(spec.path))
    if precomputed:
        _fill(table, store, encode, worker)
    tables = {"reference": table} if precomputed else {}
    made = [encode(row) for row in store.iterate("train", seed=0, side_tables=tables)]
    examples = [e for e in made if isinstance(e, Example)]
    assert len(examples) == len(made) == 3
    assert all((e.ref_logprobs is not None) == precomputed for e in examples)
    algorithm = learner(algo, preference={"beta": _BETA})
    learned = algorithm.samples(examples, _Itself(worker))
    (groups,) = learned.updates

    module = PolicyModule(load_model(spec)[0], lockstep=False)
    batch = Collator(spec.path, dtype=torch.float32, share_prompts=True)([s for g in groups for s in g.sequences])
    found = algorithm.objective()(Scores(logprobs=batch.split(module(batch).logprobs)), groups)
    told = values(found.figures) | learned.figures

    loss = float(found.losses.sum().detach())
    assert loss == pytest.approx(_EXPECTED[algo], abs=1e-5 if algo != "ipo" else 1e-3)
    if algo == "kto":
        assert told["preference/chosen_reward"] == pytest.approx(0.0, abs=1e-5)
        assert told["preference/rejected_reward"] == pytest.approx(0.0, abs=1e-5)
    else:
        assert told["preference/num_pairs"] == 15  # 5 > 3 > 2 = 2, three times
        assert told["preference/margin"] == pytest.approx(0.0, abs=1e-5)


def test_a_table_of_another_model_is_refused(spec: ModelSpec, store: PreferenceStore, tmp_path: Path) -> None:
    reference_table(tmp_path / "table", store, _config(spec.path))
    other = build_digits_model(tmp_path / "other", seed=1)
    with pytest.raises(RefusedInput, match="was made for something else: weights is '"):
        reference_table(tmp_path / "table", store, _config(str(other)))


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--model.dtype", "bfloat16"), "model.dtype is 'float32', this run has 'bfloat16'"),
        (("--model.attention", "eager"), "model.attention is 'sdpa', this run has 'eager'"),
        (("--batching.mode", "pairs"), "batching.mode is 'shared_prompt', this run has 'pairs'"),
        (("--data.max_prompt_tokens", "99"), "data.max_prompt_tokens is 20480, this run has 99"),
        (("--policy.tokens_per_microbatch", "99"), "policy.tokens_per_microbatch is 16384, this run has 99"),
        (("--data.video_frames", "9"), "data.video_frames is 8, this run has 9"),
    ],
)
def test_a_table_of_other_settings_is_refused(
    flags: tuple[str, ...], told: str, spec: ModelSpec, store: PreferenceStore, tmp_path: Path
) -> None:
    reference_table(tmp_path, store, _config(spec.path))
    with pytest.raises(RefusedInput, match=told):
        reference_table(tmp_path, store, _config(spec.path, *flags))
    reference_table(tmp_path, store, _config(spec.path, "--optimizer.lr", "0.1", "--run.seed", "3"))


@pytest.mark.parametrize(
    ("file", "part"),
    [("config.json", "config"), ("tokenizer.json", "tokenizer"), ("preprocessor_config.json", "processor")],
)
def test_a_table_of_a_model_that_was_edited_is_refused(
    file: str, part: str, spec: ModelSpec, store: PreferenceStore, tmp_path: Path
) -> None:
    model = shutil.copytree(spec.path, tmp_path / "model")
    reference_table(tmp_path / "table", store, _config(str(model)))
    (model / file).write_text((model / file).read_text() + "\n" if (model / file).is_file() else "{}")
    with pytest.raises(RefusedInput, match=f"{part} is '"):
        reference_table(tmp_path / "table", store, _config(str(model)))


def test_rows_without_an_image_and_with_several_become_examples(spec: ModelSpec, tmp_path: Path) -> None:
    picture(tmp_path / "a.png", size=(8, 8))
    sides = {"chosen": "one", "rejected": "two"}
    rows = [plain(**sides), plain(prompt="<image> <image> which ?", images=["a.png", "a.png"], **sides)]
    store = imported(tmp_path, "plain_dpo", *rows)
    made = [_encoder(spec, store, "dpo")(row) for row in store.rows()]
    assert [len(e.sequences[0].media) for e in made if isinstance(e, Example)] == [0, 2]


def test_a_pair_of_the_same_tokens_is_told_and_left_out(spec: ModelSpec, tmp_path: Path) -> None:
    """VL-RLHF acceptance 3: words that the tokenizer does not know are all the same to it."""
    said = (("5", "one qqq"), ("4", "one www"), ("3", "two"))
    others = [rated(r, r, r, response=text) for r, text in said]
    store = imported(tmp_path, "vlfeedback", feedback(*others[:2]), feedback(*others))
    for algo in ("dpo", "ddpo", "kto_pair", "scalar_rm"):
        alone, with_another = (_encoder(spec, store, algo)(row) for row in store.rows())
        assert alone == "the two responses of its every pair are the same tokens"
        assert isinstance(with_another, Example) and with_another.pairs == ((0, 2), (1, 2))


def _run_ask(config: TrainConfig) -> RunAsk:
    """Of a run without workers."""
    session: Any = SimpleNamespace(config=config)
    return RunAsk(session=cast("Session", session), share_prompts=True, longest_row=1000)


def test_an_example_read_without_its_table_is_not_taken_for_one_without_reference(
    spec: ModelSpec, store: PreferenceStore
) -> None:
    config, _ = load_config(
        ["--algo", "dpo", "--model.path", spec.path, "--data.path", "d", "--reference.mode", "precomputed"]
    )
    made = _encoder(spec, store, "dpo")(next(iter(store.rows())))
    assert isinstance(made, Example)
    with pytest.raises(ValueError, match="was read without the reference's table"):
        _run_ask(config).reference_of([made])


def test_what_is_too_long_is_said_and_never_cut(spec: ModelSpec, store: PreferenceStore) -> None:
    row = next(iter(store.rows()))
    for limits, told in (
        (
            Limits(max_prompt_tokens=10, tokens_per_microbatch=512, share_prompts=True),
            "data.max_prompt_tokens = 10",
        ),
        (
            Limits(max_prompt_tokens=99, tokens_per_microbatch=40, share_prompts=True),
            "4 of its responses take 4",
        ),
        (
            Limits(max_prompt_tokens=99, tokens_per_microbatch=40, share_prompts=False),
            "2 of its responses take 42",
        ),
    ):
        encode = ExampleEncoder(
            PromptEncoder(spec.path),
            learner("dpo").needs,
            media_root=store.media_root,
            score_margin=0.0,
            limits=limits,
        )
        reason = encode(row)
        assert isinstance(reason, str) and told in reason
