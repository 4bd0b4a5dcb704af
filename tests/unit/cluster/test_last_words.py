"""Out of what Ray says about a dead worker: the sentence that says why."""

import pytest

from orchestrator.cluster.waits import last_words

_HEAD = (
    "The actor died because of an error raised in its creation task, "
    "\x1b[36mray::RolloutWorker.__init__()\x1b[39m (pid=1832, ip=10.0.0.2, actor_id=895e, repr=<RolloutWorker>)\n"
)
_FRAME = '  File "workers/rollout/vllm_rollout.py", line 48, in __init__\n    self._llm = LLM(\n                ^^^^\n'
_CAUSE = "\nThe above exception was the direct cause of the following exception:\n\n"
_CONTEXT = "\nDuring handling of the above exception, another exception occurred:\n\n"
_KILLED = (
    "The actor died unexpectedly before finishing this task.\n\tclass_name: RolloutWorker\n\tactor_id: 7d40\n\tpid: 9\n"
    "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker "
    "unexpectedly exits with a connection error code 2. End of file. Some common causes include: (1) the process was "
    "killed by the OOM killer due to high memory usage, (2) ray stop --force was called.\n"
    "The actor never ran - it was cancelled before it started running."
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (_HEAD + _FRAME + "ValueError: no memory is left for the cache", "ValueError: no memory is left for the cache"),
        (_HEAD + _FRAME + "RuntimeError", "RuntimeError"),
        # A message of several lines is told whole.
        (
            _HEAD + _FRAME + "OSError: no file named model.safetensors\nfound in 'folder'.\n",
            "OSError: no file named model.safetensors found in 'folder'.",
        ),
        # pydantic's last line sends people to a page of its own.
        (
            _HEAD + _FRAME + "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig\n"
            "  Value error, max_model_len (1065) is too much [type=value_error, input_value=ArgsKwargs(())]\n"
            "    For further information visit https://errors.pydantic.dev/2.14/v/value_error",
            "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig "
            "Value error, max_model_len (1065) is too much",
        ),
        # The cause stands in brackets; what was merely being handled is none.
        (
            f"{_HEAD}{_FRAME}torch.OutOfMemoryError: 2 GiB\n{_CAUSE}{_FRAME}RuntimeError: not started\n",
            "RuntimeError: not started (torch.OutOfMemoryError: 2 GiB)",
        ),
        (
            f"{_HEAD}{_FRAME}KeyError: 'x'\n{_CONTEXT}{_FRAME}ValueError: no architecture x",
            "ValueError: no architecture x",
        ),
        # A worker of a worker: the traceback within the message is the nearer one.
        (
            _HEAD
            + _FRAME
            + "ray.exceptions.RayTaskError(ValueError): ray::RayWorkerWrapper.execute() (pid=3)\n"
            + _FRAME
            + "ValueError: 12 heads cannot be split by 5",
            "ValueError: 12 heads cannot be split by 5",
        ),
        (
            _KILLED,
            "Worker unexpectedly exits with a connection error code 2. End of file. Some common causes include: (1) "
            "the process was killed by the OOM killer due to high memory usage, (2) ray stop --force was called.",
        ),
        ("Task was killed, as the node ran low on memory.", "Task was killed, as the node ran low on memory."),
    ],
)
def test_the_sentence_is_the_workers_own(text: str, said: str) -> None:
    assert last_words(text) == said


def test_a_flood_of_words_keeps_both_its_ends() -> None:
    said = last_words(_HEAD + _FRAME + "ValueError: begin " + "word " * 1000 + "end")
    assert len(said) < 800 and said.startswith("ValueError: begin") and said.endswith("end") and "\n" not in said
