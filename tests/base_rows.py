"""Valid rows of every format, with all that its reader reads, to be spoiled."""

import json
from typing import Any

from tests.unit.data.store_rows import (
    MM_RLHF,
    compared,
    corrected,
    feedback,
    good_row,
    judged,
    plain,
    query,
    ranked,
    rated,
)

Row = dict[str, Any]
_EARLIER = {"system": "be very brief", "history": [["first words", "an answer"]]}
_SPOKEN = [
    {"role": "user", "content": [{"type": "image", "image": "a.png"}, {"type": "text", "text": "which is it ?"}]}
]
_SIDES = {"question": "which ?", "chosen": "this one", "rejected": "that one"}
_TALK = (("human", "<image>\nhi there"), ("gpt", "hello you"), ("human", "which ?"), ("gpt", "this"))
_CHAT = [{"role": "user", "content": "<image>\nwhich is it ?"}]


def base_rows(reader: str) -> list[Row]:
    """Rows that the reader takes as they stand."""
    if reader == "vlfeedback":
        return _own(reader)  # no two of whose ratings are the same, nor any their mean
    plainest = [] if reader in MM_RLHF else [good_row(reader)]
    return [*plainest, good_row(reader, images=["a.png"]), good_row(reader, video="clip"), *_own(reader)]


def _own(reader: str) -> list[Row]:
    this, that = ({"role": "assistant", "content": text} for text in ("this one", "that one"))
    two = {"images": ["a.png", "b.png"], "id": "x7"}
    rated_ones = [rated("5", "4", "1"), rated("2", "3", "0.5", response="that one")]
    for number, one in enumerate(rated_ones):
        one["annotations"]["Helpfulness"]["Rationale"] = f"reason {number}"
    chats: dict[str, list[Row]] = {
        "plain_dpo": [plain(prompt="of <image> and <image> ?", **two, **_EARLIER)],
        "plain_kto": [
            {"prompt": _SPOKEN, "completion": [this], "label": False, "id": 3},
            {"messages": [*_CHAT, this], "kto_tag": True, "image": "a.png"},
        ],
        "pairs": [
            {"prompt": _SPOKEN, "chosen": [this], "rejected": [that], "idx": 4, "category": "c1"},
            {"chosen": [*_CHAT, this], "rejected": [*_CHAT, that], "images": ["a.png"]},
            {"prompt": _CHAT, "chosen": [*_CHAT, this], "rejected": [*_CHAT, that], "images": ["a.png"]},
            {"messages": [*_CHAT, this], "rejected_response": "that one", "images": ["a.png"], "system": "be brief"},
            {"messages": [*_CHAT, this], "rejected_messages": [*_CHAT, that], "images": ["a.png"]},
            {"conversations": _CHAT, "chosen": this, "rejected": that, "image": "a.png", "rejected_images": ["a.png"]},
            {"question": "which is it ?", "chosen": "this one", "rejected": "that one", **_EARLIER},
        ],
        "task": [
            {"messages": _SPOKEN, "solution": [7.5], "id": "t1", "response": "because so"},
            {"problem": "of <image> ?", "ground_truth": "cat", "images": ["a.png"], **_EARLIER, "difficulty": 0.5},
        ],
        "mm_rlhf": [
            ranked(
                "1>2",
                {"response": "this one", "model": "m1", "reason": "r1", "helpfulness": 3, "ethics": "fine"},
                {"response": "that one", "model": "m2"},
                ranking_reason="it is better",
            ),
            ranked("1=2>3", {"response": "this one"}, {"response": "that one"}, answer="a third"),
        ],
        "mm_rlhf_pairs": [
            compared(id="g1", category="mcq", chosen_reason="good", rejected_reason="poor", ls_factor=0.5),
            {
                "question": "of <image> and <image> ?", "response": "this one", "rejected_response": "that one", **two,
                **_EARLIER, "chosen_score": 3, "rejected_score": 1.5, "chosen_model": "m1", "source_id": "s1",
            },
        ],
        "vlquery_json": [
            query(*_TALK, image="a.png"),
            {"messages": [*_SPOKEN, this], "id": 5},
        ],
        "vlfeedback": [
            feedback(*rated_ones, img_path="a.png"),
            feedback(*rated_ones, img_path=["a.png"], prompt="of <image> ?"),
            {"id": "f2", "prompt": "which ?", "completions": {k: [c[k] for c in rated_ones] for k in rated_ones[0]}},
        ],
        "rlhfv": [corrected(_SIDES, image_path="a.png", idx=3)],
        "r1_reward": [
            judged(message=json.dumps(_SPOKEN), answer=["<answer>2</answer>"], response="<think>so</think>", id="r1"),
            judged(message=_CHAT, image="a.png", answer=2, question="which is it ?"),
        ],
        "llava_preference": [good_row(reader, images=["a.png"]) | {"hallucination": True, "facts": ["it is red"]}]
        if reader == "llava_preference" else [],
        "llava_ppo": [good_row(reader, images=["a.png"]) | {"caption_type": 1, "answer": "cat", "captions": ["red"]}]
        if reader == "llava_ppo" else [],
    }  # fmt: skip
    return chats[reader]
