"""What a model folder must hold, checked from its small files and the headers of its weights, before anything starts.

Also what can be read there without loading a model: its chat template, and how many positions it has.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from algorithms.settings import path_fault
from workers.given_files import TABLE, UnusableFile, read_json, read_text
from workers.models.adapters import ADAPTERS

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
REWARD_HEAD_FOLDER = "reward_head"
"""Beside a model's weights, not among them, so that transformers and vLLM load the folder as the plain model it is."""
CLASSIFIER = "ForSequenceClassification"
"""How the name of an architecture ends that gives scores and writes nothing."""
REWARD_HEAD_CONFIG = f"{REWARD_HEAD_FOLDER}/config.json"

PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")


def check_model_folder(path: str | Path, *, trust_remote_code: bool = False, trained: bool = True) -> dict[str, object]:
    """Check that ``path`` holds a supported model with its processor, tokenizer and weights; return its config.

    Reads only small JSON files and the headers of the weights, so a wrong folder is refused within milliseconds.

    Args:
        trained: The weights are to be trained, which quantised ones cannot be.
    Raises:
        ValueError: what is missing, damaged or unsupported, in one sentence.
    """
    config, root = check_model_config(path, trust_remote_code=trust_remote_code), Path(path)
    for kind, names in (("processor", PROCESSOR_FILES), ("tokenizer", _TOKENIZER_FILES)):
        found = [root / name for name in names if (root / name).is_file()]
        if not found:
            raise ValueError(f"{str(path)!r} has no {kind} (none of {', '.join(names)})")
        for file in found:
            refuse_pointer(file)
    adapter = ADAPTERS[str(config["model_type"])]
    if not adapter.qformer and adapter.chat_template is None:
        check_chat_template(root)
    check_weights(root, config, trained=trained)
    return config


def check_model_config(path: str | Path, *, trust_remote_code: bool = False) -> dict[str, object]:
    """Check that ``path`` describes a model of a supported architecture; return its config.

    Raises:
        ValueError: what is missing or unsupported, in one sentence.
    """
    config = read_model_config(path)
    adapter = ADAPTERS[str(config["model_type"])]
    if adapter.remote_code and not trust_remote_code:
        raise ValueError(
            f"{str(path)!r} has model_type {adapter.model_type!r}, whose code comes with the checkpoint and is run "
            "only with model.trust_remote_code = true"
        )
    described = config.get("text_config")
    text_model = described.get("model_type") if isinstance(described, dict) else None
    if adapter.text_models and text_model not in adapter.text_models:
        raise ValueError(
            f"{str(path)!r} has a language model of model_type {text_model!r}; {adapter.model_type} is supported "
            f"with: {', '.join(adapter.text_models)}"
        )
    return config


def has_reward_head(folder: Path) -> bool:
    """True where the model in ``folder`` gives rewards."""
    return (folder / REWARD_HEAD_CONFIG).is_file()


def gives_rewards_alone(folder: Path) -> bool:
    """True of a reward model that was exported for others to serve: engines here cannot write with it.

    Raises:
        ValueError: see ``read_model_config``.
    """
    named = read_model_config(folder).get("architectures")
    return isinstance(named, list) and any(str(name).endswith(CLASSIFIER) for name in named)


def critique_request(folder: Path) -> str:
    """What the critique reward model in ``folder`` was asked when it was trained.

    Raises:
        ValueError: it gives no rewards, or writes no critiques.
    """
    asked, opening = scored_after(folder) if has_reward_head(folder) else (None, None)
    if asked is None:
        raise ValueError(f"{str(folder)!r} is no critique reward model (no request in {REWARD_HEAD_CONFIG})")
    if opening is not None:
        raise ValueError(f"{str(folder)!r} is no critique reward model: it is told facts, as fact_rm trains one")
    return asked


def writes_critiques(folder: Path) -> bool:
    """Whether the reward model in ``folder`` writes before it gives a reward."""
    asked, opening = scored_after(folder)
    return asked is not None and opening is None


def scored_after(folder: Path) -> tuple[str | None, str | None]:
    """What the reward model in ``folder`` is asked behind a response, and by which words it begins to say its reward.

    None and None of one that reads the response alone.
    """
    described = _object_in(folder / REWARD_HEAD_CONFIG)
    asked, opening = described.get("request"), described.get("opening")
    if "request" not in described or not all(text is None or isinstance(text, str) for text in (asked, opening)):
        raise ValueError(f"{str(folder / REWARD_HEAD_CONFIG)!r} does not say in words what is asked ('request')")
    return asked, opening


def read_model_config(path: str | Path) -> dict[str, object]:
    """The ``config.json`` of a model whose ``model_type`` has an adapter.

    Raises:
        ValueError: what is missing or unsupported, in one sentence.
    """
    root = Path(path)
    if path_fault(str(path)) or not root.is_dir():
        raise ValueError(f"{str(path)!r} is not a folder")
    config_file = root / "config.json"
    if not config_file.is_file():
        hint = "; an adapter becomes a model by python -m orchestrator.export"
        raise ValueError(f"{str(path)!r} has no config.json" + hint * (root / ADAPTER_CONFIG).is_file())
    refuse_pointer(config_file)
    config = _object_in(config_file)
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in ADAPTERS:
        raise ValueError(f"{str(path)!r} has model_type {model_type!r}; supported: {', '.join(sorted(ADAPTERS))}")
    return config


_DEFAULT = "default"
_PLACES = "chat_template.jinja, chat_template.json, processor_config.json, tokenizer_config.json"


