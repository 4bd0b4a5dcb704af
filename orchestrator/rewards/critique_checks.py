"""What makes a model unable to write critiques: told before any process is started."""

from collections.abc import Iterable
from typing import Any

from algorithms.critique_rm import CritiqueRmSection
from orchestrator.config.schema import TrainConfig
from orchestrator.data.stores import OfflineData
from orchestrator.errors import RefusedInput
from orchestrator.rewards.critique_service import known_request
from workers.models.folder import check_model_folder
from workers.multimodal.critique_format import CritiqueFormat
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.types import Prompt


def check_critique_models(config: TrainConfig, data: OfflineData) -> None:
    """Refuse a run whose critiques could not be asked for, of whatever instruction.

    Raises:
        RefusedInput: the folder at ``reward.critique.path`` is no critique reward model; or the chat template of the
            model that writes critiques cannot go on behind a response.
    """
    needs = config.needs
    given, own = config.reward.critique.path, config.model.path
    conversations = {tuple(turn["role"] for turn in row.messages): row.messages for row in _rows(data)}
    if needs.pair_betas and given is not None:
        request = known_request(given)
        _check(config, "reward.critique.path", given, request, conversations.values())
    elif needs.critiques or needs.margins:
        assert own is not None
        _check(config, "model.path", own, config.section(CritiqueRmSection).request, conversations.values())


def check_online_critic(config: TrainConfig, prompts: Iterable[Prompt]) -> None:
    """Refuse a critique reward model that could not be asked about these prompts.

    Raises:
        RefusedInput: its chat template does not take their turns, or cannot go on behind a response.
    """
    path = config.reward.critique.path
    if path is not None and config.reward.critique.weight:
        conversations = {tuple(turn["role"] for turn in p.messages): p.messages for p in prompts}
        _check(config, "reward.critique.path", path, known_request(path), conversations.values())


def _rows(data: OfflineData) -> Iterable[Any]:
    for store in data.by_role.values():
        yield from store.rows()


def _check(
    config: TrainConfig, option: str, path: str, request: str, conversations: Iterable[tuple[dict[str, Any], ...]]
) -> None:
    trusted = config.model.trust_remote_code
    try:
        check_model_folder(path, trust_remote_code=trusted, trained=False)
        spelling = CritiqueFormat(PromptEncoder(path, trust_remote_code=trusted), request)
        for messages in conversations:
            spelling.behind_response(messages)
    except ValueError as error:
        raise RefusedInput(f"{option} {path!r}: {error}") from error
