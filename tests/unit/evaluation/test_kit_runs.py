"""A kit's whole run through the command: the kit and the server are small programs in their place."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.cluster.waits import WaitTimeout
from orchestrator.config.load import load_config
from orchestrator.errors import GuardStop, RefusedInput
from orchestrator.evaluate import main
from orchestrator.evaluation.kits import serving
from orchestrator.evaluation.kits.environment import check_environment
from orchestrator.evaluation.kits.evalscope import KIT
from orchestrator.evaluation.kits.process import ended, last_line, started
from orchestrator.evaluation.kits.run import parsed, without_secrets
from orchestrator.evaluation.kits.serving import ServeOptions, serve_command, served
from orchestrator.evaluation.predictions import read_predictions
from tests.tiny_models import write_released_qwen2_5_vl
from tests.unit.evaluation.kit_files import SERVER, Told, evalscope_files, leaving, lmms_eval_files, program
from tests.unit.evaluation.released_files import cell, parquet

TOLD = (Told("Is there a dog ?", "no", "No", 1.0), Told("Is there a cat ?", "yes", "maybe", 0.0))
ONE = ServeOptions(max_images=1, max_model_len=None)
Serve = Callable[[str], None]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_released_qwen2_5_vl(tmp_path_factory.mktemp("kits") / "model")


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Puts a program in the place of vLLM's server."""

    def by(code: str) -> None:
        monkeypatch.setattr(
            serving, "serve_command", lambda config, options, *, port, gpu: [sys.executable, "-c", code, str(port)]
        )

    by(SERVER)
    return by


def _kit(folder: Path, code: str = "", *, version: str | None = "1.14.1") -> str:
    return str(program(folder / "python", code, version=version))


def _measured(folder: Path, model: Path, kit: str, *more: str, name: str = "evalscope") -> int:
    words = ["--kit", name, "--kit-python", kit, "--model", str(model), "--tasks", "pope", "--out", str(folder / "out")]
    return main([*words, *more])


def _pope(folder: Path) -> Path:
    rows = [{"question": one.question, "answer": one.truth, "image": cell(i)} for i, one in enumerate(TOLD)]
    return parquet(folder / "pope.parquet", *rows)


def test_a_kits_figures_and_answers_stand_in_our_tables_beside_ours(
    model: Path, serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = evalscope_files(tmp_path / "files", "pope", {"random": TOLD}, {"accuracy": 0.5, "yes_ratio": 0.0})
    kit = _kit(tmp_path, leaving(files, "--work-dir"))
    more = ("--benchmark", "pope", "--data", str(_pope(tmp_path)), "--kit-args", "--limit", "5", "--api-key", "sk-1")
    assert _measured(tmp_path, model, kit, *more) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("# evalscope: pope: ")
    assert "|  | evalscope | strict | official | lmms\\_eval |".replace("\\", "") in shown.replace("\\", "")
    # The kit tells no interval; "maybe" is a yes by the released script.
    assert "| accuracy | 0.500 | 0.500 (0.000-1.000) | 1.000 (1.000-1.000) |" in shown
    out = tmp_path / "out"
    assert [one.text for one in sorted(read_predictions(out / "predictions.parquet"), key=lambda one: one.row)] == [
        "No",
        "maybe",
    ]
    told = json.loads((out / "scores.json").read_text())
    assert told["asked"]["kit"] == "evalscope 1.14.1" and told["asked"]["kit_args"] == "--limit 5 --api-key '***'"
    kept = sorted(path.relative_to(files) for path in files.rglob("*") if path.is_file())
    assert [(out / "evalscope" / one).read_bytes() for one in kept] == [(files / one).read_bytes() for one in kept]
    assert (out / "evalscope.log").read_text() == "asking ...\n"
    assert _measured(tmp_path, model, kit) == 2
    assert "holds what evalscope left before: name another --out" in capsys.readouterr().err


def test_rows_that_we_cannot_use_shift_no_others(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"question": "Is it ?", "answer": answer, "image": cell(1)} for answer in ("maybe", "yes")]
    more = ("--benchmark", "pope", "--data", str(parquet(tmp_path / "pope.parquet", *rows)))
    assert _measured(tmp_path, model, "no", *more) == 2
    told = capsys.readouterr().err
    assert (
        "refused: 1 rows of" in told and "a kit's rows are known by number; row 1 is left out: field 'answer'" in told
    )


def test_a_kit_finds_no_module_of_the_folder_and_keeps_what_is_asked_without_a_proxy(
    model: Path, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "data.example")
    monkeypatch.delenv("no_proxy", raising=False)
    code = "import os\nprint(os.environ['NO_PROXY'], os.environ['no_proxy'], os.environ['PYTHONSAFEPATH'])\nsys.exit(3)"
    assert _measured(tmp_path, model, _kit(tmp_path, code)) == 3
    hosts = "data.example,127.0.0.1,localhost"
    assert (tmp_path / "out" / "evalscope.log").read_text() == f"{hosts} {hosts} 1\n"


