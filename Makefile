# Two commands: `make book` and `make test`. Each sets up what it needs, once.
PYTHON  ?= python3
PROFILE ?= quick
DEVICE  ?= cpu
JOBS    ?= 2
PORT    ?= 8000

BIN   := .venv/bin
READY := .venv/.ready
SITE  := _build/html

.DEFAULT_GOAL := help
.PHONY: help venv test book serve lint data priors clean

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10
	@echo "variables: PROFILE=$(PROFILE) DEVICE=$(DEVICE) JOBS=$(JOBS) PYTHON=$(PYTHON) PORT=$(PORT)"

venv: $(READY) ## the environment in .venv, from requirements.lock

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: $(PYTHON) is missing or older than 3.11; install Python 3.11 or set PYTHON=..." >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv .venv || \
	  { echo "make: cannot create .venv; on Debian and Ubuntu: sudo apt-get install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

test: $(READY) ## run the tests
	$(BIN)/python -m pytest

book: $(READY) ## execute the chapters that changed, build the site, say where it is
	$(BIN)/scoreatlas book execute --profile $(PROFILE) --device $(DEVICE) --jobs $(JOBS)
	$(BIN)/scoreatlas book build --profile $(PROFILE) --device $(DEVICE)

serve: book ## build the book and open it
	@echo "http://localhost:$(PORT)/ (stop with Ctrl-C)"
	@(sleep 1; $(BIN)/python -m webbrowser -t http://localhost:$(PORT)/ >/dev/null 2>&1) &
	@$(BIN)/python -m http.server --bind 127.0.0.1 --directory $(SITE) $(PORT)

lint: $(READY) ## style, types, notebook twins
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/scoreatlas book twins --check

data: $(READY) ## derive the data files again from the packages that carry the originals
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint requirements.lock h5py nibabel
	$(BIN)/scoreatlas data fetch

priors: $(READY) ## train the learned priors (a GPU if there is one; else hours)
	$(BIN)/scoreatlas priors train

clean: ## remove what was built; keep the environment and the executed chapters
	rm -rf _build/html _build/.doctrees _build/.jupyter_cache _build/stamps.json _build/built.json _build/snakemake .pytest_cache .ruff_cache .mypy_cache
