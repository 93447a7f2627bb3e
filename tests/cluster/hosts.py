"""Machines for tests: network namespaces on one bridge, each with its own address and files."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 120.0


def missing() -> str:
    """Why this machine cannot make namespaces; empty: it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if not all(map(shutil.which, ("ip", "unshare", "mount"))):
        return "needs ip (iproute2), unshare and mount (util-linux)"
    name = f"gt{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode:
        return "this machine makes no network namespaces"
    subprocess.run(["ip", "netns", "del", name], check=False)
    return ""


@dataclass
class Host:
    """A machine. Its files are in `folder`: home, tmp, and work, where commands run."""

    name: str
    address: str
    folder: Path
    hostname: str = ""
    env: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def work(self) -> Path:
        return self.folder / "work"

    def command(self, *words: str) -> list[str]:
        """`words` as they would be typed on this machine."""
        tmp = self.folder / "tmp"
        names = self.folder.parent / "hosts"
        inner = (
            'mkdir -p /tmp/ray && mount --bind "$0" /tmp/ray && mount --bind "$1" /etc/hosts'
            ' && hostname "$2" && shift 2 && exec "$@"'
        )
        return [
            *("ip", "netns", "exec", self.name, "unshare", "--mount", "--uts", "sh", "-c"),
            *(inner, str(tmp), str(names), self.hostname, *words),
        ]

    def environment(self) -> dict[str, str]:
        kept = {
            k: v
            for k, v in os.environ.items()
            if not k.startswith(("RAY_", "GATO_")) and k not in ("HOME", "PYTHONPATH")
        }
        python = str(Path(sys.executable).parent)
        path = f"{python}:{kept.get('PATH', '')}"
        own = {"HOME": str(self.home), "PATH": path, "PYTHONPATH": str(ROOT), "TERM": "dumb"}
        return kept | own | {"COLUMNS": "160", "OMP_NUM_THREADS": "1"} | self.env

    def run(
        self, line: str, *, input: str | None = None, check: bool = True, timeout_s: float = 180.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a line of shell to its end, as a user types it. Fails the test if its status is not
        0 and `check`."""
        done = subprocess.run(
            self.command("bash", "-c", line),
            cwd=self.work,
            env=self.environment(),
            input=input,
            stdin=None if input is not None else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if check and done.returncode:
            pytest.fail(f"{self.name}: {line}\n{done.stdout}\n{done.stderr}")
        return done

    def start(self, words: list[str], log: Path, **env: str) -> subprocess.Popen[bytes]:
        """Start a command in the background, with its output in `log`."""
        with log.open("ab") as out:
            return subprocess.Popen(
                self.command(*words),
                cwd=self.work,
                env=self.environment() | env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )

    def gato(self, line: str, **options: object) -> subprocess.CompletedProcess[str]:
        """Run a `gato` command."""
        return self.run(f"python -P -m cluster.cli.main {line}", **options)  # type: ignore[arg-type]

    def pids(self, pattern: str = "") -> list[int]:
        """Processes of this machine whose command line contains `pattern`."""
        listed = subprocess.run(
            ["ip", "netns", "pids", self.name], capture_output=True, text=True, check=True
        )
        return [pid for pid in map(int, listed.stdout.split()) if pattern in _cmdline(pid)]

    def kill(self, pattern: str = "") -> int:
        """kill -9 of its processes whose command line contains `pattern`; how many there were."""
        found = self.pids(pattern)
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(found)

    def link(self, state: str) -> None:
        """Plug the cable in (`up`) or out (`down`)."""
        subprocess.run(["ip", "link", "set", f"v{self.name}", state], check=True)


def _cmdline(pid: int) -> str:
    try:
        return (
            Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        )
    except OSError:
        return ""


@contextmanager
def hosts(machines: int | Sequence[str], folder: Path) -> Iterator[list[Host]]:
    """So many machines, or one for each of these names, by which they know each other; all their
    processes are killed at the end."""
    names = [f"m{i}" for i in range(machines)] if isinstance(machines, int) else list(machines)
    tag = f"{os.getpid() % 10000:04d}"
    bridge, net = f"gb{tag}", 16 + os.getpid() % 200
    made: list[Host] = []

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    ip("link", "add", bridge, "type", "bridge")
    try:
        ip("link", "set", bridge, "up")
        for index, name in enumerate(names):
            host = Host(f"h{index}x{tag}", f"10.{net}.7.{index + 1}", folder / f"host{index}", name)
            for part in ("home", "tmp", "work"):
                (host.folder / part).mkdir(parents=True)
            (host.folder / "tmp").chmod(0o1777)
            ip("netns", "add", host.name)
            made.append(host)
            ip(
                "link",
                "add",
                f"v{host.name}",
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                host.name,
            )
            ip("link", "set", f"v{host.name}", "master", bridge, "up")
            inside = ("netns", "exec", host.name, "ip")
            ip(*inside, "addr", "add", f"{host.address}/24", "dev", "eth0")
            ip(*inside, "link", "set", "eth0", "up")
            ip(*inside, "link", "set", "lo", "up")
        known = [f"{host.address} {host.hostname}\n" for host in made]
        (folder / "hosts").write_text("127.0.0.1 localhost\n" + "".join(known))
        yield made
    finally:
        for host in made:
            for _ in range(20):
                if not host.kill():
                    break
                time.sleep(0.1)
            # The cable first, at once: with the namespace it would go some time later, and its name
            # would not be free for the next machine of this process.
            subprocess.run(["ip", "link", "del", f"v{host.name}"], check=False, capture_output=True)
            subprocess.run(["ip", "netns", "del", host.name], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", bridge], check=False, capture_output=True)


def wait_for(what: Callable[[], object], timeout_s: float = WAIT_S) -> float:
    """Wait until `what()` is true; how long it took. Fails the test after `timeout_s`."""
    begun_s = time.monotonic()
    while not what():
        if time.monotonic() - begun_s > timeout_s:
            pytest.fail(f"not within {timeout_s:.0f} s: {what}")
        time.sleep(0.2)
    return time.monotonic() - begun_s
