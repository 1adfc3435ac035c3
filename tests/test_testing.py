"""The conformance suite: right backends pass it, and each wrong one is caught, by name."""

import re
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import cropkit
from cropkit.testing import BackendTests
from cropkit.testing.__main__ import main
from cropkit.testing._edges import flipped_cases

from .support.backends import BACKENDS
from .support.children import python
from .support.far_device import (
    AllocatesElsewhere,
    CopiesOut,
    FarArray,
    FarBackend,
    IgnoresStreams,
    OverlooksOverlap,
    stream,
    synchronize,
)
from .support.wrong_backends import CHANGES, wrong

ROOT = Path(__file__).parents[1]

# ---- right backends ------------------------------------------------------------------

for _name, _backend in BACKENDS.items():
    _class = "Test" + _name.title().replace("-", "")
    globals()[_class] = type(_class, (BackendTests,), {"backend": _backend})


class TestFarDevice(BackendTests):
    """Arrays that are not NumPy's, and streams."""

    backend = FarBackend()

    def to_device(self, array: NDArray[Any]) -> FarArray:
        assert array.flags.carray
        assert array.dtype.isnative
        return FarArray(array.copy())

    def from_device(self, array: FarArray) -> NDArray[Any]:
        synchronize()
        return array.memory

    def stream(self) -> AbstractContextManager[None]:
        return stream()

    def test_streams_were_used(self) -> None:
        with self.stream():
            array = self.to_device(np.zeros(1))
            array[0] = 1
            assert array.memory[0] == 0
        assert self.from_device(array)[0] == 1


# ---- wrong backends ------------------------------------------------------------------

