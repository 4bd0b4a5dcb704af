"""Write digits images, preferences over them as a file and as a store, and a small model: what the examples learn from.

python examples/preferences/make_digits.py runs/digits
"""

import sys
from pathlib import Path

from orchestrator.tasks.digits import build_digits_data
from orchestrator.tasks.digits_model import build_digits_model
from orchestrator.tasks.digits_preferences import build_digits_preferences

root = Path(sys.argv[1])
build_digits_data(root, seed=0)
print("store", build_digits_preferences(root, seed=0))  # noqa: T201
print("model", build_digits_model(root / "model", seed=0))  # noqa: T201
