"""Readers by name: of a row of the file, or of several, one draft or one for each of a conversation's answers."""

from collections.abc import Callable
from typing import Any, Literal

from orchestrator.data.readers.comparisons import GROUP_FIELD
from orchestrator.data.readers.draft import Draft
from orchestrator.data.readers.mm_rlhf import read_mm_rlhf
from orchestrator.data.readers.mm_rlhf_pairs import read_mm_rlhf_pairs
from orchestrator.data.readers.plain_dpo import read_plain_dpo
from orchestrator.data.readers.plain_kto import read_plain_kto
from orchestrator.data.readers.r1_reward import read_r1_reward_row
from orchestrator.data.readers.rlhfv import read_rlhfv
from orchestrator.data.readers.vlfeedback import read_vlfeedback
from orchestrator.data.readers.vlquery_json import read_vlquery_json

FormatName = Literal[
    "mm_rlhf", "mm_rlhf_pairs", "plain_dpo", "plain_kto", "r1_reward", "rlhfv", "vlfeedback", "vlquery_json"
]
Reader = Callable[[Any], Draft | tuple[Draft, ...]]
READERS: dict[FormatName, Reader] = {
    "mm_rlhf": read_mm_rlhf,
    "mm_rlhf_pairs": read_mm_rlhf_pairs,
    "plain_dpo": read_plain_dpo,
    "plain_kto": read_plain_kto,
    "r1_reward": read_r1_reward_row,
    "rlhfv": read_rlhfv,
    "vlfeedback": read_vlfeedback,
    "vlquery_json": read_vlquery_json,
}
GROUP_FIELDS: dict[FormatName, str] = {"mm_rlhf_pairs": GROUP_FIELD}
"""Formats that spread an instruction over several rows, and the field that these share: their readers take a tuple of
``JsonRow``, all the others the value of one row."""
