"""Runs that make the policy judge, or answer: reinforcement, and the cold start before it."""

from dataclasses import replace

from orchestrator.reporting.charts import number
from orchestrator.reporting.findings import (
    BESIDE_CHANCE,
    CHANCE,
    Check,
    coverage_bound,
    every,
    measured,
    metrics_were_finite,
    mismatch_bound,
    share_rose,
    thirds_rose,
)
from orchestrator.reporting.run_kind import RunKind
from orchestrator.reporting.run_record import RunRecord

_BLIND_MARGIN = 0.06
"""How far from chance a judge may be that is shown the wrong images."""
_SIDE_MARGIN = 0.1
"""How far from one half its choice of the response shown first may be."""


def judges(record: RunRecord) -> bool:
    """Whether it was asked for verdicts: then its evaluations say which position it chose."""
    return bool(record.series("eval/first_position_rate")) or not record.series("eval/accuracy")


def _headline(record: RunRecord) -> str:
    return _measured(record, of="pairs", beside=BESIDE_CHANCE)


def _answers_headline(record: RunRecord) -> str:
    return _measured(record, of="prompts", beside="")


def _measured(record: RunRecord, *, of: str, beside: str) -> str:
    accuracy = record.series("eval/accuracy")
    if not accuracy:
        return "No held-out accuracy has been measured."
    count = record.manifest.get("num_held_out")
    on = f" on {count} held-out {of}" if isinstance(count, int) else ""
    return measured("Accuracy", accuracy, on=on, beside=beside)


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


def _answers_by_looking(record: RunRecord) -> Check:
    accuracy = dict(record.series("eval/accuracy"))
    control = [point for point in record.series("eval/accuracy_shuffled_images") if point[0] in accuracy][-1:]
    most = accuracy[control[0][0]] - _BLIND_MARGIN if control else 0.0
    return every(
        "It answers by looking: with shuffled images it is wrong more often",
        control,
        lambda value: value <= most,
        f"accuracy {_BLIND_MARGIN:g} below that with its own images, at most {number(most)}",
    )


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
    has_rollouts=True,
)

COLD_START = replace(
    ONLINE,
    learning=(_accuracy_rose,),
    soundness=(_leans_to_neither_side, metrics_were_finite),
    has_rollouts=False,
)
"""It learns from demonstrations, and judges only to be measured."""

ANSWERING = replace(
    ONLINE,
    headline=_answers_headline,
    soundness=(_answers_by_looking, *ONLINE.soundness[2:]),
)
"""Its prompts have answers of any kind, or none."""

COLD_START_ANSWERING = replace(COLD_START, headline=_answers_headline, soundness=(metrics_were_finite,))
