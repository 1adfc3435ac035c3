"""What the environment decides, what is imported when, and what the command line prints."""

import io
import json
import re
from typing import Any

import numpy as np
import pytest

import cropkit
from cropkit import _cpu, _threads
from tests.support.children import python

ISAS = _cpu.built_instruction_sets()

CALL = """
import json, sys
import numpy as np
import cropkit
def call(**options):
    image = np.arange(2 * 30 * 30 * 3, dtype=np.float32).reshape(2, 30, 30, 3)
    return cropkit.crop_and_resize(image, [[0, 0, 1, 0.9]] * 8, [0, 1] * 4, (64, 64), **options)
def kernels():
    return sorted(m.removeprefix("cropkit._kernels._") for m in sys.modules if "_kernels._" in m)
"""


def ask(code: str, **environment: Any) -> Any:
    """Run `code` after `CALL` in a child; what it dumps as JSON."""
    return json.loads(python(CALL + code, **environment).stdout)


def error_of(code: str, **environment: Any) -> str:
    """Return the last line of the traceback of `code`, which must raise."""
    return python(CALL + code, status=1, **environment).stderr.splitlines()[-1]


# ---- imports -------------------------------------------------------------------------


def test_import_brings_in_nothing_but_itself() -> None:
    code = """
import json, sys
import numpy
before = set(sys.modules)
import cropkit
new = set(sys.modules) - before
with open("/proc/self/maps") as maps:
    libraries = {line.split("/")[-1].split(".")[0] for line in maps if "/" in line}
json.dump([sorted(m for m in new if m.startswith("cropkit")),
           sorted({m.split(".")[0] for m in new} - sys.stdlib_module_names),
           "importlib.metadata" in new, "libgomp" in libraries], sys.stdout)
"""
    own, others, metadata, openmp = json.loads(python(code).stdout)
    assert own == [
        "cropkit", "cropkit._arguments", "cropkit._arrays", "cropkit._backends",
        "cropkit._kernels", "cropkit._kernels._checks", "cropkit._kernels._memory",
        "cropkit._ops", "cropkit._plugins", "cropkit._protocol", "cropkit._request",
        "cropkit._results", "cropkit._runtime", "cropkit._sampling",
    ]  # fmt: skip
    # Cython makes itself a module in each process.
    assert {name for name in others if "cython" not in name} - {"numpy"} == {"cropkit"}
    assert not metadata  # it would take longer than all else together
    assert not openmp  # loaded with the kernels, which see to how its workers wait


@pytest.mark.parametrize(
    ("name", "title"), [("torch", "PyTorch"), ("jax", "JAX"), ("tensorflow", "TensorFlow")]
)
def test_a_module_for_a_framework_says_what_to_install(name: str, title: str) -> None:
    code = f"import sys; sys.modules[{name!r}] = None; import cropkit.{name}"
    message = python(code, status=1).stderr.splitlines()[-1]
    assert message == f"ImportError: cropkit.{name} needs {title}: pip install {name}"


@pytest.mark.parametrize("isa", ISAS)
def test_isa_is_forced_and_no_other_is_imported(isa: str) -> None:
    code = """
order = []
class Recorder:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("cropkit._kernels._"):
            order.append(name.removeprefix("cropkit._kernels._"))
sys.meta_path.insert(0, Recorder())
call()
json.dump([kernels(), order, cropkit._cpu.backend.isa], sys.stdout)
"""
    loaded, order, chosen = ask(code, CROPKIT_ISA=isa)
    assert loaded == sorted(["checks", "features", "memory", "openmp", isa])
    assert chosen == isa
    # Its module code is compiled for the instruction set: an illegal instruction elsewhere.
    assert order.index("features") < order.index(isa)


def test_every_isa_gives_the_same_bits() -> None:
    code = """
import hashlib
json.dump([hashlib.sha256(call(method=m, dtype=d).tobytes()).hexdigest()
           for m in ("bilinear", "nearest") for d in ("float32", "float64")], sys.stdout)
"""
    digests = {isa: ask(code, CROPKIT_ISA=isa) for isa in ISAS}
    assert all(digest == digests[ISAS[0]] for digest in digests.values()), digests


def test_default_isa_is_the_best() -> None:
    assert ask("call(); json.dump(cropkit._cpu.backend.isa, sys.stdout)") == ISAS[0]
    assert ask("call(); json.dump(cropkit._cpu.backend.isa, sys.stdout)", CROPKIT_ISA="") == ISAS[0]


