"""Runs that make the policy judge: reinforcement, and the cold start before it."""

from dataclasses import replace

from orchestrator.reporting.findings import (
    BESIDE_CHANCE,
    CHANCE,
    Check,
    every,
    measured,
    metrics_were_finite,
    number_format,
    share_rose,
    thirds_rose,
)
from orchestrator.reporting.run_kind import CHANCE_LINE, POLICY_CURVES, SHARE, Curve, RunKind
from orchestrator.reporting.run_record import RunRecord

_BLIND_MARGIN = 0.06
"""How far from chance a judge may be that is shown the wrong images."""
_SIDE_MARGIN = 0.1
"""How far from one half its choice of the response shown first may be."""
_MISMATCH_BOUND = {"float32": 1e-4, "bfloat16": 5e-2}


def mismatch_bound(record: RunRecord) -> float:
    """The run's own tolerance, else that of its number format, the stricter where that is not known; nats."""
    own = record.setting("sync", "tolerance")
    return own if isinstance(own, float) else _MISMATCH_BOUND[number_format(record) or "float32"]


def coverage_bound(record: RunRecord) -> float:
    """Least share of scored rollouts."""
    own = record.setting("reward", "min_coverage")
    return own if isinstance(own, float) else 0.9


def _headline(record: RunRecord) -> str:
    accuracy = record.series("eval/accuracy")
    if not accuracy:
        return "No held-out accuracy has been measured."
    pairs = record.manifest.get("num_held_out")
    on = f" on {pairs} held-out pairs" if isinstance(pairs, int) else ""
    return measured("Accuracy", accuracy, on=on, beside=BESIDE_CHANCE)


def _accuracy_rose(record: RunRecord) -> Check:
    pairs = record.manifest.get("num_held_out")
    observations = pairs if isinstance(pairs, int) and pairs > 0 else None
    return share_rose("Held-out accuracy rose", record.series("eval/accuracy"), observations)


def _reward_rose(record: RunRecord) -> Check:
    return thirds_rose("Mean reward rose", record.series("reward/mean"))


def _judges_by_looking(record: RunRecord) -> Check:
    question = "It judges by looking: with shuffled images it is near chance"
    accuracy = dict(record.series("eval/accuracy"))
    control = [point for point in record.series("eval/accuracy_shuffled_images") if point[0] in accuracy][-1:]
    # Whoever guesses is near chance with any images, so the control says nothing yet.
    if control and accuracy[control[0][0]] <= CHANCE + _BLIND_MARGIN:
        step = control[0][0]
        return Check(
            question, "unknown", f"with its own images it is near chance too: {accuracy[step]:.3f} at step {step}"
        )
    bound = f"accuracy within {_BLIND_MARGIN:g} of {CHANCE:g}"
    return every(question, control, lambda value: abs(value - CHANCE) <= _BLIND_MARGIN, bound)


def _leans_to_neither_side(record: RunRecord) -> Check:
    return every(
        "It leans to neither side",
        record.series("eval/first_position_rate")[-1:],
        lambda value: abs(value - CHANCE) <= _SIDE_MARGIN,
        f"share of the verdicts for the response shown first within {_SIDE_MARGIN:g} of {CHANCE:g}",
    )


def _engine_agrees(record: RunRecord) -> Check:
    most = mismatch_bound(record)
    return every(
        "Engine and trainer agree on every step",
        record.series("mismatch/logprob_abs_mean"),
        lambda value: value <= most,
        f"mean gap of log-probs at most {most:g} nats",
    )


def _syncs_were_verified(record: RunRecord) -> Check:
    points = record.series("sync/verified")
    return every("Every weight sync was verified", points, lambda value: value == 1.0, "1")


def _enough_was_scored(record: RunRecord) -> Check:
    least = coverage_bound(record)
    return every(
        "Enough rollouts were scored on every step",
        record.series("judge/coverage"),
        lambda value: value >= least,
        f"coverage at least {least:g}",
    )


_ACCURACY_CURVE = Curve(
    title="Held-out accuracy",
    names={
        "accuracy": "eval/accuracy",
        "images shuffled": "eval/accuracy_shuffled_images",
        "chose the first": "eval/first_position_rate",
        "no clear verdict": "eval/unreadable_frac",
    },
    bound=CHANCE_LINE,
    y_range=SHARE,
    note="With the images shuffled among the pairs, a judge that looks falls to chance.",
)

ONLINE = RunKind(
    headline=_headline,
    learning=(_accuracy_rose, _reward_rose),
    soundness=(
        _judges_by_looking,
        _leans_to_neither_side,
        _engine_agrees,
        _syncs_were_verified,
        _enough_was_scored,
        metrics_were_finite,
    ),
    curves=(
        _ACCURACY_CURVE,
        Curve(
            title="Reward and its parts",
            names={"*": "reward/*"},
        ),
        Curve(
            title="Engine against trainer, nats",
            names={"mean": "mismatch/logprob_abs_mean", "largest": "mismatch/logprob_abs_max"},
            bound=("bound of the mean", mismatch_bound),
            prefer_log=True,
            note="Gap between the log-probs of the engine that sampled and those of the trainer.",
        ),
        Curve(
            title="Judge",
            names={"coverage": "judge/coverage", "cached": "judge/cached_frac", "no verdict": "judge/unknown_frac"},
            bound=("least coverage", coverage_bound),
            y_range=SHARE,
        ),
        *POLICY_CURVES,
        Curve(
            title="Guards: share of tokens",
            names={
                "Pre-CLIP": "policy/preclip_frac",
                "PPO clip": "policy/clip_frac",
                "filtered, positive": "adv/filtered_pos_frac",
                "filtered, negative": "adv/filtered_neg_frac",
            },
        ),
        Curve(title="KL to the reference, nats", names={"KL": "kl/ref"}),
        Curve(title="Completion length, tokens", names={"mean": "length/mean"}),
        Curve(title="Share of cut completions", names={"cut": "length/truncated_frac"}, y_range=SHARE),
        Curve(title="Rollout tokens a second", names={"rate": "throughput/rollout_tokens_per_s"}),
    ),
    phases=("rollout", "reward", "train", "sync"),
    has_rollouts=True,
)

COLD_START = replace(
    ONLINE,
    learning=(_accuracy_rose,),
    soundness=(_leans_to_neither_side, metrics_were_finite),
    curves=(_ACCURACY_CURVE, *POLICY_CURVES),
    phases=("train",),
    has_rollouts=False,
)
"""It learns from demonstrations, and judges only to be measured."""
