"""Where a model folder says how a conversation is written, as transformers looks for it."""

import json
from collections.abc import Mapping, Sequence
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
    try:
        content = json.loads(_text(file))
    except json.JSONDecodeError as error:
        raise ValueError(f"{str(file)!r} is not valid JSON ({error.msg} at line {error.lineno})") from error
    template: Any = content.get("chat_template") if isinstance(content, dict) else None
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
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{str(file)!r} is not UTF-8 text (byte {error.start})") from error
