"""Every kind of bad input: a run that would start, spoiled in one place, and what the refusal must name."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image
from safetensors import safe_open

LONGEST_THAT_FITS = "498"
"""Completion, behind the row's 14 tokens in the model's 512 positions."""


@dataclass
class Case:
    """A valid run, to be spoiled in one place."""

    folder: Path
    row: dict[str, object]
    flags: dict[str, str]
    text: str | None = None
    extra: list[str] = field(default_factory=list)

    def argv(self) -> list[str]:
        """The command line, its data file written."""
        data = Path(self.flags["--data.path"])
        data.write_text(json.dumps(self.row) + "\n" if self.text is None else self.text)
        return [*(part for flag in self.flags.items() for part in flag), *self.extra]

    def show(self, image: str) -> None:
        """Make the row point at another image."""
        content = [{"type": "image", "image": image}, {"type": "text", "text": "which response ?"}]
        self.row["message"] = json.dumps([{"role": "user", "content": content}])


def valid_case(folder: Path, model: Path) -> Case:
    """One row, one image, one model folder: nothing is wrong with it."""
    data = folder / "data"
    data.mkdir()
    Image.new("RGB", (56, 56)).save(data / "good.png")
    Image.new("RGB", (56, 56)).save(folder / "outside.png")
    (data / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n then nothing of use")
    built = Case(
        folder=data,
        row={"question": "which response ?", "answer": ["<answer>1</answer>"]},
        flags={
            "--algo": "stable_reinforce",
            "--run.dir": str(folder / "run"),
            "--data.path": str(data / "rows.jsonl"),
            "--model.path": str(model),
            "--rollout.max_new_tokens": LONGEST_THAT_FITS,
        },
    )
    built.show("good.png")
    return built


_INDEX = "model.safetensors.index.json"


def _model_with(damage: Callable[[Path], object]) -> Callable[[Case], None]:
    """The case's model, copied and damaged."""

    def spoil(case: Case) -> None:
        folder = case.folder / "model"
        shutil.copytree(case.flags["--model.path"], folder)
        damage(folder)
        case.flags["--model.path"] = str(folder)

    return spoil


def _pointer(model: Path, name: str = "model.safetensors") -> None:
    (model / name).write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{0:064d}\nsize 4229944\n")


def _shard(model: Path) -> Path:
    return (model / "model.safetensors").rename(model / "model-00001-of-00002.safetensors")


def _one_of_two_shards(model: Path) -> None:
    with safe_open(_shard(model), framework="pt") as weights:
        names = dict.fromkeys(weights.keys(), "model-00001-of-00002.safetensors")
    (model / _INDEX).write_text(json.dumps({"weight_map": names | {"b": "model-00002-of-00002.safetensors"}}))


def _no_index(model: Path) -> None:
    _shard(model)


def _cut_weights(model: Path) -> None:
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])


def _quantised(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "awq", "bits": 4, "group_size": 128}
    (model / "config.json").write_text(json.dumps(config))


def _for_others_to_serve(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    config["architectures"] = ["Qwen2_5_VLForSequenceClassification"]
    (model / "config.json").write_text(json.dumps(config))


def _set(flag: str, value: str) -> Callable[[Case], None]:
    return lambda case: case.flags.update({flag: value})


def _text(text: str) -> Callable[[Case], None]:
    return lambda case: setattr(case, "text", text)


def _no_processor(case: Case) -> None:
    bare = case.folder / "bare"
    bare.mkdir()
    source = Path(case.flags["--model.path"])
    for name in ("config.json", "model.safetensors"):
        (bare / name).write_bytes((source / name).read_bytes())
    case.flags["--model.path"] = str(bare)


def _described_as(**config: object) -> Callable[[Case], None]:
    """A folder with nothing but a configuration: the architecture is looked at first."""

    def spoil(case: Case) -> None:
        folder = case.folder / "described"
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config))
        case.flags["--model.path"] = str(folder)

    return spoil


def _vllm_does_not_serve(case: Case) -> None:
    _described_as(model_type="instructblip", text_config={"model_type": "llama"})(case)
    case.flags["--rollout.engine"] = "vllm"


def _small_cluster(case: Case) -> None:
    file = case.folder / "cluster.toml"
    file.write_text('[[nodes]]\nname = "one"\ncpus = 8\ngpus = 2\n')
    case.flags |= {"--placement.cluster": str(file), "--policy.num_ranks": "4", "--rollout.engine": "transformers"}


