"""A chat template is found where transformers finds it; a model without one, or a row it does not take, is refused."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator.data.examples import ExampleEncoder, Limits
from orchestrator.data.records import Instruction, Response
from orchestrator.train import main
from tests.released_tokenizers import LLAVA_TEMPLATE
from tests.tiny_models import TINY_MODELS
from tests.unit.algorithms.asks import learner
from workers.models.folder import check_model_folder
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.types import Prompt, UnusablePrompt

_OTHER = LLAVA_TEMPLATE.replace("ASSISTANT:", "Assistant:")
_ALTERNATES = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}{% endfor %}" + LLAVA_TEMPLATE
)
_TEXTS_ALONE = "{% for m in messages %}[INST] {{ m.content }} [/INST]{% endfor %}"
_AS_JSON = "{% for m in messages %}[INST] {{ m.content | tojson }} [/INST]{% endfor %}"
_JOINS = "{% for m in messages %}{{ '[INST] ' + m.content + ' [/INST]' }}{% endfor %}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return TINY_MODELS["llava"](tmp_path / "model")


def _in_tokenizer(folder: Path, template: Any) -> None:
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"chat_template": template}))


def _prompt(*roles: str) -> Prompt:
    turns = tuple({"role": role, "content": [{"type": "text", "text": "which ?"}]} for role in roles)
    return Prompt(uid="d-000007", messages=turns, media=())


def _read(folder: Path) -> str:
    encoder = PromptEncoder(folder)
    return encoder.decode(encoder.encode(_prompt("user")).prompt_ids)


_SEVERAL = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": _OTHER}]


@pytest.mark.parametrize("written", [_OTHER, _SEVERAL])
def test_the_tokenizers_template_is_found_where_the_processor_has_none(folder: Path, written: Any) -> None:
    (folder / "chat_template.jinja").unlink()
    _in_tokenizer(folder, written)
    assert check_model_folder(folder)
    assert _read(folder) == "USER: which ? Assistant:"


@pytest.mark.parametrize("written", [_SEVERAL, {one["name"]: one["template"] for one in _SEVERAL}])
def test_the_processor_may_have_several_in_its_file(folder: Path, written: Any) -> None:
    (folder / "chat_template.jinja").unlink()
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": written}))
    assert check_model_folder(folder)
    assert _read(folder) == "USER: which ? Assistant:"


@pytest.mark.parametrize(
    ("written", "told"),
    [
        (5, "tokenizer_config.json' has a 'chat_template' that is neither text nor a list of names and templates"),
        (["x"], "tokenizer_config.json' has a 'chat_template' that is neither text nor a list of names and templates"),
        ([{"name": "default"}], "that is neither text nor a list of names and templates"),
        (" \n", "model' has a chat template that is empty"),
    ],
)
def test_what_is_no_template_is_refused(folder: Path, written: Any, told: str) -> None:
    (folder / "chat_template.jinja").unlink()
    _in_tokenizer(folder, written)
    with pytest.raises(ValueError, match=f"{told}$"):
        check_model_folder(folder)


def test_a_template_that_is_no_text_is_named(folder: Path) -> None:
    (folder / "chat_template.jinja").write_bytes(b"\xe9")
    with pytest.raises(ValueError, match=r"chat_template.jinja' is not UTF-8 text \(byte 0\)$"):
        check_model_folder(folder)


# transformers does not close the files of templates that have names.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_processors_template_comes_first_and_of_several_the_default_one(folder: Path) -> None:
    _in_tokenizer(folder, "no")
    assert _read(folder) == "USER: which ? ASSISTANT:"
    (folder / "chat_template.jinja").unlink()
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": _OTHER}))
    assert check_model_folder(folder) and _read(folder) == "USER: which ? Assistant:"
    (folder / "chat_template.json").unlink()
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("no")
    (folder / "chat_template.jinja").write_text(_OTHER)
    assert check_model_folder(folder) and _read(folder) == "USER: which ? Assistant:"


def _rows(folder: Path, *roles: str) -> Path:
    file = folder.parent / "d.jsonl"
    turns = [{"role": role, "content": "which ?"} for role in roles]
    good = {"message": [{"role": "user", "content": "which ?"}], "question": "q", "answer": 1}
    file.write_text(json.dumps(good) + "\n" + json.dumps(good | {"message": turns}) + "\n")
    return file


@pytest.mark.parametrize("algo", ["stable_reinforce", "sft", "dpo", "mm_dpo"])
@pytest.mark.parametrize(
    ("named", "told"),
    [
        (None, "has no chat template (none in chat_template.jinja, chat_template.json, "),
        (
            [{"name": "rag", "template": "x"}],
            "has the chat templates rag, and none of them is named 'default'",
        ),
    ],
)
def test_a_model_without_a_template_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], algo: str, named: Any, told: str
) -> None:
    (folder / "chat_template.jinja").unlink()
    if named is not None:
        _in_tokenizer(folder, named)
    run = folder.parent / "run"
    data = ["--data.path", str(_rows(folder, "user"))]
    if algo == "mm_dpo":
        data += ["--data.format", "plain_dpo"]
    assert main(["--algo", algo, "--model.path", str(folder), *data, "--run.dir", str(run)]) == 2
    refusal = capsys.readouterr().err
    assert refusal.startswith("refused: model.path: ") and told in refusal and refusal.count("\n") == 1
    assert not run.exists()


def test_a_row_that_the_template_does_not_take_is_named_before_the_start(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "chat_template.jinja").write_text(_ALTERNATES)
    data = _rows(folder, "system", "user")
    arguments = ["--model.path", str(folder), "--data.path", str(data), "--run.dir", str(folder.parent / "run")]
    assert main(["--algo", "stable_reinforce", *arguments]) == 2
    assert capsys.readouterr().err == (
        "refused: row d-000002: the chat template does not take its turns: "
        "Conversation roles must alternate user/assistant\n"
    )


def test_an_instruction_that_the_template_does_not_take_is_passed_over(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(_ALTERNATES)
    encode = ExampleEncoder(
        PromptEncoder(folder),
        learner("dpo").needs,
        media_root=Path("/"),
        score_margin=0.0,
        limits=Limits(max_prompt_tokens=999, tokens_per_microbatch=999, share_prompts=True),
    )
    responses = (Response(text="one", rank=1), Response(text="two", rank=2))
    turns = _prompt("system", "user").messages
    reason = encode(Instruction(uid="d-000007", split="train", messages=turns, media=(), responses=responses))
    assert reason == ("the chat template does not take its turns: Conversation roles must alternate user/assistant")


@pytest.mark.parametrize(
    ("template", "told"),
    [
        (_TEXTS_ALONE, "knows texts alone"),
        (_AS_JSON, "knows texts alone"),
        (_JOINS, "does not take its turns"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "does not take its turns: maximum recursion"),
    ],
)
def test_a_template_that_takes_no_parts_is_told_of(folder: Path, template: str, told: str) -> None:
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(UnusablePrompt, match=f"^row d-000007: the chat template {told}"):
        PromptEncoder(folder).encode(_prompt("user"))


@pytest.mark.parametrize(
    ("template", "turns", "told"),
    [
        ("{% for m in messages %}{{ m.content[0].text }}{% endfor %}", [["so"], ["which", "one <s>"]], "2, 'one <s>'"),
        ("{{ messages[1].content[0].text }}", [["be brief"], ["which"]], "1, 'be brief'"),
        ("{{ messages[0].role }}", [["be"], ["which"]], "1, 'be'"),
    ],
)
def test_a_template_that_leaves_out_words_is_told_of(folder: Path, template: str, turns: Any, told: str) -> None:
    (folder / "chat_template.jinja").write_text(template)
    spoken = tuple(
        {"role": role, "content": [{"type": "text", "text": words} for words in turn]}
        for role, turn in zip(("system", "user"), turns, strict=True)
    )
    with pytest.raises(UnusablePrompt, match=f"^row d-000007: the chat template leaves out words of turn {told}$"):
        PromptEncoder(folder).encode(Prompt(uid="d-000007", messages=spoken, media=()))


def test_a_turn_of_many_parts_is_looked_through_once(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{% for p in messages[0].content %}{{ p.text }}{% endfor %}")
    parts = [{"type": "text", "text": f"{number:06d} {'which' * 40}"} for number in range(20_000)]
    began = time.process_time()
    assert PromptEncoder(folder).rendered([{"role": "user", "content": parts}]).text.startswith("000000 which")
    assert time.process_time() - began < 10  # from the beginning for each part: minutes


def test_a_template_may_put_a_turn_elsewhere(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages[1:] + messages[:1] %}{{ m.content[0].text }}{% endfor %}"
    )
    turns = [{"role": "user", "content": [{"type": "text", "text": words}]} for words in ("be", "which", "one")]
    assert PromptEncoder(folder).rendered(turns).text == "whichonebe"


def test_white_space_and_earlier_reasoning_are_a_templates_own(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m.content[0].text.split('</think>')[-1] | trim }}{% endfor %}"
    )
    spoken = tuple(
        {"role": role, "content": [{"type": "text", "text": words}]}
        for role, words in (("user", " which \n"), ("assistant", "<think>so</think> one"), ("user", "two"))
    )
    encoder = PromptEncoder(folder)
    assert encoder.decode(encoder.encode(Prompt(uid="p", messages=spoken, media=())).prompt_ids) == "whichonetwo"
