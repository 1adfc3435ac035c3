# What a contributor runs; `make` alone lists it. Everything is installed into .venv, and
# only when it is missing or pyproject.toml has changed.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python -m
PIP := $(RUN) pip --disable-pip-version-check --quiet

SOURCES := $(wildcard src/cropkit/_kernels/*.pyx src/cropkit/_kernels/*.p*[di] src/cropkit/_kernels/*.h)

.PHONY: help
help: ## list the targets
	@sed -En 's/^([a-z-]+):.*## (.*)/  make \1@\2/p' $(MAKEFILE_LIST) \
	    | awk -F @ '{printf "%-18s %s\n", $$1, $$2}'

# ---- what is installed ------------------------------------------------------------------

$(VENV)/pip.stamp:
	$(PYTHON) -m venv $(VENV)
	$(PIP) install 'pip>=25.1' # the first that knows dependency groups
	@touch $@

# One stamp for each dependency group of pyproject.toml.
$(VENV)/group-%.stamp: pyproject.toml | $(VENV)/pip.stamp
	$(PIP) install --group $*
	@touch $@

# Editable: a changed .py needs nothing but for the version's, a changed kernel comes here again.
$(VENV)/cropkit.stamp: $(VENV)/group-build.stamp setup.py src/cropkit/__init__.py $(SOURCES)
	$(PIP) install --no-build-isolation --editable '.[demo]'
	@touch $@

# ---- what is run ------------------------------------------------------------------------

.PHONY: demo
demo: $(VENV)/cropkit.stamp ## crop a photograph, write demo.png
	$(RUN) cropkit demo

# What `make test` leaves to test-full.
LEFT_OUT := oracle or frameworks or large or build

.PHONY: test
test: $(VENV)/cropkit.stamp $(VENV)/group-test.stamp ## what to run before every commit, without a framework
	$(RUN) pytest -m 'not ($(LEFT_OUT) or gpu)'

.PHONY: test-gpu
test-gpu: $(VENV)/cropkit.stamp $(VENV)/group-test.stamp $(VENV)/group-gpu.stamp ## the GPU backends: OpenCL on PoCL, CUDA compiled
	$(RUN) pytest -p tests.support.no_skips -m gpu

# Here every test but those of test-gpu must run: a skip is a failure. MARKS= chooses others.
MARKS := not gpu

.PHONY: test-full
test-full: $(VENV)/cropkit.stamp $(VENV)/group-test.stamp $(VENV)/group-types.stamp $(VENV)/group-frameworks.stamp ## all other tests, with PyTorch, JAX and TensorFlow
	$(RUN) pytest -p tests.support.no_skips -m '$(MARKS)'

# Stubs are compared with the modules that this CPU can import.
.PHONY: lint
lint: $(VENV)/cropkit.stamp $(VENV)/group-lint.stamp ## style, types and stubs
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	PATH="$(VENV)/bin:$$PATH" cython-lint src # it runs pycodestyle by its name
	$(RUN) mypy
	@# Every public name has a type, and all checkers see the same; an editable install is not found.
	for package in cropkit cropkit_gpu; do \
	    PYTHONPATH=src $(RUN) pyright --verifytypes $$package --ignoreexternal || exit 1; \
	done
	$(RUN) mypy.stubtest $$($(VENV)/bin/python -c 'from cropkit._cpu import built_instruction_sets as isas; \
	    print(*(f"cropkit._kernels._{name}" for name in ("features", "openmp", "checks", "memory", *isas())))')

# No framework is needed: docs/conf.py mocks them.
.PHONY: docs
docs: $(VENV)/cropkit.stamp $(VENV)/group-docs.stamp ## the documentation, into docs/_build/html
	$(RUN) sphinx -W --keep-going -b html docs docs/_build/html

# Benchmarks and wheels bring their own targets.
include $(wildcard asv_bench/*.mk gate/*.mk peers/*.mk wheels/*.mk)

.PHONY: clean
clean: ## remove everything that was built or installed here
	rm -rf .venv* build dist src/*.egg-info docs/_build docs/api/generated
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis demo.png
	find src tests -name '*.so' -delete
	find src tests -name __pycache__ -prune -exec rm -r {} +
