# Two commands are all a newcomer needs: `make demo` and `make test`. Both set up .venv first.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
EXTRA  ?= cpu

.PHONY: demo test unit integration soak check lint types install lock clean

demo: install
	$(BIN)/python -m orchestrator.train --algo stable_reinforce --run.dir runs/demo

# Types are one core's work, and so stand beside the tests; what a linter has to say comes at once.
test: lint
	$(MAKE) --jobs 2 types unit
	$(MAKE) integration

unit: install
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --durations 15 -m "not soak and not integration"

integration: install
	$(BIN)/python -m pytest -q -n 2 --durations 15 -m "integration and not soak" tests/integration

soak: install
	$(BIN)/python -m pytest -q -m soak

check: lint types

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: install
	$(BIN)/pyright

install: $(VENV)/.ready-$(EXTRA)

# uv, and not pip alone: pip on a machine with a CPU-only torch wheel mixes it with torchvision's ordinary build,
# which cannot be imported. uv itself comes from pip, into a small environment of its own.
$(VENV)/.ready-$(EXTRA): pyproject.toml constraints.txt overrides.txt
	$(PYTHON) -m venv .venv-uv
	.venv-uv/bin/pip install --quiet uv
	.venv-uv/bin/uv venv --quiet --clear --python $(PYTHON) $(VENV)
	.venv-uv/bin/uv pip install --quiet --python $(BIN)/python --override overrides.txt \
		--compile-bytecode --constraints constraints.txt --editable '.[$(EXTRA),dev]'
	touch $@

# Both extras are installed under one file: what this environment holds, and what the GPU build needs beside it.
lock:
	.venv-uv/bin/uv pip freeze --python $(BIN)/python --exclude-editable > $(VENV)/cpu.txt
	.venv-uv/bin/uv pip compile --quiet --no-annotate --no-header --python $(BIN)/python --override overrides.txt \
		--constraints $(VENV)/cpu.txt --extra gpu --extra dev pyproject.toml > $(VENV)/gpu.txt
	( echo "# Written by make lock: every version the test suite ran with,"; cat $(VENV)/cpu.txt; \
	  echo "# and what the GPU build has besides, resolved with them and not run here."; \
	  grep -vxFf $(VENV)/cpu.txt $(VENV)/gpu.txt ) > constraints.txt

clean:
	rm -rf $(VENV) .venv-uv runs
