# The comparison with other libraries; included by the Makefile above.

PEERS := .venv-peers
PEERS_PIP := $(PEERS)/bin/python -m pip --disable-pip-version-check --quiet

$(PEERS)/peers.stamp: peers/requirements.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS_PIP) install --upgrade pip
	$(PEERS_PIP) install -r $<
	@touch $@

$(PEERS)/cropkit.stamp: $(PEERS)/peers.stamp setup.py $(SOURCES) $(wildcard src/cropkit/*.py)
	$(PEERS_PIP) install --force-reinstall --no-deps .
	@touch $@

.PHONY: peers
peers: $(PEERS)/cropkit.stamp ## compare with TensorFlow and others; rewrites the tables and the chart
	$(PEERS)/bin/python -m peers.report $(ARGS)

# In the environment of the tests, which has the frameworks.
.PHONY: peers-frameworks
peers-frameworks: $(VENV)/cropkit.stamp $(VENV)/group-frameworks.stamp ## compare the modules for frameworks; rewrites their table
	$(RUN) peers.report_frameworks $(ARGS)

.PHONY: peers-gradients
peers-gradients: $(PEERS)/cropkit.stamp ## compare the gradients with TensorFlow's; rewrites their table
	$(PEERS)/bin/python -m peers.report_gradients $(ARGS)
