"""What only the home of a run on a cluster knows, asked from another machine."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.control.evaluation.report import EvaluationReport
from cluster.control.run_journal import own_summary
from cluster.monitor.progress import Progressing
from cluster.monitor.summary import Summary
from cluster.nodes.connect import connect_ray
from cluster.nodes.members import Member, members
from cluster.runs.config import RunConfig
from cluster.runs.evaluation_log import FOLDER as LOGS
from cluster.runs.evaluation_log import EvaluationLog
from cluster.runs.folder import RunFolder, ShownState, runs_root
from cluster.runs.home import Home

LOOK_EVERY_S = 2.0
"""How often an evaluation there is asked how far it is."""
ANSWER_S = 120.0
"""For the start of a process there, and for reading the run's journal."""


def summary_at_home(name: str, home: Home) -> Summary:
    """The last status of a run that has ended, read at its home.

    Raises:
        ValueError: Its home is not in the cluster.
    """
    connect_ray(home.address, namespace=home.namespace)
    try:
        node = home_node(name, home, home.address)
        read = ray.remote(_read_summary).options(
            num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)
        )
        return ray.get(read.remote(home.path), timeout=ANSWER_S)
    except (RayError, GetTimeoutError) as failure:
        raise ValueError(
            f"the home of run {name}, {home.node} ({home.host}), does not answer"
            f" ({str(failure).splitlines()[0]})"
        ) from failure
    finally:
        ray.shutdown()


def _read_summary(path: str) -> Summary:
    folder = RunFolder(Path(path).parent, Path(path).name)
    return own_summary(folder)


def evaluate_at_home(
    name: str,
    home: Home,
    *,
    tasks: Sequence[str],
    episodes: int,
    video: bool,
    resume: bool,
    progress: Progressing,
) -> EvaluationReport:
    """Play the last checkpoint of a run at its home; see `evaluate_run`. Episodes are kept there,
    and `resume` goes on with them.

    Raises:
        ValueError: Its home is not in the cluster, or it cannot be played there.
    """
    connect_ray(home.address, namespace=home.namespace)
    try:
        node = home_node(name, home, home.address)
        there = NodeAffinitySchedulingStrategy(node.id, soft=False)
        play = ray.remote(_evaluate).options(num_cpus=0, max_retries=0, scheduling_strategy=there)
        count = ray.remote(_num_played).options(num_cpus=0, scheduling_strategy=there)
        playing = play.remote(home.path, list(tasks), episodes, video, resume)
        while not ray.wait([playing], timeout=LOOK_EVERY_S)[0]:
            progress.update(ray.get(count.remote(home.path), timeout=ANSWER_S))
        return ray.get(playing)
    except RayTaskError as failure:
        raise ValueError(f"{home.node}: {failure.cause}") from None
    except RayError as failure:
        raise ValueError(
            f"the home of run {name}, {home.node} ({home.host}), was lost"
            f" ({str(failure).splitlines()[0]})"
        ) from failure
    finally:
        ray.shutdown()


def _evaluate(
    path: str, tasks: list[str], episodes: int, video: bool, resume: bool
) -> EvaluationReport:
    # Here, because it loads torch, which no other command needs.
    from cluster.control.evaluation.evaluate import evaluate_run, last_checkpoint, locate, log_file

    found = locate(str(last_checkpoint(Path(path))))
    with closing(EvaluationLog(log_file(found), found.path, resume=resume)) as log:
        return evaluate_run(found, tasks=tasks, episodes=episodes, video=video, log=log)


def _num_played(path: str) -> int:
    """Episodes in the newest log of a run's evaluations."""
    logs = [*(Path(path) / LOGS).glob("*.jsonl")]
    if not logs:
        return 0
    return len(max(logs, key=lambda file: file.stat().st_mtime).read_bytes().splitlines())


def home_node(name: str, home: Home, address: str) -> Member:
    """The node of the cluster at `address` where a run lives. Raises ValueError if it is gone."""
    for node in members(address):
        if node.is_alive and node.host == home.host:
            return node
    raise ValueError(
        f"run {name} lives on {home.node} ({home.host}), which is not in the cluster at {address};"
        f" let it join again (there: gato cluster join {address}); a run with --storage can go on"
        " elsewhere: --home NODE"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A run as its home knows it."""

    home: Home
    """With the address that the node has now."""
    state: ShownState
    reason: str
    """Why it failed."""
    config: RunConfig


def look(name: str, address: str, nodes: Sequence[Member]) -> Found | None:
    """The run `name` of a cluster, if one of `nodes` is its home.

    Raises:
        ValueError: Several are, or a node does not answer.
    """
    connect_ray(address, namespace="gato-look")
    try:
        answers = [
            ray.remote(_look)
            .options(
                num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)
            )
            .remote(name)
            for node in nodes
        ]
        found = [
            replace(one, home=replace(one.home, address=address, node=node.name, host=node.host))
            for one, node in zip(ray.get(answers, timeout=ANSWER_S), nodes, strict=True)
            if one is not None
        ]
    except (RayError, GetTimeoutError) as failure:
        raise ValueError(
            f"the nodes do not say whether run {name} is there ({str(failure).splitlines()[0]})"
        ) from failure
    finally:
        ray.shutdown()
    if len(found) > 1:
        where = " and ".join(one.home.node for one in found)
        raise ValueError(f"there is a run {name} at {where}; name its home with --home")
    return found[0] if found else None


def _look(name: str) -> Found | None:
    folder = RunFolder(runs_root(), name)
    if not (folder.path / "run.json").is_file():
        return None
    home, info = folder.home, folder.info()
    if home is None or not home.is_here:
        return None
    home = replace(home, path=str(folder.path))
    return Found(home=home, state=info.state, reason=info.reason, config=folder.config())
