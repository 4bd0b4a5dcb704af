# Two commands are all a newcomer needs: `make demo` and `make test`. Both set up .venv first.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
EXTRA  ?= cpu

.PHONY: demo test soak check install lock clean

demo: install
	$(BIN)/python -m orchestrator.train --algo stable_reinforce --run.dir runs/demo

test: install check
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not soak and not integration"
	$(BIN)/python -m pytest -q -m "integration and not soak"

soak: install
	$(BIN)/python -m pytest -q -m soak

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright

install: $(VENV)/.ready

# uv, and not pip alone: pip on a machine with a CPU-only torch wheel mixes it with torchvision's ordinary build,
# which cannot be imported. uv itself comes from pip, into a small environment of its own.
$(VENV)/.ready: pyproject.toml constraints.txt overrides.txt
	$(PYTHON) -m venv .venv-uv
	.venv-uv/bin/pip install --quiet uv
	.venv-uv/bin/uv venv --quiet --clear --python $(PYTHON) $(VENV)
	.venv-uv/bin/uv pip install --quiet --python $(BIN)/python --override overrides.txt \
		--compile-bytecode --constraints constraints.txt --editable '.[$(EXTRA),dev]'
	touch $@

lock:
	( echo "# Every version the test suite ran with. Written by: make lock"; \
	  .venv-uv/bin/uv pip freeze --python $(BIN)/python --exclude-editable ) > constraints.txt

clean:
	rm -rf $(VENV) .venv-uv runs