# Each: the wrong backend, the test that catches it, and what that says.
CAUGHT = [
    ("reciprocal_division", "edges_that_a_reciprocal_division_flips", {},
     "1548 of 1548 boxes have a sample on the wrong side of an edge, 1548 of them just as with "
     "a multiplication by 1 / (count - 1); the first: edges 0 and 1 on "),
    ("ratio_taken_first", "edges_that_a_ratio_taken_first_flips", {}, "just as with (b - a) times"),
    ("fused_position", "edges_that_a_fused_multiply_add_flips", {}, "just as with a fused"),
    ("double_positions", "edges_that_double_precision_flips", {}, "just as with computing in"),
    ("last_row_outside", "the_last_row_and_the_last_column_are_read", {"method": "bilinear"},
     "an image of 1x1 at its own size: 1 of 1 values differ"),
    ("last_sample_pinned", "four_pixels_to_22_samples_lose_the_last", {"method": "nearest"},
     "43 of 484 samples differ"),
    ("middle_in_float32", "the_middle_of_one_sample_is_rounded_as_the_formula_says", {},
     "the middle of one sample: 1 of 1 values differ"),
    ("nearest_to_even", "nearest_rounds_halves_up", {}, "positions half way between pixels"),
    ("fused_lerp", "values_that_a_fused_multiply_add_rounds_otherwise", {"dtype": "float32"},
     "random pixels, 362 of them as a fused multiply-add gives them: 362 of 1136 values differ"),
    ("weights_for_both_taps", "every_dtype_and_depth",
     {"image_dtype": "float32", "method": "bilinear", "dtype": "float32"}, "values differ"),
    ("rows_first", "columns_are_interpolated_before_rows", {}, "columns first: 1 of 1"),
    ("right_tap_always_beside", "infinite_pixels_spoil_samples_that_have_them_as_a_tap",
     {"dtype": "float32"}, "an infinite pixel between two"),
    ("subnormals_kept", "float32_subnormals_are_zeros", {}, "pixels of 1e-40: 3 of 3"),
    ("subnormals_kept", "a_subnormal_negative_edge_counts_as_zero", {"method": "nearest"},
     "edges of -1e-43"),
    ("float64_flushed", "float64_edges_are_not_flushed", {},
     "edges of -1e-43: inside, expected outside in float64"),
    ("rounded_twice", "pixels_are_rounded_to_float32_first",
     {"image_dtype": "int64", "method": "bilinear"},
     f"the int64 pixel {2**62 + 2**38 + 1}, bilinear: 1 of 1 values differ"),
    ("first_image_for_all", "boxes_choose_their_images", {}, "images by index: 5 of 6 values"),
    ("past_the_inside_run", "samples_outside_are_filled_and_those_inside_are_not",
     {"method": "bilinear"}, "boxes that reach outside, or lie there"),
    ("past_the_end_of_out", "nothing_is_written_before_or_behind_a_packed_out",
     {"dtype": "float32"}, "elements around out were written"),
    ("image_strides_ignored", "images_of_any_layout",
     {"image_dtype": "uint8", "method": "nearest"}, "image of layout fortran_order"),
    ("out_strides_ignored", "out_of_any_layout_and_nothing_around_it",
     {"method": "bilinear", "dtype": "float32"},
     "out of layout negative_strides"),
    ("byte_order_ignored", "images_of_any_layout", {"image_dtype": "float32", "method": "nearest"},
     "image of layout byte_swapped"),
    ("out_copied", "out_is_filled_in_place", {"operation": "crop_and_resize"},
     "crop_and_resize: the array given as out: 36000 of 36000 values differ"),
    ("image_cached", "what_was_written_before_a_call_is_read_by_it",
     {"operation": "crop_and_resize"}, "arrays rewritten for call 2"),
    ("image_written_to", "inputs_are_left_alone", {"method": "bilinear"}, "image was written to"),
    ("image_shared_by_threads", "python_threads_may_call_at_once",
     {"operation": "crop_and_resize"}, "from six threads, and alone"),
    ("float16_sums", "narrow_sums_are_not_made_in_a_narrow_dtype", {},
     "4096 float32 ones to float16: 1 of 1 values differ, the first at [0, 0, 0, 0]: 2.048e+03"),
    ("subnormal_sums_kept", "float32_sums_that_are_subnormal_are_zero",
     {"method": "bilinear", "dtype": "float32"},
     "1.5e-38 - 1.2e-38, bilinear in float32"),
    ("updates_lost", "no_addition_is_lost", {"method": "bilinear"}, "200 equal boxes"),
    ("boxes_in_any_order", "twenty_runs_give_the_same_bits", {"operation": "grad_image"},
     "and the first"),
    ("order_by_threads", "any_number_of_threads_gives_the_same_bits",
     {"operation": "grad_image"}, "num_threads=2 and 1"),
    ("added_to_out", "out_is_overwritten_not_added_to", {}, "an out that held nines"),
    ("integers_wrap", "sums_are_cast_once_and_stay_within_integers", {}, "to uint8"),
    ("box_sums_in_float32", "box_sums_are_made_in_float64", {}, "1200 terms"),
    ("box_edges_swapped", "the_box_gradient_is_the_limit_of_differences", {}, "differences give"),
    ("no_box_gradient_of_nearest", "the_box_gradient_of_nearest_is_that_of_bilinear", {},
     "nearest and bilinear: 8 of 8 values differ"),
    ("grads_strides_ignored", "gradients_of_any_layout_and_nothing_around_out", {},
     "grads of layout channels_first"),
    ("unavailable", "it_can_be_used_here", {}, "cannot be used here: no driver"),
    ("all_refused", "something_runs", {},
     "the backend refuses every call:\n  bool bilinear: refused: not today"),
    ("refuses_without_a_sentence", "refuses_looks_at_the_request_alone", {},
     "refuses(crop_and_resize of uint64, bilinear in float32) is True: expected a sentence"),
    ("one_gradient", "it_is_registered_and_well_formed", {}, "has no method grad_boxes"),
]  # fmt: skip


def suite_of(backend: Any, **attributes: Any) -> Any:
    return type("Tests", (BackendTests,), {"backend": backend, **attributes})()