def check_chat_template(root: Path) -> None:
    """Check that the folder holds a chat template, and of several that have names, a default one.

    The processor's comes before the tokenizer's. Reads only small files.

    Raises:
        ValueError: in one sentence.
    """
    template = _of_processor(root) or _written_in(root, "tokenizer_config.json")
    if not template:
        raise ValueError(f"{str(root)!r} has no chat template (none in {_PLACES})")
    default = template_by_name(template)
    if default is None:
        names = ", ".join(sorted(template))
        raise ValueError(f"{str(root)!r} has the chat templates {names}, and none of them is named {_DEFAULT!r}")
    if not default.strip():
        raise ValueError(f"{str(root)!r} has a chat template that is empty")


def template_by_name(template: str | Mapping[str, str] | Sequence[Mapping[str, str]] | None) -> str | None:
    """The template that a conversation is written with: the only one, or of several that have names the default one."""
    if template is None or isinstance(template, str):
        return template
    named = template if isinstance(template, Mapping) else {one["name"]: one["template"] for one in template}
    return named.get(_DEFAULT)


def _of_processor(root: Path) -> str | dict[str, str] | None:
    written = _written_in(root, "processor_config.json") or _written_in(root, "chat_template.json")
    if written:
        return written
    # The older place of several: a folder of their own beside the default one.
    found = {file.stem: _text(file) for file in sorted((root / "additional_chat_templates").glob("*.jinja"))}
    if (root / "chat_template.jinja").is_file():
        found[_DEFAULT] = _text(root / "chat_template.jinja")
    return found


def _written_in(root: Path, name: str) -> str | dict[str, str] | None:
    """A template in a JSON file, or several by name."""
    file = root / name
    if not file.is_file():
        return None
    template: Any = _object_in(file).get("chat_template")
    named: dict[Any, Any]
    if isinstance(template, list) and all(isinstance(one, dict) for one in template):
        named = {one.get("name"): one.get("template") for one in template}
    else:
        named = template if isinstance(template, dict) else {_DEFAULT: template or ""}
    if not all(isinstance(text, str) for pair in named.items() for text in pair):
        raise ValueError(f"{str(file)!r} has a 'chat_template' that is neither text nor a list of names and templates")
    return named if isinstance(template, dict | list) else template


def _text(file: Path) -> str:
    try:
        return read_text(file, most=TABLE)
    except UnusableFile as error:
        raise ValueError(f"{str(file)!r} {error}") from error


def _object_in(file: Path) -> dict[str, Any]:
    """The object of a JSON file.

    Raises:
        ValueError: it cannot be read, or holds something else.
    """
    try:
        content = read_json(file)
    except UnusableFile as error:
        raise ValueError(f"{str(file)!r} {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{str(file)!r} holds no JSON object")
    return content


_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def check_weights(root: Path, config: dict[str, Any], *, trained: bool) -> None:
    """Check the files that transformers would load.

    Args:
        config: The folder's ``config.json``.
        trained: The weights are to be trained, which quantised ones cannot be.
    Raises:
        ValueError: what is missing, damaged or of no use, in one sentence.
    """
    if trained and (method := _quantization(config)) is not None:
        raise ValueError(f"{str(root)!r} is quantised ({method}): weights that are to be trained must not be")
    if (root / _WEIGHTS).is_file():
        _tensors_in(root / _WEIGHTS)
    elif (root / _INDEX).is_file():
        _check_shards(root)
    elif _shards_without_index(root):
        raise ValueError(f"{str(root)!r} has weights in parts, but not {_INDEX}, which says what is where")
    else:
        raise ValueError(f"{str(root)!r} has no weights (neither {_WEIGHTS} nor {_INDEX})")


def refuse_pointer(file: Path) -> None:
    """Stop at a file that git-lfs has not fetched.

    Raises:
        ValueError: naming it.
    """
    if file.is_file():
        with file.open("rb") as opened:
            if opened.read(len(_LFS_POINTER)) == _LFS_POINTER:
                raise ValueError(f"{str(file)!r} is a git-lfs pointer, not the file itself; git lfs pull fetches it")


def _quantization(config: dict[str, Any]) -> str | None:
    """How the weights are stored in fewer bits; None where they are not."""
    for part in (config, config.get("text_config")):
        described = part.get("quantization_config") if isinstance(part, dict) else None
        if described:
            return str(described.get("quant_method", "unknown method")) if isinstance(described, dict) else "?"
    return None


def _check_shards(root: Path) -> None:
    refuse_pointer(root / _INDEX)
    try:
        shards: dict[str, str] = _object_in(root / _INDEX)["weight_map"]
        wanted = {shard: {name for name, at in shards.items() if at == shard} for shard in sorted(set(shards.values()))}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{str(root / _INDEX)!r} is not an index of weights (no 'weight_map' of names)") from error
    for shard in wanted:
        if Path(shard).name != shard or not (root / shard).is_file():
            raise ValueError(f"{str(root / shard)!r}, which the index names, is not there")
    for shard, names in wanted.items():
        file = root / shard
        if missing := sorted(names - _tensors_in(file)):
            raise ValueError(f"{str(file)!r} lacks {missing[0]!r}, one of {len(missing)} tensors the index says it has")


def _tensors_in(file: Path) -> set[str]:
    refuse_pointer(file)
    try:
        # Its header must describe the file to the last byte: one that was cut, or is something else, is told here.
        with safe_open(file, framework="pt") as opened:
            names = set(opened.keys())
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{str(file)!r} is not a whole safetensors file ({error})") from error
    if not names:
        raise ValueError(f"{str(file)!r} holds no tensors")
    return names


def _shards_without_index(root: Path) -> bool:
    return any(root.glob("model-*-of-*.safetensors"))
