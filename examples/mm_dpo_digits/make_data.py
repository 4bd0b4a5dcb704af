"""Write graded responses with critiques over digits images, and a policy that names the right digit half of the time.

python examples/mm_dpo_digits/make_data.py runs/mm_dpo_digits [SEED]
"""

import shutil
import sys
from pathlib import Path

from orchestrator.run.model_folder import policy_folder
from orchestrator.tasks.digits import build_digits_data
from orchestrator.tasks.digits_critiques import HELD_OUT_FRAC, VOCABULARY, build_digits_critiques
from orchestrator.tasks.digits_model import build_digits_model
from orchestrator.train import main

root, seed = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
build_digits_data(root, seed=seed)
build_digits_critiques(root, seed=seed)
model = build_digits_model(root / "model", seed=seed, words=VOCABULARY)
code = main(
    [
        *("--algo", "sft", "--run.dir", str(root / "sft"), "--run.seed", str(seed), "--model.path", str(model)),
        *("--data.path", str(root / "start.jsonl"), "--data.format", "vlquery_json"),
        *("--data.held_out_frac", str(HELD_OUT_FRAC)),
        *("--run.steps", "120", "--run.eval_every", "120", "--run.checkpoint_every", "120"),
        *("--policy.train_batch_size", "64", "--optimizer.lr", "2e-3", "--optimizer.schedule", "linear"),
    ]
)
if code:
    sys.exit(code)
shutil.copytree(policy_folder(root / "sft"), root / "start", dirs_exist_ok=True)
print("policy", root / "start")  # noqa: T201