def _without_bitsandbytes(case: Case) -> None:
    file = case.folder / "cluster.toml"
    file.write_text('[[nodes]]\nname = "one"\ncpus = 8\ngpus = 1\n')
    case.flags |= {"--model.quantize": "nf4", "--model.lora_rank": "8", "--placement.cluster": str(file)}


def _adapter(case: Case) -> None:
    (case.folder / "policy").mkdir()
    (case.folder / "policy" / "adapter_config.json").write_text("{}")
    case.flags["--model.path"] = str(case.folder / "policy")


def _thin_image(case: Case) -> None:
    Image.new("RGB", (1200, 4)).save(case.folder / "thin.png")
    case.show("thin.png")


def _tiff(case: Case) -> None:
    Image.new("RGB", (56, 56)).save(case.folder / "scan.tiff")
    case.show("scan.tiff")


SPOILED: dict[str, tuple[Callable[[Case], None], tuple[str, ...]]] = {
    "missing image": (lambda c: c.show("gone.png"), ("row 1", "gone.png")),
    "unreadable image": (lambda c: c.show("broken.png"), ("row 1", "broken.png")),
    "image too large": (
        lambda c: c.flags.update({"--data.max_pixels": "3000", "--data.oversize": "refuse"}),
        ("row 1", "56 x 56", "3136", "max_pixels = 3000"),
    ),
    "image too thin for the model": (_thin_image, ("row 1", "'thin.png'", "1200 x 4", "at most 200 : 1")),
    "TIFF": (_tiff, ("row 1", "'scan.tiff'", "is TIFF; read are PNG, JPEG, WEBP, BMP, GIF")),
    "image as text": (lambda c: c.show("data:image/png;base64," + "AAAA" * 40_000), ("row 1", "is a data: URI")),
    "image at an address": (lambda c: c.show("https://example.org/a.png"), ("row 1", "is an address")),
    "refusing nothing": (_set("--data.oversize", "refuse"), ("data.max_pixels is not set", "data.oversize")),
    "outside the media root": (lambda c: c.show("../outside.png"), ("row 1", "image")),
    "answer 3": (lambda c: c.row.update(answer=["<answer>3</answer>"]), ("row 1", "answer", "3", "1 or 2")),
    "empty file": (_text(""), ("rows.jsonl",)),
    "broken JSON": (_text('{"message": \n'), ("row 1", "JSON")),
    "unknown key": (_set("--rollout.temprature", "0.5"), ("rollout.temprature", "rollout.temperature")),
    "wrong type": (_set("--run.steps", "many"), ("run.steps", "many")),
    "out of bounds": (_set("--rollout.top_p", "1.5"), ("rollout.top_p", "1.5", "1")),
    "a seed that an engine does not take": (_set("--run.seed", str(2**32)), ("run.seed = 4294967296", "less than")),
    "truncated sampling": (_set("--rollout.top_p", "0.9"), ("rollout.top_p = 0.9", "must be 1", "log-probs")),
    "temperature that an engine rounds up": (_set("--rollout.temperature", "0.001"), ("rollout.temperature", "0.01")),
    "no room for a completion": (
        _set("--rollout.max_new_tokens", str(int(LONGEST_THAT_FITS) + 1)),
        ("longest prompt (14 tokens)", "rollout.max_new_tokens = 499", "max_position_embeddings = 512"),
    ),
    "no model folder": (_set("--model.path", "no/such/model"), ("model.path", "no/such/model")),
    "no processor": (_no_processor, ("model.path", "bare", "preprocessor")),
    "architecture without an adapter": (_described_as(model_type="gpt2"), ("model.path", "'gpt2'", "qwen2_5_vl")),
    "code from the checkpoint": (_described_as(model_type="qwen"), ("model_type 'qwen'", "model.trust_remote_code")),
    "code from the checkpoint, another": (
        _described_as(model_type="internlmxcomposer2"),
        ("model_type 'internlmxcomposer2'", "model.trust_remote_code"),
    ),
    "language model of another kind": (
        _described_as(model_type="instructblip", text_config={"model_type": "t5"}),
        ("model.path", "'t5'", "instructblip", "llama"),
    ),
    "engine does not serve the model": (
        _vllm_does_not_serve,
        ("rollout.engine = 'vllm'", "instructblip", "'transformers'"),
    ),
    "batch arithmetic": (
        _set("--policy.train_batch_size", "100"),
        ("256 * 1 = 256", "policy.train_batch_size = 100"),
    ),
    "no data file": (
        lambda c: c.flags.update({"--data.eval_path": "no/such.jsonl"}),
        ("data.eval_path", "no/such.jsonl"),
    ),
    "prompt too long": (_set("--data.max_prompt_tokens", "5"), ("data.max_prompt_tokens = 5", "row", "rows-000001")),
    "flash attention is not installed": (
        lambda c: c.flags.update({"--model.attention": "flash_attention_2", "--model.dtype": "bfloat16"}),
        ("model.attention = 'flash_attention_2'", "package flash-attn is"),
    ),
    "flash attention 4 is not installed": (
        lambda c: c.flags.update({"--model.attention": "flash_attention_4", "--model.dtype": "bfloat16"}),
        ("model.attention = 'flash_attention_4'", "package flash-attn-4 is"),
    ),
    "FlexAttention without a GPU": (
        _set("--model.attention", "flex_attention"),
        ("model.attention = 'flex_attention'", "GPU for every policy rank"),
    ),
    "LoRA's alpha without its rank": (_set("--model.lora_alpha", "8"), ("model.lora_alpha = 8", "model.lora_rank")),
    "quantised weights that are to be trained": (
        _set("--model.quantize", "nf4"),
        ("model.quantize = 'nf4'", "model.lora_rank"),
    ),
    "quantised and sharded": (
        lambda c: c.flags.update({"--model.quantize": "nf4", "--model.lora_rank": "8", "--policy.zero_stage": "3"}),
        ("model.quantize = 'nf4'", "policy.zero_stage"),
    ),
    "quantised without GPUs": (
        lambda c: c.flags.update({"--model.quantize": "nf4", "--model.lora_rank": "8"}),
        ("model.quantize = 'nf4'", "GPU"),
    ),
    "quantised without bitsandbytes": (_without_bitsandbytes, ("model.quantize = 'nf4'", "bitsandbytes")),
    "weights that git-lfs has not fetched": (_model_with(_pointer), ("model.safetensors", "git-lfs pointer")),
    "a tokenizer that git-lfs has not fetched": (
        _model_with(lambda m: _pointer(m, "tokenizer.json")),
        ("tokenizer.json", "git-lfs pointer"),
    ),
    "a shard that is not there": (
        _model_with(_one_of_two_shards),
        ("model-00002-of-00002.safetensors", "which the index names, is not there"),
    ),
    "shards without their index": (_model_with(_no_index), ("model.safetensors.index.json", "in parts")),
    "an index of something else": (
        _model_with(lambda m: (m / _INDEX).write_text('{"metadata": {}}') and _shard(m)),
        ("is not an index of weights",),
    ),
    "weights cut off": (_model_with(_cut_weights), ("model.safetensors", "is not a whole safetensors file")),
    "a tokenizer that is half written": (
        _model_with(lambda m: (m / "tokenizer.json").write_text('{"version":')),
        ("model.path: ", "tokenizer that cannot be loaded: tokenizer.json: ", "JSONDecodeError"),
    ),
    "a processor of something else": (
        _model_with(lambda m: (m / "processor_config.json").write_text("[]")),
        ("model.path: ", "processor_config.json' holds no JSON object"),
    ),
    "a processor that makes no pixels": (
        _model_with(lambda m: (m / "processor_config.json").write_text('{"processor_class": "Another"}')),
        ("model.path: ", "has a processor without"),
    ),
    "weights that are quantised": (_model_with(_quantised), ("is quantised (awq)", "must not be")),
    "a model that others serve": (_model_with(_for_others_to_serve), ("model.path", "which writes nothing")),
    "an adapter for a model": (_adapter, ("model.path", "no config.json", "orchestrator.export")),
    "NCCL without GPUs": (
        lambda c: c.flags.update(
            {"--sync.backend": "nccl", "--placement.layout": "separate", "--rollout.engine": "vllm"}
        ),
        ("sync.backend = 'nccl'", "GPUs"),
    ),
    "does not fit": (_small_cluster, ("policy", "4", "2")),
}
