"""A reward model in the form in which people serve them: its scalar head among its weights, where vLLM looks for it.

``vllm serve FOLDER`` takes the folder for a ``...ForSequenceClassification`` model with one label, and hands out its
number as it is. Whoever loads the folder here goes on reading the head where it always is.
"""

import json
from pathlib import Path

from safetensors.torch import load_file, save_file

from workers.models.adapters import adapter_for
from workers.models.folder import CLASSIFIER, REWARD_HEAD_CONFIG, REWARD_HEAD_FOLDER, has_reward_head, read_model_config

_CONFIG, _INDEX, _HEAD = "config.json", "model.safetensors.index.json", "score.safetensors"
_WRITES = "ForConditionalGeneration"
# One number, with neither softmax nor sigmoid.
_ONE_SCORE = {"num_labels": 1, "problem_type": "regression"}


def as_classifier(folder: Path) -> bool:
    """Rewrite a model folder so that vLLM serves its rewards; False leaves one as it is that vLLM cannot serve.

    That is one without a head, with an ``mlp`` for a head, that writes critiques, or of a family whose scores vLLM was
    not seen to give (``ModelAdapter.vllm_score``).
    """
    config = read_model_config(folder)
    place = adapter_for(str(config["model_type"])).vllm_score
    architectures = config.get("architectures")
    if place is None or not isinstance(architectures, list) or not has_reward_head(folder):
        return False
    head = json.loads((folder / REWARD_HEAD_CONFIG).read_text())
    if head["kind"] != "linear" or head["request"] is not None:
        return False
    tensors = load_file(folder / REWARD_HEAD_FOLDER / "model.safetensors")
    named = {f"{place}.{name}": tensor for name, tensor in tensors.items()}
    save_file(named, folder / _HEAD, metadata={"format": "pt"})
    _list_tensors(folder / _INDEX, list(named))
    config |= {"architectures": [str(name).replace(_WRITES, CLASSIFIER) for name in architectures], **_ONE_SCORE}
    if isinstance(text := config.get("text_config"), dict):
        config["text_config"] = text | _ONE_SCORE  # vLLM asks the part that has the head
    (folder / _CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    return True


def _list_tensors(index: Path, names: list[str]) -> None:
    """Where there is an index, vLLM reads no file that it does not name."""
    if index.is_file():
        told = json.loads(index.read_text())
        told["weight_map"] |= dict.fromkeys(names, _HEAD)
        index.write_text(json.dumps(told, indent=2) + "\n")
