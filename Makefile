# Two commands: `make demo` runs the whole job, `make test` runs every check.
# Each sets up its own virtual environment from the lock; only Python 3.11+ and make are needed.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO ?= demo
DATA ?= ../shared/data
OUT ?= build/cifar
BENCH ?=

.PHONY: demo test check format cifar ablation recaption recaption-cifar bench lock clean

demo: $(READY)
	$(BIN)/curate demo $(DEMO)

test: check
	$(BIN)/pytest

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# CIFAR-10 with half of the captions wrong: raw, curated and oracle accuracy over three seeds.
cifar: $(READY)
	$(BIN)/python -m tests.experiments.cifar_noise $(DATA) $(OUT)

# CIFAR-10 with planted defects: does `curate ablate` rank filters whose worth is known?
ablation: $(READY)
	$(BIN)/python -m tests.experiments.cifar_ablation $(DATA) build/ablation

# Half of the captions destroyed: do new ones help, written by a model that the pool itself trained? On the mini-web, and on CIFAR-10.
recaption: $(READY)
	$(BIN)/python -m tests.experiments.recaption_mini_web build/recaption

recaption-cifar: $(READY)
	$(BIN)/python -m tests.experiments.recaption_cifar $(DATA) build/recaption-cifar

# Every speed as a ratio to a peer or a physical floor; peers get environments of their own in build/peers.
bench: $(READY)
	$(BIN)/python -m tests.bench --data $(DATA) $(BENCH)

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# --no-deps: the lock is complete, and resolving again would bring back what it leaves out.
$(READY): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "curate needs Python 3.11, 3.12 or 3.13 with venv on the PATH" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --no-deps -r requirements.lock
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --no-deps --editable .
	@touch $@

# Names and versions only: a lock with download hosts would tie the project to one registry.
lock:
	uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --no-annotate --no-header \
		--extra cpu --extra spark --extra cld3 --extra ocr --extra safety --extra hf --extra captioning --extra s3 --extra dev pyproject.toml -o requirements.lock

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
