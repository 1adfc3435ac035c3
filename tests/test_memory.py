"""Memory of large results: given back by one, taken by the next, and never shared."""

import gc
import os
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import cropkit
from cropkit._kernels._memory import Block
from tests.support.children import python

IMAGE = np.arange(8 * 8 * 4, dtype=np.float32).reshape(1, 8, 8, 4)
PAGE = 2 << 20
KEPT = 2  # blocks, see _memory.pyx


def crops(side: int = 600, value: float = 0.0) -> NDArray[Any]:
    """Return a result of 16 * side**2 bytes, 5.76 MB by default; `value` if it is not 0."""
    boxes = [[2.0, 2.0, 3.0, 3.0]] if value else [[0.0, 0.0, 1.0, 1.0]]
    result: NDArray[Any] = cropkit.crop_and_resize(
        IMAGE, boxes, [0], (side, side), extrapolation_value=value
    )
    return result


@pytest.fixture(autouse=True)
def nothing_kept() -> None:
    """Fill what is kept with blocks that no result of these tests fits in."""
    gc.collect()
    blocks = [Block(64 * PAGE) for _ in range(KEPT)]
    del blocks


def address(array: NDArray[Any]) -> int:
    return array.ctypes.data


def lazily_free() -> int:
    """Bytes of this process that the system may take back whenever it needs them."""
    found = re.search(r"^LazyFree:\s+(\d+) kB", Path("/proc/self/smaps_rollup").read_text(), re.M)
    assert found is not None
    return int(found[1]) << 10


def test_the_next_result_takes_the_memory_of_one_that_is_gone() -> None:
    first = crops()
    assert address(first) % PAGE == 0
    assert first.flags.writeable
    place = address(first)
    del first
    assert address(crops()) == place


def test_a_result_that_is_alive_shares_its_memory_with_none() -> None:
    results = [crops(value=float(n)) for n in range(1, 6)]
    assert len({address(result) for result in results}) == 5
    for n, result in enumerate(results, 1):
        assert (result == n).all()


def test_a_view_keeps_the_memory() -> None:
    view = crops(value=7.0)[0, 100:110, ::2]
    others = [crops(value=1.0) for _ in range(3)]
    assert (view == 7).all()
    assert (others[0] == 1).all()


def test_small_results_are_numpys_own() -> None:
    assert crops(32).flags.owndata


def test_a_block_of_more_than_twice_the_size_is_left_alone() -> None:
    large = crops(1200)
    place = address(large)
    del large
    small = crops(600)
    assert address(small) != place
    assert address(crops(1200)) == place


def test_gradients_take_it_too() -> None:
    place = address(crops())
    gradient = cropkit.crop_and_resize_grad_image(
        np.ones((1, 2, 2, 4)), [[0, 0, 1, 1]], [0], (1, 600, 600, 4)
    )
    assert address(gradient) == place
    assert gradient.sum() == 16
    assert np.count_nonzero(gradient) == 16  # nothing is left of what the memory held


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's smaps")
def test_what_is_kept_can_be_taken_by_the_system() -> None:
    before = lazily_free()
    result = crops()
    size = result.nbytes
    assert lazily_free() <= before + PAGE
    del result
    assert lazily_free() >= before + size - PAGE


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's smaps")
def test_two_blocks_are_kept_and_no_more_memory_than_is_said() -> None:
    before = lazily_free()
    results = [crops() for _ in range(4)]
    size = results[0].nbytes
    del results
    assert before + 2 * size - 2 * PAGE <= lazily_free() < before + 3 * size
    small = lazily_free()
    block = Block((256 << 20) + 1)
    np.asarray(memoryview(block)[: 4 * PAGE])[...] = 1
    del block
    assert lazily_free() == small
    large = [Block(160 << 20), Block(160 << 20)]
    for block in large:
        np.asarray(memoryview(block)[: 4 * PAGE])[...] = 1
    del block, large
    # One of them, with one of the small ones before it.
    assert 4 * PAGE <= lazily_free() <= 4 * PAGE + size + PAGE


def test_a_loop_takes_turns_between_two_blocks() -> None:
    result, places = crops(), []
    for _ in range(6):
        result = crops()  # made before the last one is dropped
        places.append(address(result))
    assert places[0] == places[2] == places[4]
    assert places[1] == places[3] == places[5]
    assert len(set(places)) == 2


def test_the_documentation_of_out_says_whose_memory_a_large_result_has() -> None:
    for function in (
        cropkit.crop_and_resize,
        cropkit.crop_and_resize_grad_image,
        cropkit.crop_and_resize_grad_boxes,
    ):
        text = " ".join(str(function.__doc__).split())
        for part in ("4 MiB", "256 MiB", "CROPKIT_REUSE_MEMORY", "resize"):
            assert part in text
    with pytest.raises(ValueError, match="does not own its data"):
        crops().resize((1,))
    out = np.empty((1, 600, 600, 4), np.float32)
    cropkit.crop_and_resize(IMAGE, [[0, 0, 1, 1]], [0], (600, 600), out=out)
    out.resize((1,), refcheck=False)


def test_threads_never_get_the_same_memory() -> None:
    wrong: list[float] = []

    def work(value: float) -> None:
        for _ in range(40):
            result = crops(value=value)
            if not (result == value).all():
                wrong.append(value)

    threads = [threading.Thread(target=work, args=(float(n),)) for n in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# In a process of its own: JAX, once it has run, warns of every fork.
FORK = """
import os
import numpy as np
import cropkit

def crops(value):
    return cropkit.crop_and_resize(
        np.zeros((1, 8, 8, 4)), [[2, 2, 3, 3]], [0], (600, 600), extrapolation_value=value)

kept = crops(3)
child = os.fork()
if child == 0:
    result = crops(5)
    kept[...] = 4
    os._exit(0 if (result == 5).all() else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert (kept == 3).all()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_child_has_memory_of_its_own() -> None:
    python(FORK)


def test_it_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROPKIT_REUSE_MEMORY", "0")
    assert crops().flags.owndata
    monkeypatch.setenv("CROPKIT_REUSE_MEMORY", "1")
    assert not crops().flags.owndata
    monkeypatch.setenv("CROPKIT_REUSE_MEMORY", "no")
    with pytest.raises(ValueError, match="CROPKIT_REUSE_MEMORY='no': expected 0 or 1"):
        crops()


def test_blocks_of_impossible_sizes() -> None:
    with pytest.raises(ValueError, match="size=0: expected at least 1"):
        Block(0)
    with pytest.raises(MemoryError, match="the system has no 9223372036854775807 bytes"):
        Block(2**63 - 1)
