"""Where a model folder says how a conversation is written, as transformers looks for it."""

import json
from pathlib import Path
from typing import Any

_DEFAULT = "default"
_PLACES = "chat_template.jinja, chat_template.json, processor_config.json, tokenizer_config.json"


def check_chat_template(root: Path) -> None:
    """Check that the folder holds a chat template, and of several that have names, a default one.

    The processor's comes before the tokenizer's. Reads only small files.

    Raises:
        ValueError: in one sentence.
    """
    template = _of_processor(root) or _named(_read(root, "tokenizer_config.json"))
    if not template:
        raise ValueError(f"{str(root)!r} has no chat template (none in {_PLACES})")
    if isinstance(template, dict) and not template.get(_DEFAULT):
        names = ", ".join(sorted(template))
        raise ValueError(f"{str(root)!r} has the chat templates {names}, and none of them is named {_DEFAULT!r}")


def _of_processor(root: Path) -> Any:
    written = _named(_read(root, "processor_config.json")) or _named(_read(root, "chat_template.json"))
    if written:
        return written
    # The older place of several: a folder of their own beside the default one.
    found = {file.stem: file.read_text() for file in sorted((root / "additional_chat_templates").glob("*.jinja"))}
    if (root / "chat_template.jinja").is_file():
        found[_DEFAULT] = (root / "chat_template.jinja").read_text()
    return found


def _named(content: dict[str, Any]) -> Any:
    """A template, or several by name."""
    template = content.get("chat_template")
    if isinstance(template, list):
        return {one["name"]: one["template"] for one in template}
    return template


def _read(root: Path, name: str) -> dict[str, Any]:
    file = root / name
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{str(file)!r} is not valid JSON ({error.msg} at line {error.lineno})") from error
    return content if isinstance(content, dict) else {}
