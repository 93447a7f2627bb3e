"""Memory of arrays that were dropped stays with the process, for the next ones."""

import numpy as np

LARGEST_BYTES = 31 << 20
"""Just below glibc's largest block that is not a mapping of its own."""


def keep_freed_memory() -> None:
    """Keep up to 64 MiB of freed memory for each thread, where the C library is glibc.

    It returns what is free at the end of a thread's heap to the operating system, if that is more
    than twice the largest block that was ever freed. Batches have no larger ones before them in a
    process of its own, so each was made in new pages, which took longer than drawing it. One large
    block that is freed, and was never written, raises the bound.
    """
    np.empty(LARGEST_BYTES, np.uint8)
