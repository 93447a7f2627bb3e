"""Processes that were noted earlier."""

import os
import signal
import subprocess
import sys

from gato.processes import ENDED, born, session_members

BEGIN_AND_END = """
import os, subprocess, sys, time
os.setsid()
sleep = "import time; time.sleep(60)"
child = subprocess.Popen([sys.executable, "-c", sleep])
print(child.pid, flush=True)
"""


def test_the_members_of_a_session_are_found_when_their_leader_has_ended() -> None:
    leader = subprocess.Popen([sys.executable, "-c", BEGIN_AND_END], stdout=subprocess.PIPE)
    assert leader.stdout is not None
    birth = born(leader.pid)
    child = int(leader.stdout.readline())
    os.waitid(os.P_PID, leader.pid, os.WEXITED | os.WNOWAIT)
    try:
        assert set(session_members(leader.pid, birth)) == {child}  # not collected yet
        leader.wait()
        assert set(session_members(leader.pid, birth)) == {child}
        assert session_members(leader.pid, "another-boot/1") == {}
        assert session_members(leader.pid, None) == {}
    finally:
        os.kill(child, signal.SIGKILL)


def test_the_session_of_another_process_with_the_number_is_left_alone() -> None:
    own = os.getsid(0)
    assert session_members(own, "long-ago/1") == {}


def test_a_member_that_has_ended_is_nobodys_to_kill() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""], start_new_session=True)
    birth = born(ended.pid)
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)  # it stays, not collected
    try:
        assert born(ended.pid) == ENDED
        assert session_members(ended.pid, birth) == {}
        assert session_members(ended.pid, "long-ago/1") == {}
    finally:
        ended.wait()
