"""Ten rows that our benchmark and evaluation kits both read, and a tiny checkpoint that answers them in a few words.

With random weights a model's most likely word is nearly the same whatever it is shown. So the head knows these words
alone, and attention weighs what was read more than training would make it: answers differ from row to row, and among
them are a plain yes and no, both at once, a denial, and nothing.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from tests.tiny_models import write_released_qwen2_5_vl
from tests.unit.evaluation.released_files import cell

OBJECTS = ("dog", "cat", "car", "bus", "cup", "hat", "kite", "boat", "lamp", "fork")
NUM_TOKENS = {"evalscope": 3, "lmms-eval": 1}
"""lmms-eval's POPE takes the bare word alone for an answer, evalscope's looks for it."""
_WORDS = ("Yes", "No", "yes", "no", ".", " not")
_SHARPER = 8.0
_END = "<|im_end|>"
_TEXTS = ("id", "question_id", "question", "answer", "category", "image_source")
_POPE_YAML = """\
include: {kit}/tasks/pope/pope.yaml
task: local_pope
dataset_path: parquet
dataset_kwargs:
  data_files:
    test: {file}
"""


def write_talker(folder: Path) -> Path:
    """The checkpoint."""
    write_released_qwen2_5_vl(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    embedding = next(value for name, value in tensors.items() if name.endswith("embed_tokens.weight"))
    for name, value in tensors.items():
        if "self_attn" in name and name.endswith("proj.weight"):
            tensors[name] = value * _SHARPER
    head, generator = torch.zeros_like(embedding), torch.Generator().manual_seed(0)
    said = [tokenizer.encode(word)[0] for word in _WORDS] + [tokenizer.convert_tokens_to_ids(_END)]
    head[said] = torch.randn(len(said), embedding.shape[1], generator=generator)
    save_file(tensors | {"lm_head.weight": head}, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["tie_word_embeddings"] = config["text_config"]["tie_word_embeddings"] = False
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@dataclass(frozen=True)
class KitCase:
    """Files that a kit and we read."""

    file: Path
    """POPE's Parquet as it is released: pictures in the rows, and the words that tell ``datasets`` so."""
    evalscope: tuple[str, ...]
    """What evalscope is told so that it reads it."""
    lmms_eval: tuple[str, ...]
    """What lmms-eval is."""


def write_case(folder: Path, *, lmms_eval: Path | None = None) -> KitCase:
    """The rows, half of them with yes for an answer.

    Args:
        lmms_eval: Folder of its package.
    """
    rows = [
        {
            "id": str(i),
            "question_id": str(i),
            "question": f"Is there a {name} in the image?",
            "answer": ("no", "yes")[i % 2],
            "category": "random",
            "image_source": f"{i}",
            "image": cell(i),
        }
        for i, name in enumerate(OBJECTS)
    ]
    features = {**{name: {"dtype": "string", "_type": "Value"} for name in _TEXTS}, "image": {"_type": "Image"}}
    picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema(
        [*((name, pa.string()) for name in _TEXTS), ("image", picture)],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    # The split stands in the file's name, as evalscope has it.
    file = folder / "pope" / "data" / "random-00000-of-00001.parquet"
    file.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), file)
    (folder / "tasks").mkdir()
    if lmms_eval is not None:
        (folder / "tasks" / "local_pope.yaml").write_text(_POPE_YAML.format(kit=lmms_eval, file=file))
    local = {"local_path": str(folder / "pope"), "subset_list": ["random"], "default_subset": "default"}
    return KitCase(
        file=file,
        evalscope=("--dataset-args", json.dumps({"pope": local})),
        lmms_eval=("--include_path", str(folder / "tasks")),
    )
