# Needs Python 3.11 or newer and nothing else: everything is installed into .venv.
# VFI_WORK, VFI_DATASET and VFI_FAST pass through to the notebooks; PYTHON=... names the interpreter to use.

SHELL := /bin/sh
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check
RUN_REQUIREMENTS := requirements.txt tests/requirements-notebooks.txt

.DEFAULT_GOAL := help
.PHONY: help run test test-colab test-colab-quick bench peers train notebooks lint badges downloads clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-18s%s\n", $$1, $$2}' Makefile

run: $(VENV)/.for-run  ## run notebooks 01 to 08 on the sample, or one (NOTEBOOK=05); name what they write
	@$(PY) tests/tools/run_notebooks.py notebooks/$(or $(NOTEBOOK),0[1-8])_*.ipynb

test: $(VENV)/.for-test  ## run all tests (ARGS="-m 'not runs'" for the quick ones)
	@$(PY) -m pytest -n 2 $(ARGS)

test-colab: $(VENV)/.for-test  ## run all notebooks with Colab's oldest and newest versions, compare all numbers
	@$(PY) tests/tools/colab.py $(ARGS)

test-colab-quick: $(VENV)/.for-test  ## run 03 and 05 with today's versions and with Colab's newest, compare
	@$(PY) tests/tools/colab.py --ends here newest --only 03 05

bench: $(VENV)/.for-test  ## measure what the series costs in time and memory
	@$(PY) tests/tools/bench.py $(ARGS)

peers: $(VENV)/.for-test  ## measure ffmpeg and OpenCV on VFI_DATASET (ARGS='--called "what it is"')
	@$(PY) tests/tools/peers.py $(ARGS)

train: $(VENV)/.for-test  ## train all models of the series alike on VFI_DATASET (hours; wants a GPU)
	@$(PY) tests/tools/publish.py train dncnn dncnn_residual dncnn_2frames motion

notebooks: $(VENV)/.for-run  ## execute notebooks in place, all or one (NOTEBOOK=05): outputs of one run
	@$(PY) tests/tools/run_notebooks.py --in-place notebooks/$(or $(NOTEBOOK),[0-9][0-9])_*.ipynb

lint: $(VENV)/.for-test  ## check style and format of modules and notebooks
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .

badges: | $(PY)  ## write REPO=owner/name into every badge and link
	@$(PY) tests/tools/stamp_badges.py "$(REPO)"

downloads: $(VENV)/.for-run  ## ask whether the address of every download still answers
	@$(PY) tests/tools/check_downloads.py

clean:  ## remove .venv and caches (never work/)
	rm -rf $(VENV) .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './work/*' -prune -exec rm -rf {} +

ifneq ($(shell test -x $(PY) && echo there),there)
.PHONY: $(VENV)/.for-run  # no interpreter, or no longer: install, whatever the stamp says
endif

# Each stamp is written last: an interrupted installation is done again, a finished one is not.
$(VENV)/.for-run: $(RUN_REQUIREMENTS) | $(PY)
	@echo "installing $(RUN_REQUIREMENTS) into $(VENV) (a few minutes the first time)"
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PY) -m ensurepip >/dev/null
	@$(PIP) $(RUN_REQUIREMENTS:%=-r %)
	@touch $@

$(VENV)/.for-test: $(VENV)/.for-run tests/requirements.txt
	@echo "installing tests/requirements.txt into $(VENV)"
	@$(PIP) -r requirements.txt -r tests/requirements.txt
	@touch $@

# Python 3.11 to 3.13 if there is one, because TensorFlow may not support a newer one yet.
$(PY):
	@fits() { "$$1" -c "import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, $$2))" 2>/dev/null; }; \
	for newest in 13 99; do for name in $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python); do \
		test "$$python" || { fits $$name $$newest && python=$$name; }; done; done; \
	test "$$python" || { \
		echo "No Python 3.11 or newer: tried $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python)." >&2; \
		echo "Install it from https://www.python.org/downloads, or name yours: make PYTHON=/path/to/python3 run" >&2; \
		exit 1; }; \
	echo "making $(VENV) with $$($$python --version)"; \
	$$python -m venv --clear $(VENV) || { \
		rm -rf $(VENV); \
		echo "This Python cannot make a virtual environment. On Debian or Ubuntu: sudo apt install python3-venv" >&2; \
		exit 1; }
