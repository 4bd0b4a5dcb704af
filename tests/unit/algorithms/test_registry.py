"""What the named algorithms are made of."""

from dataclasses import replace

from algorithms.registry import ALGORITHMS, PROFILES


def test_reinforce_pp_is_stable_reinforce_without_its_two_guards() -> None:
    unguarded = replace(ALGORITHMS["stable_reinforce"], adv_filter="none", preclip_min=None, preclip_max=None)
    assert ALGORITHMS["reinforce_pp"] == unguarded


def test_stable_reinforce_follows_the_paper_unless_told() -> None:
    spec, paper = ALGORITHMS["stable_reinforce"], PROFILES["paper"]
    assert (spec.preclip_min, spec.preclip_max, spec.clip_low, spec.clip_high) == (1e-3, 1e3, 0.2, 0.2)
    assert (spec.aggregation, spec.kl_estimator) == ("seq-mean-token-mean", "k1")
    assert spec.adv_filter == paper.adv_filter == "sigma3"
    assert paper.kl_coef == 0.0


def test_released_profile_is_what_the_released_script_runs() -> None:
    released = PROFILES["r1_released"]
    assert (released.adv_filter, released.kl_coef, released.learning_rate) == ("r1_released", 1e-3, 3e-7)
