# Everything runs in the project's own venv, from pinned packages. Nothing else is needed but Python 3.11+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready

.PHONY: setup demo test check contracts gas engines mutants soak clean attest-demo

setup: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import platform, sys; ok = (3, 11) <= sys.version_info[:2] <= (3, 13) and platform.machine() == "x86_64"; \
	  sys.exit(None if ok else "Cocoon needs Python 3.11 to 3.13 on x86_64 Linux (the emulator has wheels for those), this is " \
	  + sys.version.split()[0] + " on " + platform.machine() + "; name another with: make PYTHON=python3.12 ...")'
	@echo "Setting up $(VENV) (once; about a minute) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: setup
	@$(BIN)/cocoon demo

# Two workers: half of the tests wait for a chain or a model. Tests of one file stay together and in order.
test: setup
	$(BIN)/pytest -n 2 --dist loadfile

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

contracts: setup
	$(BIN)/python -m scripts.compile

gas: setup
	$(BIN)/python -m scripts.gas

# The contract tests on two engines, compared to the bit; needs `npm ci --ignore-scripts`.
engines: setup
	$(BIN)/python -m scripts.two_engines

# Breaks the contracts in obvious ways, one way at a time, and tells which the tests miss. SAMPLE=60 for a part of them.
mutants: setup
	$(BIN)/python -m scripts.mutate $(if $(SAMPLE),--sample $(SAMPLE))

# The state machine of tests/contracts with new randomness, for a night. MINUTES=30 for less.
soak: setup
	SOAK_MINUTES=$(or $(MINUTES),480) $(BIN)/pytest tests/contracts/test_machine.py -k soak -s --timeout=0

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis

attest-demo: setup
	@$(BIN)/python -m scripts.attest_demo
