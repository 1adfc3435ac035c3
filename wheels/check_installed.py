"""Fail unless the installed package holds what it should, and is small."""

import sysconfig
from importlib.metadata import files, metadata

LIMIT = 10_000_000
# Sources of the compiled modules are of no use without a compiler: they stay in the
# source distribution.
EXPECTED = {".py", ".pyi", ".so", ".typed"}
# One wheel for every Python but those that have no stable interface.
MODULE = ".so" if sysconfig.get_config_var("Py_GIL_DISABLED") else ".abi3.so"

installed = [path for path in files("cropkit") or [] if path.suffix != ".pyc"]
package = [path for path in installed if path.parts[0] == "cropkit"]
modules = [path.name for path in package if path.suffix == ".so"]
assert modules, "no compiled module"
assert all(name.endswith(MODULE) for name in modules), f"not all {MODULE}: {modules}"
assert any(path.as_posix() == "cropkit_gpu/kernels.cl" for path in installed), "no GPU kernels"
surprises = [str(path) for path in package if path.suffix not in EXPECTED]
assert not surprises, f"installed and not expected: {surprises}"

# What else is in a repaired wheel: OpenMP, and by what right.
libraries = [path.name for path in installed if path.parts[0] == "cropkit.libs"]
assert [name.partition("-")[0] for name in libraries] == ["libgomp"], libraries
expression = metadata("cropkit")["License-Expression"]
assert expression == "BSD-3-Clause AND GPL-3.0-or-later WITH GCC-exception-3.1", expression
texts = {path.name: path for path in installed if "licenses" in path.parts}
assert texts.keys() == {"LICENSE", "libgomp.txt"}, texts.keys()
for title in ("GCC RUNTIME LIBRARY EXCEPTION", "GNU GENERAL PUBLIC LICENSE"):
    assert title in texts["libgomp.txt"].read_text(), f"no {title} in libgomp.txt"

size = sum(path.locate().stat().st_size for path in installed)
assert size < LIMIT, f"{size} bytes installed: expected less than {LIMIT}"
print(f"{len(installed)} files installed, {size / 1e6:.2f} MB")
