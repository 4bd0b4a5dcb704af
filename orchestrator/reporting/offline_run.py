"""Runs that learn from a preference store: pairs, labelled responses, or the best response alone."""

from algorithms.algorithm import Needs
from orchestrator.config.sections import LOGPROB_TOLERANCE
from orchestrator.reporting.charts import number
from orchestrator.reporting.findings import (
    BESIDE_CHANCE,
    Check,
    mean_rose,
    measured,
    metrics_were_finite,
    never,
    number_format,
    share_rose,
    thirds_rose,
)
from orchestrator.reporting.run_kind import RunKind
from orchestrator.reporting.run_record import Point, RunRecord


def offline_run(needs: Needs) -> RunKind:
    """What a run of an algorithm with these needs has to show."""
    if needs.responses == "best":
        return _SUPERVISED
    start = (_starts_as_reference,) if needs.reference else ()
    return RunKind(
        headline=_pair_headline,
        learning=(_pair_accuracy_rose, _labels_parted if needs.responses == "labels" else _margin_rose),
        soundness=(*start, *_SOUNDNESS),
        has_rollouts=False,
    )


def _pair_headline(record: RunRecord) -> str:
    accuracy, pairs = record.series("eval/pair_accuracy"), record.series("eval/num_pairs")
    if not accuracy:
        return "No held-out pair accuracy has been measured."
    on = f" on {pairs[-1][1]:.0f} pairs" if pairs else ""
    return measured("Held-out pair accuracy", accuracy, on=on, beside=BESIDE_CHANCE)


def _token_headline(record: RunRecord) -> str:
    accuracy, tokens = record.series("eval/token_accuracy"), record.series("eval/num_tokens")
    if not accuracy:
        return "No held-out token accuracy has been measured."
    on = f" on {tokens[-1][1]:.0f} tokens" if tokens else ""
    return measured("Held-out token accuracy", accuracy, on=on, beside="")


def _pair_accuracy_rose(record: RunRecord) -> Check:
    return _held_out_share_rose(record, "pair", "pairs")


def _token_accuracy_rose(record: RunRecord) -> Check:
    return _held_out_share_rose(record, "token", "tokens")


def _held_out_share_rose(record: RunRecord, one: str, many: str) -> Check:
    question, points = f"Held-out {one} accuracy rose", record.series(f"eval/{one}_accuracy")
    counted = record.series(f"eval/num_{many}")[-1:]
    # At worst an instruction is a single observation, however many pairs or tokens it has.
    instructions = record.series("eval/num_instructions")[-1:]
    held_out = instructions[0][1] if instructions else record.manifest.get("num_held_out")
    if isinstance(held_out, int | float) and held_out > 0:
        most = min([int(held_out), *(int(count) for _, count in counted)])
        told = f", counting {most} instructions: the {many} of one are right or wrong together"
        return share_rose(question, points, most, counted=told)
    if not counted:
        return share_rose(question, points, None)
    told = f", as if the {counted[0][1]:.0f} {many} were independent: those of one instruction are not"
    return share_rose(question, points, int(counted[0][1]), counted=told)


def _token_logprob_rose(record: RunRecord) -> Check:
    return mean_rose("Held-out log-prob of a token rose", record.series("eval/token_logprob"), unit="nats")


def _margin_rose(record: RunRecord) -> Check:
    return thirds_rose("Margin on the step's own pairs rose", record.series("preference/margin"))


def _labels_parted(record: RunRecord) -> Check:
    undesirable = dict(record.series("preference/rejected_reward"))
    gaps: list[Point] = [
        (step, reward - undesirable[step])
        for step, reward in record.series("preference/chosen_reward")
        if step in undesirable
    ]
    return thirds_rose("Margin of the step's desirable over its undesirable responses rose", gaps)


def _starts_as_reference(record: RunRecord) -> Check:
    question = "It started as its own reference: no margin before the first step"
    start = dict(record.series("eval/margin")).get(0)
    if start is None:
        return Check(question, "unknown", "the held-out margin at step 0 has not been measured")
    size, dtype = abs(start), number_format(record)
    # A policy that is its own reference: rounding alone puts its mean margin apart from 0.
    most = LOGPROB_TOLERANCE[dtype or "float32"]
    # Left to the machine, and the machine not known: what only one format explains is not judged.
    if dtype is None and most < size <= LOGPROB_TOLERANCE["bfloat16"]:
        told = f"{number(start)} at step 0 is rounding in bfloat16 and too much in float32; the run does not say which"
        return Check(question, "unknown", told)
    return Check(question, "yes" if size <= most else "no", f"{number(start)} at step 0; wanted: within {most:g} of 0")


def _none_passed_over(record: RunRecord) -> Check:
    told = "log.jsonl names each with its reason"
    return never("No instruction was passed over", record.series("data/passed_over"), told=told)


def _none_skipped(record: RunRecord) -> Check:
    told = "a loss or a gradient was not finite"
    return never("No update was skipped", record.series("guard/skipped_updates"), told=told)


_SOUNDNESS = (_none_passed_over, _none_skipped, metrics_were_finite)


_SUPERVISED = RunKind(
    headline=_token_headline,
    learning=(_token_accuracy_rose, _token_logprob_rose),
    soundness=_SOUNDNESS,
    has_rollouts=False,
)
