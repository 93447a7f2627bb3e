"""How many threads PyTorch and NumPy compute with: one place for every process that acts or
trains."""

from __future__ import annotations

import os
import sys

VARIABLE = "OMP_NUM_THREADS"


def use_threads(num_threads: int | None = None) -> int:
    """Let PyTorch and NumPy's products compute with `num_threads` threads in this process.

    Their own default is a thread for each core. The networks here are small, so most of that
    time is threads waiting for each other; with several processes on a machine it is nearly all of
    it.

    Args:
        num_threads: At least 1. None: what the environment variable OMP_NUM_THREADS says, else 1.
            The variable is then set as well, for what this process imports later and for the
            processes that it starts.

    Returns:
        The number of threads.

    Raises:
        ValueError: `num_threads`, or OMP_NUM_THREADS, is not a number of threads.
    """
    if num_threads is None:
        said = os.environ.get(VARIABLE) or "1"
        # OpenMP accepts a list, one number for each level of nesting
        first = said.split(",")[0].strip()
        if not first.isdecimal():
            raise ValueError(
                f"{VARIABLE} is {said!r}, expected a number of threads; unset it, or export"
                f" {VARIABLE}=1"
            )
        os.environ[VARIABLE] = said
        num_threads = int(first)
    if num_threads < 1:
        raise ValueError(f"{num_threads} threads cannot compute; give 1 or more")
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(num_threads)
    if "numpy" in sys.modules:
        # Here, because an exported policy needs nothing but torch and NumPy.
        from threadpoolctl import threadpool_limits

        threadpool_limits(limits=num_threads, user_api="blas")
    return num_threads
