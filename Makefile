# Every task of the project is one target; `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Variables that a user may set on the command line. `make help` shows the line that starts with `#:` above a variable.
#: config file of the run
CONFIG := configs/colored_mnist_default.yaml
#: number of epochs, in place of those in CONFIG
EPOCHS :=
#: cpu, cuda, cuda:0 or mps, in place of the one in CONFIG
DEVICE :=
#: checkpoint to evaluate, in place of the best of CONFIG's run
CHECKPOINT :=
#: run folder for the report, in place of CONFIG's run
RUN :=
#: folder that TensorBoard shows
LOGDIR := results/colored_mnist_baseline/tensorboard_logs
#: more arguments for train, quick_train and fuzz, such as 'training.adversarial_lambda=0.3'
ARGS :=
#: the Python (3.11 or newer) that creates .venv
PYTHON3 = $(shell for p in python3.11 python3 python; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)

PY := .venv/bin/python
# Stamp files, made after the packages were installed. If a stamp is missing or older than the requirements, they are installed again.
RUNTIME := .venv/.installed
DEVELOP := .venv/.installed-dev

# $(call quoted,TEXT) is TEXT as one word of the shell; $(call option,--name,TEXT) is empty if TEXT is empty.
quoted = '$(subst ','\'',$(1))'
option = $(if $(2),$(1) $(call quoted,$(2)))
main = $(PY) src/main.py --config $(call quoted,$(CONFIG))

.PHONY: help setup install download_data train quick_train eval report tensorboard notebook list_configs \
	test test-all test-slow check format lint types docs gallery fuzz bench lock clean clean_results clean_data

help: ## Show this list
	@awk 'BEGIN { FS = ":.*## "; print "Usage: make TARGET [VARIABLE=value ...]\n\nTargets:" } \
		/^#: / { text = substr($$0, 4) } \
		/^[A-Z0-9]+ :?=/ && text { if ($$0 ~ /:= /) text = text sprintf(" (%s)", substr($$0, index($$0, "=") + 2)); \
			sub(/ :?=.*/, ""); variables = variables sprintf("  %-14s %s\n", $$0, text); text = "" } \
		/^[a-z_-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 } \
		END { printf "\nVariables:\n%s", variables }' $(firstword $(MAKEFILE_LIST))

setup: install ## Install everything and show the data (only packages are downloaded)
	.venv/bin/lntl data info

install: $(RUNTIME) ## Make .venv and install the locked packages

download_data: $(RUNTIME) ## Fetch the authors' data files; optional, training works without them
	bash scripts/download_dataset.sh

train: $(RUNTIME) ## Train with CONFIG, then evaluate
	$(main) --mode train $(call option,--num_epochs,$(EPOCHS)) $(call option,--device,$(DEVICE)) $(ARGS)

quick_train: $(RUNTIME) ## Train for one epoch, into results/quick_train
	$(main) --mode train --num_epochs 1 $(call option,--device,$(DEVICE)) --overwrite project.experiment_name=quick_train $(ARGS)

eval: $(RUNTIME) ## Evaluate the best model of CONFIG's run, or CHECKPOINT
	$(main) --mode evaluate $(call option,--checkpoint_path,$(CHECKPOINT)) $(call option,--device,$(DEVICE))

report: $(RUNTIME) ## Make a page about CONFIG's run, or about RUN: is the bias unlearned, and at what cost?
	.venv/bin/lntl report $(call quoted,$(or $(RUN),$(CONFIG)))

tensorboard: $(RUNTIME) ## Show the curves in LOGDIR at http://localhost:6006
	@test -d $(call quoted,$(LOGDIR)) || { printf 'No folder %s: train first, or name another with LOGDIR=\n' $(call quoted,$(LOGDIR)) >&2; exit 1; }
	$(PY) -m tensorboard.main --logdir $(call quoted,$(LOGDIR))

notebook: $(DEVELOP) ## Open the notebooks in JupyterLab
	$(PY) -m jupyterlab notebooks

list_configs: $(RUNTIME) ## List the ready configs
	.venv/bin/lntl configs

test: $(DEVELOP) ## Run the quick tests: all except those marked full or slow
	$(PY) -m pytest -q -n auto -m 'not full and not slow'

test-all: $(DEVELOP) ## Run all tests except those marked slow
	$(PY) -m pytest -q -n auto

test-slow: $(DEVELOP) ## Run the tests marked slow, which take minutes each
	$(PY) -m pytest -q -m slow

check: lint types test ## Check format, style, types and the quick tests before a commit

format: $(DEVELOP) ## Format the code and repair what the linter can
	$(PY) -m ruff format
	$(PY) -m ruff check --fix

lint: $(DEVELOP) ## Check format and style
	$(PY) -m ruff format --check
	$(PY) -m ruff check
	.venv/bin/shellcheck .ci/run scripts/*.sh

types: $(DEVELOP) ## Check the types
	$(PY) -m mypy

docs: $(DEVELOP) ## Build the documentation into site/; a broken link or a missing page is an error
	$(PY) scripts/docs_site.py

gallery: $(DEVELOP) ## Run the examples of examples/gallery/ and store their output and images
	$(PY) scripts/gallery.py

fuzz: $(DEVELOP) ## Check that thousands of damaged files give no traceback: up to ten minutes (ARGS='--share 0.02')
	$(PY) scripts/fuzz.py $(ARGS)

bench: $(RUNTIME) ## Measure a training step against the plain reference
	$(PY) benchmarks/step.py

lock: $(PY) ## Resolve the newest versions and write both requirements files
	$(PY) scripts/lock.py

clean: clean_results ## Remove results, caches and build artefacts; never data
	rm -rf -- build dist site src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . \( -path ./.venv -o -path ./.git -o -path ./data \) -prune -o \
		-type d \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf -- {} +

clean_results: ## Remove results/
	rm -rf -- results

clean_data: ## Remove downloaded data files; data/README.md stays
	find data -mindepth 1 -maxdepth 1 ! -name README.md -exec rm -rf -- {} +

$(PY):
	@test -n $(call quoted,$(PYTHON3)) || { echo 'Python 3.11 or newer was not found; name one with PYTHON3=/path/to/python3.11' >&2; exit 1; }
	$(call quoted,$(PYTHON3)) -m venv .venv

$(RUNTIME): requirements.txt pyproject.toml | $(PY)
	$(PY) -m pip install -r requirements.txt
	$(PY) -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

$(DEVELOP): requirements-dev.txt $(RUNTIME)
	@echo 'Installing the development tools ...'
	$(PY) -m pip install --quiet -r requirements-dev.txt
	touch $@
