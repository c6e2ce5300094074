# make quickstart   train a small model on rendered images and evaluate it (10 to 14 minutes)
# make test         run lint, types and tests
# make parity       compare with Chinese-CLIP on PyTorch and write docs/fidelity.md (5 GB of wheels)
# make docs         build the pages of docs/ into site/; a dead link or anchor is an error
# All targets create .venv first. PYTHON chooses the interpreter.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A folder with IDRiD's "B. Disease Grading": if set, the quickstart also scores its photographs.
IDRID ?=

# Keep bytecode whatever the environment says. Otherwise every process compiles all that it imports.
export PYTHONDONTWRITEBYTECODE =

.PHONY: quickstart test parity docs lint types tests install clean

# Let glibc keep memory between steps, and use huge pages. Otherwise steps fault in a hundred thousand
# small pages a second.
quickstart: export MALLOC_MMAP_MAX_ = 0
quickstart: export MALLOC_TRIM_THRESHOLD_ = 17179869184
quickstart: export GLIBC_TUNABLES = glibc.malloc.hugetlb=1
quickstart: $(VENV)/installed
	$(BIN)/python -m vclip_jax.main --config configs/quickstart.py --workdir runs/quickstart \
		$(if $(IDRID),--config.evals.idrid.source="$(IDRID)")

# `make --jobs=2 test` runs mypy, which takes one core, beside the first tests.
test: lint types tests

# Tests use Chinese file names in any locale.
tests: export PYTHONUTF8 = 1
tests: $(VENV)/installed-dev
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder \
		-m "not slow and not parity and not tpu_compile and not multiprocess and not browser"

parity: $(VENV)/installed-parity
	$(BIN)/pytest tests/parity --fidelity docs/fidelity.md

docs: $(VENV)/installed-docs
	$(BIN)/zensical build --strict --clean

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/shellcheck --external-sources launch/*.sh launch/slurm.sbatch

types: $(VENV)/installed-dev
	$(BIN)/mypy

install: $(VENV)/installed

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable .
	touch $@

# Leave bytecode to the first import, as the tests import a small part of these packages.
$(VENV)/installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile \
		--constraint constraints.txt --editable '.[dev]'
	touch $(VENV)/installed $@

$(VENV)/installed-docs: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[docs]'
	touch $@

$(VENV)/installed-parity: $(VENV)/installed-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[parity]'
	touch $@

clean:
	rm -rf $(VENV)