@pytest.mark.parametrize(("name", "test", "arguments", "says"), CAUGHT, ids=lambda x: str(x)[:40])
def test_a_wrong_backend_is_caught(
    name: str, test: str, arguments: dict[str, Any], says: str
) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception), match=re.escape(says)):
        getattr(suite_of(wrong(name)), f"test_{test}")(**arguments)


@pytest.mark.parametrize(
    ("backend", "test", "says"),
    [
        (IgnoresStreams, "what_was_written_before_a_call_is_read_by_it",
         "crop_and_resize: arrays rewritten for call 1: "),
        (AllocatesElsewhere, "results_are_arrays_like_the_image_and_share_nothing_with_it",
         "crop_and_resize on an array of device (2, 0) gave one of device (2, 1)"),
        (CopiesOut, "out_is_filled_in_place", "crop_and_resize: the array given as out: "),
        (OverlooksOverlap, "an_out_that_is_the_image_is_an_error",
         "no error: expected ValueError with the words 'out overlaps image'"),
    ],
)  # fmt: skip
def test_a_wrong_device_is_caught(backend: type[FarBackend], test: str, says: str) -> None:
    tests: Any = type("Tests", (TestFarDevice,), {"backend": backend()})()
    arguments = () if "error" in test else ("crop_and_resize",)
    with pytest.raises((AssertionError, pytest.fail.Exception), match=re.escape(says)):
        getattr(tests, f"test_{test}")(*arguments)


def test_every_wrong_backend_is_caught_by_some_test() -> None:
    assert {row[0] for row in CAUGHT} == set(CHANGES)


def test_a_backend_that_is_not_exact_is_held_to_its_tolerance() -> None:
    rough = wrong("weights_for_both_taps")
    rough.exact = False  # type: ignore[misc]
    values = {"image_dtype": "float32", "method": "bilinear", "dtype": "float32"}
    suite_of(rough, tolerance=1e-6).test_every_dtype_and_depth(**values)
    with pytest.raises(pytest.fail.Exception, match=r"differ, .*; the tolerance is 1e-08 of 12"):
        suite_of(rough, tolerance=1e-8).test_every_dtype_and_depth(**values)


def test_no_tolerance_moves_an_edge() -> None:
    rough = wrong("reciprocal_division")
    rough.exact = False  # type: ignore[misc]
    with pytest.raises(pytest.fail.Exception, match="on the wrong side of an edge"):
        suite_of(rough, tolerance=1.0).test_edges_that_a_reciprocal_division_flips()


def test_the_search_finds_what_no_one_thought_of() -> None:
    with pytest.raises(pytest.fail.Exception, match="values differ"):
        suite_of(wrong("weights_for_both_taps")).test_random_calls_equal_the_reference()


@pytest.mark.parametrize("variant", ["reciprocal", "fused", "ratio first", "double"])
def test_there_are_hundreds_of_edge_cases(variant: Any) -> None:
    cases = flipped_cases(variant)
    assert len(cases) > 400
    if variant == "reciprocal":
        assert any(case.a == 0 and case.b == 1 for case in cases)


# ---- lazy import -----------------------------------------------------------------------


def test_a_backend_whose_module_imports_a_framework_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch.py").write_text("")
    (tmp_path / "eager_backend.py").write_text("import torch")
    (tmp_path / "broken_backend.py").write_text("import nothing_of_this_name")
    monkeypatch.syspath_prepend(tmp_path)

    def check(module: str) -> None:
        tests = suite_of("reference", module=module)
        tests.test_importing_it_loads_no_framework_and_no_driver(lambda name, value: None)

    with pytest.raises(AssertionError, match="importing eager_backend imports torch"):
        check("eager_backend")
    with pytest.raises(AssertionError, match="No module named 'nothing_of_this_name'"):
        check("broken_backend")


# ---- the command -----------------------------------------------------------------------


