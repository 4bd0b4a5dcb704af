"""What a model folder may say in ``generation_config.json`` about sampling, and no engine of ours may hear."""

from typing import Any

OBEYED_BY_NOBODY: dict[str, Any] = {
    "do_sample": False,
    "temperature": 0.1,
    "top_k": 2,
    "top_p": 0.3,
    "repetition_penalty": 1.8,
    "no_repeat_ngram_size": 2,
    "min_new_tokens": 5,
    "forced_eos_token_id": 3,
    "suppress_tokens": [4, 5, 6],
    "bad_words_ids": [[7], [8, 9]],
    "num_beams": 3,
    "eos_token_id": [10, 11, 12, 13, 14],
}
