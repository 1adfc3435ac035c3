# Benchmarks; included by the Makefile above. ARGS goes to asv, for example
# make bench ARGS='-b forward --quick'.

ASV := cd asv_bench && PATH="$(CURDIR)/$(VENV)/bin:$$PATH" asv
BASE ?= main
COMMITS ?= HEAD^!

$(VENV)/asv.stamp: asv_bench/requirements.txt | $(VENV)/pip.stamp
	$(PIP) install -r $<
	cd asv_bench && ../$(VENV)/bin/asv machine --yes >/dev/null
	@touch $@

.PHONY: bench
bench: $(VENV)/cropkit.stamp $(VENV)/asv.stamp ## benchmark this checkout; nothing is recorded
	$(ASV) run --python=same $(ARGS)

.PHONY: bench-compare
bench-compare: $(VENV)/asv.stamp ## compare HEAD with BASE (main), side by side; fails if it is slower
	$(ASV) continuous --factor 1.1 $(ARGS) $(BASE) HEAD

.PHONY: bench-record
bench-record: $(VENV)/asv.stamp ## benchmark COMMITS (a range; HEAD^!) for the published page
	$(ASV) run --skip-existing-successful $(ARGS) $(COMMITS)

# The page's scripts come along where npm is at hand, else it needs a network.
.PHONY: bench-report
bench-report: $(VENV)/asv.stamp ## publish what was recorded: asv_bench/html/index.html
	$(ASV) publish
	@if command -v npm >/dev/null; then $(VENV)/bin/python asv_bench/offline_page.py asv_bench/html; fi
	@echo 'to see it: cd asv_bench && ../$(VENV)/bin/asv preview'
