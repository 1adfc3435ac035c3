"""The reference, and the kernels of each instruction set of this build and CPU."""

from cropkit import Backend
from cropkit._cpu import CpuBackend, built_instruction_sets
from cropkit._reference import ReferenceBackend

CPU_BACKENDS = {f"cpu-{isa}": CpuBackend(isa) for isa in built_instruction_sets()}
BACKENDS: dict[str, Backend] = {"reference": ReferenceBackend(), **CPU_BACKENDS}
