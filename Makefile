# What a developer and CI run; `make help` lists it.  Everything is installed into .venv.

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
ISO := .cache/grub-rescue-cdrom.iso

# Tests run on all cores.  A worker waits much of its time, for servers (each worker starts its own
# when it first needs them) and for time limits: so there are three workers for two cores.  What is
# too long for every change is left to `make deep`; tests/deep.py has its parts.
SPREAD := --numprocesses $(shell expr \( $$(nproc) \* 3 + 1 \) / 2) --dist worksteal

# The interpreter that makes .venv: 3.11 or later, able to make virtual environments.
PYTHON ?= $(firstword $(foreach each,python3 python3.14 python3.13 python3.12 python3.11,\
	$(shell $(each) -c '$(FIT)' 2>/dev/null && echo $(each))))
FIT := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))

.DEFAULT_GOAL := help
.PHONY: help demo test deep coverage lint docs test-unit test-functional test-glance bench sample clean distclean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' Makefile

demo: $(VENV)/.cli ## store a real disk image and get it back; IMAGE=file takes your own
ifeq ($(IMAGE),)
demo: $(ISO)
endif
demo:
	PATH="$(CURDIR)/$(BIN):$$PATH" sh demo/demo.sh "$(or $(IMAGE),$(ISO))"

test: $(VENV)/.dev ## everything CI runs: checks, documentation, all tests
	$(MAKE) --no-print-directory --jobs 2 --output-sync lint docs
	$(BIN)/python -m pytest $(SPREAD) tests/unit
	$(BIN)/python -m pytest $(SPREAD) tests/functional

deep: $(VENV)/.dev ## tests too long for every change, of all parts or of PARTS=kits,...
	$(BIN)/python -m pytest $(SPREAD) --deep='$(or $(PARTS),all)' tests

coverage: $(VENV)/.dev ## what all the tests reach, line by line; they take longer so
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(SPREAD) tests/unit
	$(BIN)/coverage run -m pytest $(SPREAD) tests/functional
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

lint: $(VENV)/.dev ## style, types, and which module may import which
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.dev ## the documentation, into doc/_build/html
	$(BIN)/sphinx-build -W --keep-going -q -b html doc doc/_build/html

test-unit: $(VENV)/.dev ## the tests that need no server and no root, under 90 seconds
	$(BIN)/python -m pytest $(SPREAD) tests/unit

test-functional: $(VENV)/.dev ## the tests on real servers and file systems
	$(BIN)/python -m pytest $(SPREAD) tests/functional

test-glance: $(VENV)/.dev ## Glance's own tests and deployments on store_lib; GLANCE_TESTS=all for all
	$(BIN)/python -m pytest tests/functional/glance

bench: $(VENV)/.dev ## measure side by side with glance_store
	$(BIN)/python -m benchmarks

sample: $(VENV)/.dev ## write etc/store_lib.conf.sample anew
	$(BIN)/oslo-config-generator --namespace store_lib --output-file etc/store_lib.conf.sample

clean: ## remove what was built and measured
	rm -rf build dist doc/_build .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache
	find store_lib tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## remove what was downloaded and installed too
	rm -rf $(VENV) .cache .import_linter_cache *.egg-info

$(VENV)/.made:
	@if ! $(or $(PYTHON),false) -c '$(FIT)' 2>/dev/null; then \
		echo "Python 3.11 or later with venv is needed, and was not found. Install it" \
			"(Debian: apt-get install python3-venv), or name it: make PYTHON=/path/to/python3" >&2; \
		exit 1; \
	fi
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.cli: $(VENV)/.made setup.cfg pyproject.toml
	$(PIP) --editable '.[cli]'
	@touch $@

$(VENV)/.dev: $(VENV)/.made setup.cfg pyproject.toml
	$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/.cli

$(ISO):
	sh demo/fetch_image.sh $@
