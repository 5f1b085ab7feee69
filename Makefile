# Two commands on a fresh machine: `make quickstart` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# A process for each core, one thread each; files stay whole, for they share what they made.
TEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

.PHONY: install quickstart test check docs format clean

# Set-up runs again only when the dependencies or the entry points changed.
$(INSTALLED): pyproject.toml constraints.txt
	@echo "Installing into $(VENV), once: pinned packages, 6 GB on disk, most of it PyTorch with CUDA."
	@echo "A minute or two with a fast connection; pip says below what it is at."
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check \
	    --constraint constraints.txt --editable '.[dev]'
	touch $@

install: $(INSTALLED)

quickstart: $(INSTALLED)
	$(BIN)/bench run quickstart

test: $(INSTALLED)
	$(TEST)

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/sphinx-build -W -q -b html docs build/docs
	$(BIN)/bench verify results
	$(TEST)

docs: $(INSTALLED)
	$(BIN)/sphinx-build -W -q -b html docs build/docs
	@echo "build/docs/index.html"

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .import_linter_cache build/docs
