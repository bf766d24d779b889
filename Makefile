# Two commands set up everything they need: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OUT ?= build/demo
CONFIG ?= $(OUT)/node.toml

.PHONY: demo run test check bench peers docs images clean

demo: $(VENV)/.model
	$(BIN)/dicomnode demo --out $(OUT)

run: $(VENV)/.model
	$(BIN)/dicomnode serve --config $(CONFIG)

test: $(VENV)/.dev peers
	$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.dev peers
	$(BIN)/python -m benchmarks

# Programs of other vendors that tests talk to: Debian packages, where apt and root are there.
peers:
	@tests/peers/install

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.model: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[model]'
	@touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[model,postgres,dev]'
	@touch $@

docs: $(VENV)/.dev
	$(BIN)/python -m dicomnode.reference

# The images, by Docker's buildx: docs/operations/images.md. BAKE="--push node" for some of them.
REGISTRY ?=
BAKE ?= --load --set *.platform=local
images:
	set -a && . docker/images.env && set +a && \
	REGISTRY='$(REGISTRY)' REVISION="$$(git rev-parse --short=12 HEAD || echo unknown)" \
	docker buildx bake --file docker/docker-bake.hcl $(BAKE)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
