"""Memory of dropped arrays is used again, so that no batch is made in new pages."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys, threading
from resource import RUSAGE_THREAD, getrusage
import numpy as np
from replay.sampling.memory import keep_freed_memory

def work():
    for turn in range(20):
        if turn == 10:
            before = getrusage(RUSAGE_THREAD).ru_minflt
        arrays = [np.ones(2 << 20, np.uint8) for _ in range(4)]
        del arrays
    print((getrusage(RUSAGE_THREAD).ru_minflt - before) // 10)

if sys.argv[1] == "keep":
    keep_freed_memory()
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts page faults as Linux does")
def test_arrays_made_in_a_thread_need_no_new_pages_once_others_were_dropped() -> None:
    faults = int(subprocess.check_output([sys.executable, "-c", PROGRAM, "keep"], text=True))
    assert faults < 100  # of 2,048 pages
