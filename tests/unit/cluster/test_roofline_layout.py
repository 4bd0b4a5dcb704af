"""What our own micro-batches are taken to compute: counted by hand, and planned as the pool plans them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoConfig

from orchestrator.cluster.choices import settled_dtype
from orchestrator.cluster.microbatches import SampleSize, plan_samples
from orchestrator.cluster.plan import plan_run
from orchestrator.cluster.roofline import learning, moving
from orchestrator.cluster.roofline.layout import Answered, KeptFeatures, packed_layout, padded_layout
from orchestrator.cluster.roofline.lengths import Asked, drawn_lengths, log_normal
from orchestrator.cluster.roofline.passes import forward_flops
from orchestrator.cluster.roofline.plan import machine_of_cluster, step_question
from orchestrator.cluster.roofline.question import StepQuestion
from orchestrator.cluster.roofline.shape import model_counts
from orchestrator.cluster.row_work import row_weights
from orchestrator.config import load_config
from tests import tiny_models
from tests.unit.cluster.described_models import write_cluster, write_qwen2_5_vl_config
from workers.models import vision_features

_RUN = (
    *("--algo", "grpo", "--data.path", "unread.jsonl", "--rollout.prompts_per_step", "32"),
    *("--rollout.samples_per_prompt", "4", "--policy.train_batch_size", "32", "--rollout.num_engines", "4"),
    *("--rollout.max_new_tokens", "2048", "--policy.num_ranks", "4", "--algorithm.kl_coef", "0"),
)
"""Four updates of 32 samples."""
Ask = Callable[..., StepQuestion]


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Ask:
    root = tmp_path_factory.mktemp("described")
    model, cluster = write_qwen2_5_vl_config(root / "7B"), write_cluster(root / "c.toml")

    def asked(*flags: str) -> StepQuestion:
        own = ("--model.path", str(model), "--placement.cluster", str(cluster))
        config, _ = load_config([*_RUN, *own, *flags])
        resources, plan = plan_run(config)
        machine = machine_of_cluster(resources)
        assert machine is not None
        answers = log_normal(config.samples_per_step, mean=350, longest=1500)
        lengths = drawn_lengths(config, prompt=400, image=300, answers=answers)
        return step_question(settled_dtype(config, plan), plan, machine, lengths)

    return asked


def _batch() -> list[Answered]:
    one, two = Asked(prompt=10, image=8, answers=(4, 6)), Asked(prompt=20, image=12, answers=(5,))
    return [Answered(one, 0, 4), Answered(two, 1, 5), Answered(one, 0, 6)]


def test_packed_rows_fill_nothing_up_and_see_no_more_than_they_may(ask: Ask) -> None:
    shape = ask().shape
    laid = packed_layout(shape, _batch())
    assert laid.tokens == 10 + 4 + 6 + 20 + 5
    of_prompts, of_answers = 10 * 10 / 2 + 20 * 20 / 2, 4 * 4 / 2 + 6 * 6 / 2 + 5 * 5 / 2
    assert laid.pairs == of_prompts + of_answers + (4 + 6) * 10 + 5 * 20
    assert laid.predicted == 15 and laid.image_tokens == laid.seen_tokens == 20
    assert laid.seen_pairs == shape.image_pairs(8 * 4) + shape.image_pairs(12 * 4)
    apart = padded_layout(shape, _batch())
    assert (apart.tokens, apart.pairs, apart.image_tokens) == (3 * 25, 3 * 25**2, 8 + 12 + 8)


def test_a_frozen_tower_sees_an_image_again_only_where_its_features_did_not_fit(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = ask().shape
    assert shape.features_a_token * 2 == 10 << 10  # Qwen2.5-VL's in bfloat16: 10 KiB a token of an image
    kept = KeptFeatures(shape, width=2)
    assert [packed_layout(shape, _batch(), kept).seen_tokens for _ in range(2)] == [20, 0]
    assert padded_layout(shape, _batch(), KeptFeatures(shape, width=2)).seen_tokens == 20  # equal images once
    monkeypatch.setattr(vision_features, "KEPT_BYTES", 15 * (10 << 10))
    kept = KeptFeatures(shape, width=2)
    again = [packed_layout(shape, _batch(), kept) for _ in range(2)]
    assert again[1].seen_tokens > 0 and again[1].image_tokens == 20


@pytest.mark.parametrize(
    ("write", "kept"),
    [
        (tiny_models.write_qwen3_vl, 1),
        (tiny_models.write_gemma3, 1),
        (tiny_models.write_llava_next, 1),
        (tiny_models.write_internvl, 2),
    ],
)
def test_what_is_kept_of_a_token_is_what_the_tower_gives(
    write: Callable[[Path], Path], kept: int, tmp_path: Path
) -> None:
    shape = model_counts(str(write(tmp_path / "model")))
    vision = AutoConfig.from_pretrained(tmp_path / "model").vision_config
    deeper = len(getattr(vision, "deepstack_visual_indexes", ()))
    assert shape.features_a_token == (kept + deeper) * shape.patches_a_token * shape.vision_width


def test_a_rank_runs_a_frozen_tower_once_a_step(ask: Ask) -> None:
    alone = ask("--model.freeze", "vision", "--policy.num_ranks", "1")
    images = sum(asked.image for asked in alone.lengths)
    assert alone.asks_first
    scored = alone.scored("policy", alone.shape)
    updates = alone.learned("policy", alone.shape, epochs=2, scored=True)
    assert sum(laid.seen_tokens for own in scored for laid in own) == images
    assert not any(laid.seen_tokens for shares in updates for own in shares for laid in own)
    # Among several, an image that another rank learns from than scored it is seen there for the first time.
    several = ask("--model.freeze", "vision")
    learned = several.learned("policy", several.shape, epochs=1, scored=True)
    assert 0 < sum(laid.seen_tokens for shares in learned for own in shares for laid in own) <= images
    trained = ask().learned("policy", several.shape, epochs=2, scored=True)
    assert sum(laid.seen_tokens for shares in trained for own in shares for laid in own) >= 2 * images


def test_no_pass_of_a_frozen_tower_is_counted_twice_in_the_bound(ask: Ask) -> None:
    for flags in ((), ("--policy.train_batch_size", "128")):
        asked = ask("--model.freeze", "vision", *flags)
        scored, update = learning.old_logprobs(asked), learning.update(asked)
        for phase in (scored, update) if scored is not None else (update,):
            assert 0 < phase.bound_s <= phase.ours_s + 1e-9
        assert all(amount >= -1e-6 * update.ours.flops for amount in update.excess.values())
        tower = forward_flops(asked.shape, learning.best_layout(asked.shape, asked.lengths))["vision"]
        least = [
            learning.least_learning(asked, asked.shape, asked.lengths, asked.trained, scored=s) for s in (False, True)
        ]
        assert least[0] - least[1] == pytest.approx(tower)


def test_the_head_runs_again_only_where_its_logits_are_too_many_to_keep(ask: Ask) -> None:
    """8 GiB hold those of 28,244 tokens of 152,064 ids in bfloat16; of a head that does not learn none are kept."""
    wide = ("--policy.tokens_per_microbatch", "262144", "--policy.num_ranks", "1", "--policy.train_batch_size", "128")
    worn = ("--model.lora_rank", "16", "--model.freeze", "vision", "--policy.zero_stage", "2")
    assert learning.update(ask()).excess["head again"] == 0
    assert learning.update(ask(*wide)).excess["head again"] > 0
    assert learning.update(ask(*wide, *worn)).excess["head again"] == 0


def test_scores_are_computed_again_in_the_tower_that_learns_too(ask: Ask) -> None:
    whole, frozen = (learning.update(ask(*flags)) for flags in ((), ("--model.freeze", "vision")))
    assert whole.excess["scores again"] > frozen.excess["scores again"] > 0


def test_micro_batches_are_those_of_the_pool(ask: Ask) -> None:
    asked = ask("--policy.tokens_per_microbatch", "8192")
    config = asked.config
    weights = row_weights(AutoConfig.from_pretrained(config.model.folder), tower_runs=True)
    samples = [sample for update in asked.updates for sample in update]
    sizes = [SampleSize(str(s.number), 400, 400 + s.length, 4 * 300) for s in samples]
    plan = plan_samples(sizes, share_prompts=True, num_ranks=4, token_budget=8192, weights=weights)
    assert asked.planned(None, 4) == [[[samples[i] for i in batch] for batch in batches] for batches in plan]
    by_tokens = plan_samples(sizes, share_prompts=True, num_ranks=4, token_budget=8192)
    assert plan != by_tokens  # or the lengths do not tell the two apart


def test_an_engine_keeps_a_copy_only_of_weights_that_no_sync_brings(ask: Ask) -> None:
    whole, frozen = moving.sleep(ask()), moving.sleep(ask("--model.freeze", "vision"))
    assert whole is not None and whole.ours_s == 0
    assert frozen is not None and frozen.ours.host == 2 * 2 * 8_292_166_656
    worn = moving.sleep(ask("--model.lora_rank", "16"))
    assert worn is not None and worn.ours.host >= frozen.ours.host
