# SPDX-License-Identifier: MIT
# `make help` says what there is. Variables on the command line either act or are refused.

PYTHON ?= python3
VENV ?= .venv
TORCH ?= auto
PY = $(VENV)/bin/python
CLI = $(PY) -m adamwprune

# Variables that make itself reads; every other NAME=VALUE on the command line changes the configuration.
OWN := PYTHON VENV TORCH RETRY_FAILED DEFCONFIG RESULTS TESTS
overrides = $(filter-out $(addsuffix =%,$(OWN)),$(MAKEOVERRIDES))
named = $(foreach word,$(MAKEOVERRIDES),$(if $(findstring =,$(word)),$(firstword $(subst =, ,$(word)))))

# Which of these variables a goal acts on; goals that also take changes of the configuration are marked by `any`.
KNOWS_all := any RETRY_FAILED
KNOWS_plan := any
KNOWS_defconfig := any DEFCONFIG
KNOWS_savedefconfig := DEFCONFIG
KNOWS_continue := RESULTS RESULTS_DIR JOBS DATA_DIR RETRY_FAILED
KNOWS_report := RESULTS RESULTS_DIR
KNOWS_list := RESULTS RESULTS_DIR
KNOWS_test := TESTS
knows = PYTHON VENV TORCH $(if $(filter defconfig-%,$(1)),any,$(KNOWS_$(1)))
unknown = $(filter-out $(knows),$(if $(filter any,$(knows)),$(filter $(OWN),$(named)),$(named)))
check = $(if $(unknown),$(error make $(1): $(unknown) would have no effect; it knows $(subst any,any symbol of menuconfig,$(strip $(knows)))))
$(foreach goal,$(or $(MAKECMDGOALS),all),$(call check,$(goal)))

# $(call given,NAME,FLAG ): the flag with the variable's value, if it is on the command line.
given = $(if $(findstring command,$(origin $(1))),$(2)"$($(1))")
retry = $(if $(findstring command,$(origin RETRY_FAILED)),--retry-failed)

.DEFAULT_GOAL := all
.PHONY: all plan continue report list environment test coverage benchmarks lint types check help clean distclean \
	menuconfig defconfig savedefconfig list-defconfigs

all: environment
	@$(CLI) matrix run $(retry) $(overrides)

plan: environment
	@$(CLI) matrix run --dry-run $(overrides)

continue: environment
	@$(CLI) matrix continue $(call given,RESULTS) $(call given,RESULTS_DIR,--results-dir ) \
		$(call given,JOBS,--jobs ) $(call given,DATA_DIR,--data-dir ) $(retry)

report: environment
	@$(CLI) report $(call given,RESULTS) $(call given,RESULTS_DIR,--results-dir )

list: environment
	@$(CLI) matrix list $(call given,RESULTS) $(call given,RESULTS_DIR,--results-dir )

menuconfig: environment
	@$(PY) -m menuconfig Kconfig
	@test ! -f .config || $(CLI) config check

defconfig: environment
	$(if $(DEFCONFIG),,$(error name a preset: make defconfig DEFCONFIG=NAME; `make list-defconfigs` shows them))
	@$(CLI) config load "$(DEFCONFIG)" $(overrides)

defconfig-%: environment
	@$(CLI) config load "$*" $(overrides)

savedefconfig: environment
	@$(CLI) config save $(if $(DEFCONFIG),"defconfigs/$(DEFCONFIG)",defconfig)

list-defconfigs: environment
	@$(CLI) config list

environment:
	@$(PYTHON) scripts/bootstrap.py --venv "$(VENV)" --torch "$(TORCH)"

test: environment
	@$(PY) -m pytest $(TESTS)

coverage: environment
	@$(PY) -m pytest tests/prune tests/optim tests/kernels --cov --cov-branch --cov-report=term-missing \
		--cov-fail-under=95

benchmarks: environment
	@$(PY) benchmarks/all.py

lint: environment
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .

types: environment
	@$(PY) -m mypy

check: lint types

# Results, data and the configuration stay.
clean:
	rm -rf build .pytest_cache .ruff_cache .mypy_cache .hypothesis .coverage
	find src tests lenet5 scripts -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf "$(VENV)" src/*.egg-info .config .config.old

help:
	@sed -n 's/^#: \{0,1\}//p' Makefile

#: make                     install what is missing, run the experiment of .config (without one: the preset digits),
#:                          print the comparison, write plots and a page
#: make plan                list the runs that `make` would run, and what is there of each
#: make continue            go on with the matrix that was worked on last (RESULTS=FOLDER names another), as it was
#:                          stored: the present .config plays no part. RETRY_FAILED=1 tries failed runs again
#: make report              write the report of the last matrix (or RESULTS=FOLDER) again
#: make list                show the matrices, or with RESULTS=FOLDER the runs of one
#:
#: make defconfig-NAME      take a preset as .config; also make defconfig DEFCONFIG=NAME
#: make list-defconfigs     show the presets
#: make menuconfig          edit .config
#: make savedefconfig       save .config as the file defconfig, or as a preset with DEFCONFIG=NAME
#:
#: make test                run the tests; TESTS=tests/optim runs some of them
#: make coverage            branch coverage of the library, at least 95 %
#: make benchmarks          measure speed and memory anew, and rewrite the tables in README.md and docs/benchmarks.md
#: make lint, make types, make check
#: make environment         only install
#: make clean, make distclean   remove caches; also the environment and .config. Results and data stay
#:
#: Changes for one call: make EPOCHS=3 SEEDS=1 SPARSITIES="0.5 0.7" LR_SCHEDULE=linear JOBS=2 DATA_DIR=/data DEVICE=cpu …
#:   Any symbol or choice of menuconfig, without CONFIG_. One that does not exist, or would change nothing, is an error.
#: TORCH=auto|keep|cpu|cuda|rocm|REQUIREMENT chooses the build of torch (scripts/bootstrap.py explains).
#: PYTHON=python3.12 chooses the interpreter, VENV=FOLDER the environment.
#:
#: Where results go: results/NAME, with the experiment's name. Finished runs are never run twice. A matrix that gained
#:   runs (another seed, sparsity or optimizer) runs those and compares all. Settings that change every run, on the
#:   command line or in .config, get a folder of their own: make EPOCHS=3 writes results/digits-epochs-3. After an
#:   update that changes recipes or code the runs are made again; the older ones leave the table and stay on disk.
#:   Ctrl-C is safe, and so is a crash: make continue.
