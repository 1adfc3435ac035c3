# Wheels; included by the Makefile above. They and the source distribution go to dist/.

.PHONY: wheel
wheel: $(VENV)/group-wheel.stamp ## a wheel for every Python from 3.11: built, repaired, audited, tested without a compiler
	rm -rf dist build/wheel
	mkdir -p build/wheel
	$(RUN) build --outdir build/wheel . >build/wheel/log 2>&1 || { cat build/wheel/log; false; }
	mkdir dist
	mv build/wheel/cropkit-*.tar.gz dist
	PATH="$(abspath $(VENV))/bin:$$PATH" $(RUN) auditwheel repair --wheel-dir dist build/wheel/cropkit-*.whl
	$(VENV)/bin/python wheels/add_licenses.py dist
	$(RUN) auditwheel show dist/*.whl
	case "$$(echo dist/*.whl)" in *-abi3-*) $(RUN) abi3audit --strict dist/*.whl;; esac
	$(RUN) twine check --strict dist/*
	ls -l build/wheel dist
	$(MAKE) test-wheel PYTHON=$(VENV)/bin/python

# Beside the wheel: the tests that came with the source distribution, and no compiler.
INSTALLED := build/wheel/installed

.PHONY: test-wheel
test-wheel: ## test the wheel in dist/ with PYTHON=, any from 3.11, in an environment of its own
	rm -rf $(INSTALLED)
	mkdir -p $(INSTALLED)/source
	$(PYTHON) -m venv $(INSTALLED)/venv
	tar -xzf dist/cropkit-*.tar.gz --strip-components=1 -C $(INSTALLED)/source
	rm -r $(INSTALLED)/source/src $(INSTALLED)/source/setup.py
	$(INSTALLED)/venv/bin/python -m pip install --quiet 'pip>=25.1'
	$(INSTALLED)/venv/bin/python -m pip install --quiet dist/cropkit-*.whl
	cd $(INSTALLED)/source && ../venv/bin/python -m pip install --quiet --group test
	$(INSTALLED)/venv/bin/python wheels/check_installed.py
	ln -s "$$(command -v git)" $(INSTALLED)/venv/bin # for the tests of the record of performance
	cd $(INSTALLED)/source && env PATH=$(abspath $(INSTALLED))/venv/bin \
	    ../venv/bin/python -m pytest -p tests.support.no_skips -m 'not ($(LEFT_OUT) or gpu)' $(TESTS)
