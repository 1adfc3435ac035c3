"""Fail unless the installed package holds what it should, and is small."""

from importlib.metadata import files

LIMIT = 10_000_000
# Sources of the compiled modules are of no use without a compiler: they stay in the
# source distribution.
EXPECTED = {".py", ".pyi", ".so", ".typed"}

installed = [path for path in files("cropkit") or [] if path.suffix != ".pyc"]
package = [path for path in installed if path.parts[0] == "cropkit"]
assert any(path.suffix == ".so" for path in package), "no compiled module"
assert any(path.as_posix() == "cropkit_gpu/kernels.cl" for path in installed), "no GPU kernels"
surprises = [str(path) for path in package if path.suffix not in EXPECTED]
assert not surprises, f"installed and not expected: {surprises}"
size = sum(path.locate().stat().st_size for path in installed)
assert size < LIMIT, f"{size} bytes installed: expected less than {LIMIT}"
print(f"{len(installed)} files installed, {size / 1e6:.2f} MB")
