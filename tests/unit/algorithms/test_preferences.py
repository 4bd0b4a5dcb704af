"""What the algorithms of preferences need, and what they refuse."""

from types import SimpleNamespace
from typing import Any

import pytest

from algorithms.algorithm import Needs, ScalarHead
from algorithms.critique_rm import CritiqueRm, CritiqueRmSection
from algorithms.ddpo import Ddpo
from algorithms.dpo import Dpo, Hinge, Ipo
from algorithms.kto import Kto
from algorithms.kto_pair import KtoPair
from algorithms.mm_dpo import MmDpo, MmDpoSection
from algorithms.preference import Preference, PreferenceSection
from algorithms.scalar_rm import ScalarRm

_ALL = (Dpo, Hinge, Ipo, Ddpo, Kto, KtoPair, ScalarRm, CritiqueRm, MmDpo)
_PAIRS = Needs(data=("preferences",), responses="pairs", reference=True)


def _made(kind: type[Preference], **of_section: Any) -> Preference:
    return kind(
        kind.__name__.lower(), {name: of_section.get(name, section()) for name, section in kind.sections.items()}
    )


def _config(*, mode: str = "worker", size: int = 8) -> Any:
    """The part of a configuration that they check."""
    return SimpleNamespace(
        reference=SimpleNamespace(mode=mode),
        policy=SimpleNamespace(train_batch_size=size),
    )


@pytest.mark.parametrize("kind", [Dpo, Hinge, Ipo, Ddpo, KtoPair])
def test_who_scores_pairs_beyond_the_reference_needs_one(kind: type[Preference]) -> None:
    assert _made(kind).needs == _PAIRS


def test_kto_learns_from_labels() -> None:
    assert _made(Kto).needs == Needs(data=("preferences",), responses="labels", reference=True)


def test_reward_models_have_a_head_and_no_reference() -> None:
    scalar, critique = _made(ScalarRm).needs, _made(CritiqueRm).needs
    assert scalar == Needs(data=("preferences",), responses="pairs", head=ScalarHead())
    assert critique.head == ScalarHead(keeps_language=True, request=CritiqueRmSection().request)
    assert critique.critiques and not critique.reference and critique.generated_critiques == 0.0
    assert _made(CritiqueRm, critique_rm=CritiqueRmSection(scheduled_sampling=0.5)).needs.generated_critiques == 0.5


@pytest.mark.parametrize("mode", ["margin", "precomputed_factor", "fixed", "batch_implicit"])
def test_mm_dpo_asks_for_margins_where_they_make_its_betas(mode: Any) -> None:
    needs = _made(MmDpo, mm_dpo=MmDpoSection(beta_mode=mode)).needs
    assert needs.pair_betas and needs.reference and needs.margins == (mode == "margin")


@pytest.mark.parametrize("kind", _ALL)
def test_labels_are_smoothed_by_dpo_and_ddpo_alone(kind: type[Preference]) -> None:
    config = SimpleNamespace(algo="this", learner=_made(kind))
    if kind in (Dpo, Ddpo):
        PreferenceSection(label_smoothing=0.1).check(config)
        return
    with pytest.raises(ValueError, match=r"^preference.label_smoothing = 0.1 has no meaning for algo = 'this'$"):
        PreferenceSection(label_smoothing=0.1).check(config)


def test_a_margin_of_scores_is_not_negative_but_for_the_largest_gap() -> None:
    config = SimpleNamespace(algo="this", learner=_made(Dpo))
    PreferenceSection(score_margin=-1).check(config)
    with pytest.raises(ValueError, match=r"^preference.score_margin = -0.5 must be at least 0, or -1"):
        PreferenceSection(score_margin=-0.5).check(config)


def test_kto_refuses_what_its_baseline_cannot_be_made_with() -> None:
    with pytest.raises(ValueError, match=r"^reference.mode = 'precomputed' cannot serve kto"):
        _made(Kto).check(_config(mode="precomputed"))
    with pytest.raises(ValueError, match=r"^policy.train_batch_size = 1 must be at least 2 for kto"):
        _made(Kto).check(_config(size=1))


def test_mm_dpo_trains_its_reward_model_with_its_own_profile() -> None:
    for profile, of_reward_model in CritiqueRm.profiles.items():
        assert of_reward_model.items() <= MmDpo.profiles[profile].items()
