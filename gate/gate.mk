# The instruction gate; included by the Makefile above.

.PHONY: bench-gate
bench-gate: $(VENV)/cropkit.stamp ## fail if the kernels execute 3 % more instructions than recorded
	$(RUN) gate

.PHONY: bench-gate-update
bench-gate-update: $(VENV)/cropkit.stamp ## record the kernels' instructions
	$(RUN) gate --update
