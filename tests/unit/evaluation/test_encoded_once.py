"""Prompts that are encoded once say the same when they are asked for again, in whatever order."""

from pathlib import Path

import pytest

from algorithms.records import MediaRef
from orchestrator.evaluation.scorers.encoded_once import EncodedOnce
from tests.tiny_models import write_released_qwen2_5_vl
from tests.unit.evaluation.released_files import save
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.types import Prompt


def test_a_prompt_is_encoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = MediaRef(sha256="a", path=str(save(tmp_path / "a.png")), width=12, height=10)
    prompts = [
        Prompt(
            uid=f"{count}",
            messages=(
                {"role": "user", "content": [{"type": "image"}] * count + [{"type": "text", "text": f"{count} ?"}]},
            ),
            media=(image,) * count,
        )
        for count in (2, 0, 1)
    ]
    encoder = PromptEncoder(write_released_qwen2_5_vl(tmp_path / "model"))
    wanted, asked = [encoder.encode(prompt) for prompt in prompts], list[str]()

    def counted(prompt: Prompt, encode: object = PromptEncoder.encode) -> object:
        asked.append(prompt.uid)
        return encode(encoder, prompt)  # type: ignore[operator]

    monkeypatch.setattr(encoder, "encode", counted)
    once = EncodedOnce(encoder)
    assert [once.encode(prompt) for prompt in prompts] == wanted
    for _ in range(2):
        assert [once.encode(prompt) for prompt in reversed(prompts)] == wanted[::-1]
    assert asked == ["2", "0", "1"]
