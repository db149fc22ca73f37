# Main targets: `make sweep` and `make test`. Both create the virtual environment first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
IMPORTED := lab.commands, lab.sweep, lab.execution.driver, lab.trials.run, lab.reporting.page, \
	ray.train.torch, torch._dynamo, mlflow.pyfunc, sklearn.linear_model

# Sweeps and tests start many processes, which share the bytecode of the first one.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: sweep test test-fast reported install check ruff mypy imports site ui

sweep: install
	$(BIN)/python -m lab.sweep search_spaces/gen_ratio.yaml

test: check
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

# Tests that neither train nor start processes of Ray.
test-fast: install
	$(BIN)/python -m pytest --numprocesses 2 -m 'not slow and not trains'

# Tests of the faults in docs/faults.md.
reported: install
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder -m reported

# The checks run two at a time; the output of each is printed when it has ended.
check: install
	$(MAKE) --no-print-directory --jobs 2 --output-sync=target mypy ruff imports site

ruff:
	$(BIN)/ruff format --check lab tests benchmarks
	$(BIN)/ruff check lab tests benchmarks

mypy:
	$(BIN)/mypy

imports:
	$(BIN)/lint-imports

site:
	$(BIN)/mkdocs build --strict --quiet --site-dir site

# Prints the address of the table of runs of each sweep first.
ui: install
	$(BIN)/python -m lab.tracking.user_interface
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false MLFLOW_DISABLE_TELEMETRY=true $(BIN)/mlflow ui --backend-store-uri sqlite:///$(CURDIR)/runs/mlflow.db --host 127.0.0.1

install: $(READY)

# constraints.txt pins the versions that were tested together. The bytecode of what sweeps and tests
# import is compiled by importing it once, because they start many processes; compiling all
# installed files takes four times as long. electra-pytorch is a reference implementation for tests. It
# is installed without its dependencies: it requires an old version of transformers, which the tested
# part does not use.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt --editable '.[dev]'
	$(BIN)/pip install --quiet --no-deps --no-compile --constraint constraints.txt electra-pytorch
	$(BIN)/python -c 'import $(IMPORTED)'
	touch $(READY)
