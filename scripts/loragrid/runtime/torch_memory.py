"""Keeps the memory that torch frees on a CPU for the next tensor.

glibc hands a large freed block back to the system at once, and the next block of that size is new pages, which the
kernel fills with zeros when they are first touched. SmolLM2's held-out loss spent an eighth of its time on that.
"""

import ctypes

# Parameters of glibc's mallopt(3).
TRIM_THRESHOLD, MMAP_MAX = -1, -4
LARGEST_INT = 2**31 - 1


def set_up_torch(threads: int) -> None:
    """Use this number of threads and, without a GPU, keep freed memory for tensors until `return_freed_memory`."""
    import torch

    torch.set_num_threads(threads)
    if torch.cuda.is_available():
        return  # it would also keep the main memory that a base took on its way to the GPU
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # musl and macOS have no such function
        libc.mallopt(MMAP_MAX, 0)
        libc.mallopt(TRIM_THRESHOLD, LARGEST_INT)


def return_freed_memory() -> None:
    """Give the system what this process has freed, for example between the jobs of a worker."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
