# make run   set up and run the quickstart   make test   set up and run the tests (test-slow: the rest)
# make lint  linters and type checker        make lock   write envs/* anew

PYTHON ?= python3
CORES ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
BIN := .venv/bin
SETUP := .venv/.done
PEER := .venv-sae-lens/bin/python

.PHONY: run test test-slow test-slurm test-sae-lens lint lock clean

# Torch goes first and pinned: resolved together with others it may come as the largest CUDA build.
$(SETUP): pyproject.toml envs/constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "actprobe needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet "$$(grep '^torch==' envs/constraints.txt)"
	$(BIN)/python -m pip install --quiet --constraint envs/constraints.txt --editable ".[dev]"
	touch $@

run: $(SETUP)
	PATH="$(CURDIR)/$(BIN):$$PATH" snakemake --cores $(CORES)
	@$(BIN)/actprobe results

test: $(SETUP)
	PATH="$(CURDIR)/$(BIN):$$PATH" pytest -n auto --maxprocesses 4 --dist loadfile -m "not slow and not slurm"

test-slow: $(SETUP)
	PATH="$(CURDIR)/$(BIN):$$PATH" pytest -m "slow and not slurm"

# Needs slurmctld, slurmd and munge on the machine (Debian: slurm-wlm, munge); skips by name without.
test-slurm: $(SETUP)
	$(BIN)/python -m pip install --quiet --constraint envs/constraints.txt --editable ".[dev,slurm]"
	PATH="$(CURDIR)/$(BIN):$$PATH" pytest -m "slurm and not slow"

# Equality with sae-lens, which gets an environment of its own (2 GB).
test-sae-lens: $(SETUP) .venv-sae-lens/.done
	ACTPROBE_SAE_LENS="$(CURDIR)/$(PEER)" $(BIN)/pytest tests/unit/test_sae_lens.py tests/unit/test_models_bos.py

.venv-sae-lens/.done: envs/constraints.txt envs/sae-lens.txt
	test -x $(PEER) || $(PYTHON) -m venv .venv-sae-lens
	$(PEER) -m pip install --quiet "$$(grep '^torch==' envs/constraints.txt)"
	$(PEER) -m pip install --quiet --constraint envs/constraints.txt --requirement envs/sae-lens.txt
	touch $@

lint: $(SETUP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile workflow/rules
	PATH="$(CURDIR)/$(BIN):$$PATH" snakemake --lint

lock: $(SETUP)
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' > envs/constraints.txt
	$(BIN)/python envs/write.py

clean:
	rm -rf .venv .venv-sae-lens .snakemake logs