def test_lmms_eval_is_run_as_well(
    model: Path, serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = lmms_eval_files(tmp_path / "files", "pope", TOLD, {"pope_accuracy": 0.5})
    kit = _kit(tmp_path, leaving(files, "--output_path"), version="0.7.3")
    assert _measured(tmp_path, model, kit, name="lmms-eval") == 0
    assert "| pope\\_accuracy | 0.500 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("code", "message"),
    [
        # A traceback, and after it a progress bar that has come to its end.
        (
            "print('ValueError: no such task', flush=True); print('0% | 0/10'); sys.exit(3)",
            "exit code 3: ValueError: no",
        ),
        ("print('\\x1b[31mERROR\\x1b[0m a | b'); sys.exit(0)", "left no reports/MODEL/TASK.json"),
        ("print('\\x1b[31mERROR\\x1b[0m a | b'); sys.exit(0)", "; its last words: ERROR a | b (see "),
    ],
)
def test_a_kit_that_fails_is_a_stop_with_its_last_words_and_no_tables(
    code: str, message: str, model: Path, serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _measured(tmp_path, model, _kit(tmp_path, code)) == 3
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not list((tmp_path / "out").glob("scores.*")) and not (tmp_path / "out" / "predictions.parquet").exists()


def test_a_kit_that_failed_is_tried_again_by_the_same_command(model: Path, serve: Serve, tmp_path: Path) -> None:
    fails = "p = pathlib.Path(sys.argv[sys.argv.index('--work-dir') + 1], 'left')\np.write_text('')\nsys.exit(3)"
    assert _measured(tmp_path, model, _kit(tmp_path, fails)) == 3
    assert (tmp_path / "out" / "evalscope.unfinished" / "left").exists(), "for people to look at"
    files = evalscope_files(tmp_path / "files", "pope", {"random": TOLD}, {"accuracy": 0.5})
    assert _measured(tmp_path, model, _kit(tmp_path, leaving(files, "--work-dir"))) == 0
    assert not (tmp_path / "out" / "evalscope" / "left").exists()
    assert not (tmp_path / "out" / "evalscope.unfinished").exists()


def test_a_kit_that_says_nothing_for_too_long_is_a_stop(
    model: Path, serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kit = _kit(tmp_path, "import time\ntime.sleep(60)")
    limits = ("--rollout.timeout_s", "0.5", "--run.start_timeout_s", "2")
    began = time.monotonic()
    assert _measured(tmp_path, model, kit, *limits) == 3
    assert "for evalscope: its next words" in capsys.readouterr().err and time.monotonic() - began < 50


def test_a_server_that_ends_under_the_kit_is_a_stop(
    model: Path, serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    end = "print('Error: out of memory', flush=True), os._exit(9)"
    serve(f"import os, threading\nthreading.Timer(2, lambda: ({end})).start()\n{SERVER}")
    assert _measured(tmp_path, model, _kit(tmp_path, "import time\ntime.sleep(60)")) == 3
    assert "vllm serve ended with exit code 9: Error: out of memory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"--rollout.temperature": ["1"]}, "--rollout.temperature: a kit asks by itself"),
        ({"--benchmark": ["pope"]}, "benchmark and data go together"),
        ({"--benchmark": ["mmhal"], "--data": ["x"]}, "only answers that no judge rates are counted of a kit"),
        ({"--benchmark": ["vl_reward_bench"], "--data": ["x"]}, "only answers that no judge rates"),
        ({"--benchmark": ["pope"], "--data": ["x"], "--tasks": ["a", "b"]}, "tasks names 2, but benchmark counts"),
        ({"--benchmark": ["pope"], "--data": ["no.json"]}, "no.json' is not a file"),
        ({"--max-images": ["0"]}, "max_images and max_model_len must be at least 1"),
        ({"--max-model-len": ["0"]}, "max_images and max_model_len must be at least 1"),
        ({"--kit": ["opencompass"]}, "kit = 'opencompass': expected one of evalscope, lmms-eval"),
        ({"--model": ["no"]}, "model.path: 'no' is not a folder"),
        ({}, "kit-python = 'no' is no interpreter that runs"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_starts(
    flags: dict[str, list[str]], message: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = {"--kit": ["evalscope"], "--kit-python": ["no"], "--model": [str(model)], "--tasks": ["pope"]}
    argv = [word for name, values in (words | flags).items() for word in (name, *values)]
    assert main([*argv, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("1.13.0", "has evalscope 1.13.0, expected 1.14.1, whose files are read here; make it: uv venv KIT;"),
        (None, "has no evalscope; make it: uv venv KIT; uv pip install --python KIT/bin/python evalscope==1.14.1"),
    ],
)
def test_a_kit_that_is_not_there_or_of_another_version_is_named(
    version: str | None, message: str, tmp_path: Path
) -> None:
    with pytest.raises(RefusedInput) as refused:
        check_environment(KIT, _kit(tmp_path, version=version))
    assert message in str(refused.value)


def test_the_server_takes_what_the_kit_asks_and_nothing_of_the_folders_sampling(model: Path) -> None:
    config, _ = load_config(
        ["--algo", "sft", "--model.path", str(model), "--data.path", "x", "--model.dtype", "float32"]
    )
    words = serve_command(config, ServeOptions(max_images=3, max_model_len=512), port=81, gpu=False)
    told = dict(zip(words[3::2], words[4::2], strict=False))
    assert told["--model"] == str(model) and told["--served-model-name"] == "policy"
    assert (told["--host"], told["--port"], told["--max-model-len"]) == ("127.0.0.1", "81", "512")
    assert json.loads(told["--limit-mm-per-prompt"]) == {"image": 3}
    assert (told["--generation-config"], told["--dtype"]) == ("vllm", "float32")
    assert "--enforce-eager" in words and "--trust-remote-code" not in words
    assert "--enforce-eager" not in serve_command(config, ONE, port=81, gpu=True)


def test_a_server_that_dies_at_once_is_a_stop_with_its_last_words(model: Path, serve: Serve, tmp_path: Path) -> None:
    serve("print('ValueError: no such architecture'); raise SystemExit(5)")
    config, _ = load_config(["--algo", "sft", "--model.path", str(model), "--data.path", "x"])
    with (
        pytest.raises(GuardStop, match="vllm serve ended with exit code 5: ValueError: no such architecture"),
        served(config, ONE, tmp_path / "log"),
    ):
        raise AssertionError("it never answered")


def test_a_server_that_never_answers_is_given_up_by_name(model: Path, serve: Serve, tmp_path: Path) -> None:
    serve("import time; time.sleep(60)")
    limit = ["--run.start_timeout_s", "1"]
    config, _ = load_config(["--algo", "sft", "--model.path", str(model), "--data.path", "x", *limit])
    with pytest.raises(WaitTimeout, match="for vllm serve: start"), served(config, ONE, tmp_path / "log"):
        raise AssertionError("it never answered")


def test_nothing_that_a_program_started_outlives_it(tmp_path: Path) -> None:
    code = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid)"
    process = started([sys.executable, "-c", code], {}, tmp_path / "log")
    process.wait()
    child = int((tmp_path / "log").read_text())
    ended(process)
    deadline = time.monotonic() + 10
    while _runs(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(child)


def _runs(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.startswith("Z")


def test_a_programs_variables_are_told_and_taken_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "PYTHONPATH", "ours")
    code = "import os; print(os.environ.get('PYTHONPATH'), os.environ['HF_HUB_OFFLINE'])"
    process = started([sys.executable, "-c", code], {"PYTHONPATH": None, "HF_HUB_OFFLINE": "1"}, tmp_path / "log")
    assert process.wait() == 0
    assert last_line(tmp_path / "log") == "None 1"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--limit", "5", "--max_new_tokens", "9"], ["--limit", "5", "--max_new_tokens", "9"]),
        (["--api-key", "sk-1", "sk-1", "--limit", "5"], ["--api-key", "***", "***", "--limit", "5"]),
        (["--hf_token=sk-1", "--limit", "5"], ["--hf_token***", "--limit", "5"]),
        (["--model_args", "limit=3,API_KEY=sk-1,x=sk-1"], ["--model_args", "limit=3,API_KEY***"]),
        (["--judge", '{"id": "j", "api_key": "sk-1"}'], ["--judge", '{"id": "j", "api_key***']),
        (
            ["--judge", '{"max_tokens": 7, "headers": {"Authorization": "sk-1"}}'],
            ["--judge", '{"max_tokens": 7, "headers": {"Authorization***'],
        ),
    ],
)
def test_keys_that_are_passed_on_are_told_nowhere(words: list[str], told: list[str]) -> None:
    assert without_secrets(words) == told


def test_all_that_follows_kit_args_is_the_kits() -> None:
    words = ["--kit", "evalscope", "--kit-python", "p", "--model", "m", "--tasks", "a", "b"]
    command, rest, args = parsed([*words, "--run.seed", "3", "--kit-args", "--limit", "5", "--model", "x"])
    assert (command.tasks, command.model) == (("a", "b"), "m")
    assert (rest, args) == (["--run.seed", "3"], ("--limit", "5", "--model", "x"))