@pytest.mark.parametrize("wrong", ["sse9", "AVX2", "features", " baseline"])
def test_wrong_isa_fails_and_names_the_variable(wrong: str) -> None:
    message = error_of("call()", CROPKIT_ISA=wrong)
    assert message == (
        f"cropkit.BackendError: backend 'cpu' (built in) cannot run this call: "
        f"CROPKIT_ISA={wrong!r}: expected one that this build and this CPU have: {', '.join(ISAS)}"
    )
    reason = "[info.reason for info in cropkit.list_backends()]"
    assert f"CROPKIT_ISA={wrong!r}" in ask(f"json.dump({reason}[0], sys.stdout)", CROPKIT_ISA=wrong)
    assert ask("json.dump(call(backend='reference').shape, sys.stdout)", CROPKIT_ISA=wrong)


def test_an_isa_that_this_cpu_lacks_is_never_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    from cropkit._kernels import _features

    monkeypatch.setattr(_features, "instruction_sets", lambda: ("baseline",))
    backend = _cpu.CpuBackend("avx512")
    expected = "isa='avx512': expected one that this build and this CPU have: baseline"
    assert backend.unavailable() == expected
    with pytest.raises(ValueError, match=re.escape(expected)):
        backend.kernels  # noqa: B018


# ---- threads -------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["0", "-1", "two", "1.5", " 2", "+2", "\u0662", "9" * 5000])
def test_wrong_num_threads_fails_and_names_the_variable(wrong: str) -> None:
    expected = f"ValueError: CROPKIT_NUM_THREADS={wrong!r}: expected a positive integer"
    assert error_of("call()", CROPKIT_NUM_THREADS=wrong) == expected


def test_num_threads_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROPKIT_NUM_THREADS", "3")
    assert _threads.team_size(5, 10**9) == 5
    assert _threads.team_size(None, 10**9) == 3
    assert _threads.team_size(None, 1) == 3
    monkeypatch.setenv("CROPKIT_NUM_THREADS", "")
    assert _threads.team_size(None, 1) == 1
    assert _threads.team_size(None, 10**9) == _threads.default_team_size()


# ---- show_runtime --------------------------------------------------------------------


def test_show_runtime_says_what_runs() -> None:
    stream = io.StringIO()
    cropkit.show_runtime(stream)
    text = stream.getvalue()
    assert text.startswith(f"cropkit {cropkit.__version__}\nPython ")
    assert f"NumPy {np.__version__}" in text
    assert f"(usable: {', '.join(ISAS)})\n" in text
    assert "\n  cpu (built in) on CPU, exact: usable\n" in text
    assert "\n  reference (built in) on CPU, exact: usable\n" in text


def test_show_runtime_shows_what_is_forced() -> None:
    text = python(
        "", "-m", "cropkit", "info",
        CROPKIT_ISA=ISAS[-1], CROPKIT_NUM_THREADS=3, CROPKIT_BACKEND="reference", GOMP_SPINCOUNT=7,
    ).stdout  # fmt: skip
    assert f"\ninstruction set: {ISAS[-1]} (usable: " in text
    assert "\nthreads: 3 (" in text
    expected = f"environment: CROPKIT_BACKEND=reference, CROPKIT_ISA={ISAS[-1]}, "
    assert f"\n{expected}CROPKIT_NUM_THREADS=3, GOMP_SPINCOUNT=7\n" in text
    assert "environment: nothing set\n" in python("", "-m", "cropkit", "info").stdout


def test_show_runtime_survives_wrong_values() -> None:
    text = python(
        "import cropkit; cropkit.show_runtime()",
        CROPKIT_ISA="sse9", CROPKIT_NUM_THREADS="many", CROPKIT_BACKEND="nobody",
    ).stdout  # fmt: skip
    assert "\ninstruction set: none: CROPKIT_ISA='sse9': expected one " in text
    assert "\nthreads: none: CROPKIT_NUM_THREADS='many': expected a positive integer" in text
    assert "CROPKIT_BACKEND=nobody" in text
    assert "\n  cpu (built in) on CPU, exact: not usable: CROPKIT_ISA='sse9': " in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: command"),
        (["nonsense"], "argument command: invalid choice: 'nonsense'"),
        (["info", "extra"], "unrecognized arguments: extra"),
    ],
)
def test_wrong_arguments_are_explained(arguments: list[str], message: str) -> None:
    child = python("", "-m", "cropkit", *arguments, status=2)
    assert child.stdout == ""
    assert child.stderr.startswith("usage: python -m cropkit ")
    assert message in child.stderr
