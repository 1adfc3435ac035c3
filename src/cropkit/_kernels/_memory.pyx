"""Memory of large results: a new result takes the memory of a deleted one.

New memory costs more than the crops in it: for 154 MB of crops the operating system zeroes pages
for longer than the kernels here compute (docs/design/memory.md). A program that makes crops in a
loop drops a result as it gets the next, so the memory of the last dropped result is kept.

Other programs do not lack the kept memory: it is marked MADV_FREE, so the system may take its
pages when it needs them, without writing them to disk.
"""

cimport cython
from cpython.buffer cimport PyBuffer_FillInfo

cdef extern from *:
    """
    #include <stddef.h>
    #include <string.h>
    /* On other systems nothing is mapped or kept. CROPKIT_NO_MMAP is for a test of that. */
    #if defined(__linux__) && !defined(CROPKIT_NO_MMAP)
    #define CROPKIT_MAPS 1
    #include <sys/mman.h>
    #else
    #define CROPKIT_MAPS 0
    #endif

    /* A block consists of huge pages of 2 MiB, each one fault instead of 512. */
    #define CROPKIT_PAGE ((size_t)2 << 20)
    #define CROPKIT_KEPT 2
    #define CROPKIT_KEPT_BYTES ((size_t)256 << 20)

    typedef struct { char *data; size_t size; } cropkit_block;

    /* The last blocks given back, the newest first. A thread that finds the list busy maps or
     * unmaps a block instead of waiting: a lock would stay locked in the child of a fork. */
    static cropkit_block cropkit_kept[CROPKIT_KEPT];
    static char cropkit_busy;

    static void cropkit_unmap(cropkit_block block)
    {
    #if CROPKIT_MAPS
        if (block.data)
            munmap(block.data, block.size);
    #endif
    }

    static cropkit_block cropkit_map(size_t size)
    {
        cropkit_block block = {NULL, size};
    #if CROPKIT_MAPS
        char *start = mmap(NULL, size + CROPKIT_PAGE, PROT_READ | PROT_WRITE,
            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (start == MAP_FAILED)
            return block;
        const size_t before = -(size_t)start % CROPKIT_PAGE;
        block.data = start + before;
        if (before)
            munmap(start, before);
        munmap(block.data + size, CROPKIT_PAGE - before);
        madvise(block.data, size, MADV_HUGEPAGE);
    #endif
        return block;
    }

    /* Return a kept block of `size` bytes, or up to twice as many, else a new block; its data is
     * NULL if there is no memory. */
    static cropkit_block cropkit_take(size_t size)
    {
        cropkit_block found = {NULL, 0};
        size = (size + CROPKIT_PAGE - 1) / CROPKIT_PAGE * CROPKIT_PAGE;
        if (!__atomic_test_and_set(&cropkit_busy, __ATOMIC_ACQUIRE)) {
            for (int n = 0; n < CROPKIT_KEPT && !found.data; n++)
                if (cropkit_kept[n].data && cropkit_kept[n].size >= size
                    && cropkit_kept[n].size / 2 <= size) {
                    found = cropkit_kept[n];
                    cropkit_kept[n].data = NULL;
                }
            __atomic_clear(&cropkit_busy, __ATOMIC_RELEASE);
        }
        return found.data ? found : cropkit_map(size);
    }

    /* Keep a block, and of the older ones as many as there is room for. */
    static void cropkit_give_back(cropkit_block block)
    {
    #if CROPKIT_MAPS && defined(MADV_FREE)
        if (block.size <= CROPKIT_KEPT_BYTES && madvise(block.data, block.size, MADV_FREE) == 0
            && !__atomic_test_and_set(&cropkit_busy, __ATOMIC_ACQUIRE)) {
            size_t bytes = 0;
            for (int n = 0; n < CROPKIT_KEPT; n++) {
                const cropkit_block older = cropkit_kept[n];
                if (block.data && bytes + block.size > CROPKIT_KEPT_BYTES) {
                    cropkit_unmap(block);
                    block.data = NULL;
                }
                bytes += block.data ? block.size : 0;
                cropkit_kept[n] = block;
                block = older;
            }
            __atomic_clear(&cropkit_busy, __ATOMIC_RELEASE);
        }
    #endif
        cropkit_unmap(block);
    }
    """
    ctypedef struct cropkit_block:
        char* data
        size_t size
    cropkit_block cropkit_take(size_t) noexcept nogil
    void cropkit_give_back(cropkit_block) noexcept nogil
    bint CROPKIT_MAPS

# Whether this build can make a Block.
AVAILABLE = bool(CROPKIT_MAPS)


@cython.auto_pickle(False)
@cython.final
cdef class Block:
    """Writable bytes, not zeroed, that begin at a multiple of 2 MiB.

    Parameters
    ----------
    size : int
        Number of bytes, at least 1.

    Raises
    ------
    MemoryError
        The system has no memory for the block.
    """

    cdef cropkit_block block
    cdef Py_ssize_t size

    def __cinit__(self, Py_ssize_t size):
        if size < 1:
            raise ValueError(f"size={size}: expected at least 1")
        self.size = size
        self.block = cropkit_take(<size_t>size)
        if self.block.data == NULL:
            raise MemoryError(f"the system has no {size} bytes of memory")

    def __dealloc__(self):
        if self.block.data != NULL:
            cropkit_give_back(self.block)

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, self.block.data, self.size, False, flags)

    def __releasebuffer__(self, Py_buffer* view):
        pass
