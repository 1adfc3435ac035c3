# Benchmarks; included by the Makefile above. ARGS goes to asv, for example
# make bench ARGS='-b forward --quick'.

ASV := cd asv_bench && PATH="$(CURDIR)/$(VENV)/bin:$$PATH" asv
BASE ?= main
COMMITS ?= HEAD^!

$(VENV)/asv.stamp: $(VENV)/group-bench.stamp
	cd asv_bench && ../$(VENV)/bin/asv machine --yes >/dev/null
	@touch $@

.PHONY: bench
bench: $(VENV)/cropkit.stamp $(VENV)/asv.stamp ## benchmark this checkout; nothing is recorded
	$(ASV) run --python=same $(ARGS)

.PHONY: bench-compare
bench-compare: $(VENV)/asv.stamp ## compare HEAD with BASE (main), side by side; fails if it is slower
	$(ASV) continuous --factor 1.1 $(ARGS) $(BASE) HEAD

# COMMITS goes to git rev-list: a tag and ^! for one commit, -20 main for the last twenty.
.PHONY: bench-record
bench-record: $(VENV)/cropkit.stamp $(VENV)/group-bench.stamp ## measure COMMITS (HEAD^!) and keep the results in asv_bench/records
	$(RUN) asv_bench.record '$(COMMITS)'

# The page's scripts come along where npm is at hand, else it needs a network.
.PHONY: bench-report
bench-report: $(VENV)/cropkit.stamp $(VENV)/group-bench.stamp ## publish what is on record: asv_bench/html/index.html
	$(RUN) asv_bench.publish asv_bench/html
	@if command -v npm >/dev/null; then $(VENV)/bin/python asv_bench/offline_page.py asv_bench/html; fi
	@echo 'to see it: $(VENV)/bin/python -m http.server --directory asv_bench/html'