def report(name: str, expression: str, status: int) -> list[str]:
    """Lines that the command prints of the tests whose names match `expression`."""
    command = ("-m", "cropkit.testing", name, "-k", expression)
    return python("", *command, status=status, PYTHONPATH=ROOT).stdout.splitlines()


def test_the_report_of_a_backend_that_passes() -> None:
    lines = report("reference", "registered or signs or empty", status=0)
    assert lines == [
        f"cropkit {cropkit.__version__}, backend 'reference' (built in) on CPU, exact",
        "",
        "Protocol and lazy import",
        "  it is registered and well formed ....................................... passed",
        "",
        "Values: pixels, dtypes and layouts",
        "  signs of zeros ......................................................... 2 passed",
        "  empty calls ............................................................ passed",
        "",
        "Gradients",
        "  empty gradients ........................................................ passed",
        "",
        "5 passed, 0 failed",
    ]


def test_the_report_of_a_backend_that_fails() -> None:
    lines = report("tests.support.wrong_backends:fused_lerp", "fused or rounded", status=1)
    assert lines[lines.index("Values: pixels, dtypes and layouts") + 1 : -2] == [
        "  values that a fused multiply add rounds otherwise ...................... FAILED, passed",
        "      [float32]",
        "      random pixels, 362 of them as a fused multiply-add gives them: 362 of 1136 values "
        "differ, the first at [0, 0, 0, 1]: -9.38347 (c11622b1), expected -9.383469 (c11622b0)",
        "  pixels are rounded to float32 first .................................... 10 passed",
    ]
    assert lines[-1] == "13 passed, 1 failed"


def test_the_report_of_a_backend_that_refuses() -> None:
    lines = report(
        "tests.support.wrong_backends:all_refused", "something or empty or one_pixel", status=1
    )
    assert (
        "  one pixel images ....................................................... 2 refused"
        in lines
    )
    assert lines[-4:] == ["", "refused: 4", "  not today (4)", "0 passed, 1 failed"]


def test_the_report_of_a_class_of_tests() -> None:
    lines = report("tests.test_testing:TestFarDevice", "streams", status=0)
    assert lines[-4:] == [
        "Tests that the class adds",
        "  streams were used ...................................................... passed",
        "",
        "4 passed, 0 failed",
    ]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nobody", "backend='nobody': no such backend; found: cpu,"),
        ("tests.support.wrong_backends:nothing", "nothing"),
        ("nothing_of_this_name:backend", "No module named 'nothing_of_this_name'"),
        ("tests.support.children:PATIENCE", "it has name None: expected a str"),
        ("pathlib:Path", "pathlib:Path is a class that is not derived from BackendTests"),
        (
            "tests.support.wrong_backends:one_gradient",
            "cannot be used here: it has no method grad_boxes",
        ),
    ],
)
def test_what_cannot_be_tested_has_failed(
    name: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name]) == 1
    *_, reason, blank, total = capsys.readouterr().out.splitlines()
    assert says in reason
    assert (blank, total) == ("", "0 passed, 1 failed")


def test_running_no_test_has_failed() -> None:
    lines = report("reference", "nothing_of_this_name", status=1)
    assert "no test was run, or not all were" in lines[-3]
    assert lines[-2:] == ["", "0 passed, 1 failed"]


@pytest.mark.parametrize("missing", ["pytest", "hypothesis"])
def test_what_is_missing_is_said(missing: str) -> None:
    program = f"""
        import sys
        sys.modules[{missing!r}] = None
        try:
            import cropkit.testing
        except ImportError as error:
            print(error)
    """
    assert python(program).stdout == (
        f"cropkit.testing needs pytest and hypothesis, and {missing} is not installed: "
        "pip install 'cropkit[testing]'\n"
    )


def test_cropkit_itself_needs_neither() -> None:
    program = """
        import sys, cropkit
        print([name for name in ("pytest", "hypothesis", "cropkit.testing") if name in sys.modules])
    """
    assert python(program).stdout == "[]\n"
