"""Episodes: what was seen, done and paid in one play, checked at the door and kept whole."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Shaped

from gato.task import Task
from gato.version import Version

MAGIC = b"GEP1"
MAX_STEPS = 10_000_000
MAX_HEADER_BYTES = 2 << 20
"""Of the JSON before an episode's columns, which may take 30 times its bytes of memory while it is
read."""
ROUNDING = 1e-5
"""By how much of its size an action may be beyond a bound: what 32 bits round off."""
AGENT = "agent"
"""`source` of episodes that Gato played itself; a teacher's is `teacher:NAME`, an imported file's
`file:NAME`."""
RELABELLED = "agent:relabelled"
"""`source` of episodes that Gato played while a teacher said, at each step, what it would have
done."""


def is_by_agent(source: str) -> bool:
    """Whether Gato itself played it."""
    return source.partition(":")[0] == AGENT


class BadEpisode(ValueError):
    """An episode that is refused at the door; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """`observations[key][t]` was seen, then `actions[t]` taken, which paid `rewards[t]`, for t in
    0..T-1.

    Episode(key="w0.1.7", task="mujoco/hopper", source="teacher:hopper", observations={"state":
    obs_TO},
            actions=act_TA, rewards=rew_T, terminated=True, truncated=False, seed=7)
    """

    key: str
    """Names the episode once and for all: a second delivery under the same key is a no-op."""
    task: str
    source: str
    observations: Mapping[str, Shaped[np.ndarray, "T ..."]]
    actions: Shaped[np.ndarray, "T ..."]
    rewards: Float[np.ndarray, " T"]
    terminated: bool
    truncated: bool
    seed: int
    labels: Shaped[np.ndarray, "T ..."] | None = None
    """What a teacher would have done at each step, where that is known and was not always done: the
    loss is on these, in place of the actions (Ross et al. 2011, DAgger; Laskey et al. 2017,
    DART)."""
    version: Version | None = None
    """The one version of the weights that played it; None for teachers and files."""
    info: Mapping[str, str] = field(default_factory=dict[str, str])
    """Where it came from: environment id, package versions, file."""

    def __post_init__(self) -> None:
        if not self.key or len(self.key.encode()) > 200:
            raise BadEpisode(f"key {self.key!r} must have 1 to 200 bytes")
        steps = len(self.actions)
        if not 1 <= steps <= MAX_STEPS:
            raise BadEpisode(f"episode {self.key} has {steps} steps, expected 1 to {MAX_STEPS}")
        lengths = {name: len(values) for name, values in self.observations.items()} | {
            "rewards": len(self.rewards)
        }
        if self.labels is not None:
            lengths["labels"] = len(self.labels)
        wrong = {name: length for name, length in lengths.items() if length != steps}
        if wrong:
            raise BadEpisode(f"episode {self.key} has {steps} actions but {wrong}")

    @property
    def num_steps(self) -> int:
        return len(self.actions)

    @property
    def episode_return(self) -> float:
        """The undiscounted sum of rewards."""
        return float(np.sum(self.rewards, dtype=np.float64))


def check_episode(episode: Episode, task: Task) -> None:
    """The ingest check, of importers, workers and replay alike: BadEpisode, with the reason, if the
    episode contradicts the task.

    Names, dtypes, shapes and finite values; no more steps than the task's limit; actions and labels
    within its bounds; rewards and return that can be believed (`Task.return_bound`). After it
    nothing is checked again. Observations may lie outside of declared bounds, as environments show
    them there: the tokeniser clips them, and `gato.compatibility.coverage` counts it.
    """
    if episode.task != task.name:
        raise BadEpisode(f"episode {episode.key} is of task {episode.task!r}, not {task.name!r}")
    if set(episode.observations) != set(task.observations):
        raise BadEpisode(
            f"episode {episode.key} observes {sorted(episode.observations)}, task {task.name}"
            f" {sorted(task.observations)}"
        )
    if episode.num_steps > task.max_steps:
        raise BadEpisode(
            f"episode {episode.key} of {task.name}: {episode.num_steps} steps, longer than the"
            f" task's limit of {task.max_steps}"
        )
    problems = [
        spec.problem_with(episode.observations[name], name)
        for name, spec in task.observations.items()
    ]
    problems.append(_action_problem(episode.actions, task, "action"))
    if episode.labels is not None:
        problems.append(_action_problem(episode.labels, task, "label"))
    if episode.rewards.dtype != np.float32:
        problems.append(f"rewards have dtype {episode.rewards.dtype}, expected float32")
    elif episode.rewards.ndim != 1:
        problems.append(f"rewards have shape {episode.rewards.shape}, expected one number a step")
    elif not np.isfinite(episode.rewards).all():
        problems.append("rewards are not finite")
    else:
        problems.append(_reward_problem(episode, task))
    for problem in problems:
        if problem:
            raise BadEpisode(f"episode {episode.key} of {task.name}: {problem}")


def _action_problem(actions: Shaped[np.ndarray, "T ..."], task: Task, name: str) -> str | None:
    spec = task.action
    problem = spec.problem_with(actions, name)
    if problem or spec.bounds is None:
        return problem
    low, high = (np.broadcast_to(bound, (spec.size,)).reshape(spec.shape) for bound in spec.bounds)
    slack = ROUNDING * np.maximum(np.abs(low), np.abs(high))
    outside = (actions < low - slack) | (actions > high + slack)
    if not outside.any():
        return None
    step, *element = np.argwhere(outside)[0].tolist()
    place = tuple(element)
    return (
        f"{name} {actions[(step, *place)]:g} at step {step} is outside of its bounds"
        f" [{low[place]:g}, {high[place]:g}]"
    )


def _reward_problem(episode: Episode, task: Task) -> str | None:
    step = int(np.argmax(np.abs(episode.rewards)))
    reward, total = float(episode.rewards[step]), episode.episode_return
    mend = "Task.max_abs_return sets another bound"
    if abs(reward) > task.reward_bound:
        return (
            f"reward {reward:g} at step {step} cannot be believed, at most {task.reward_bound:g} is"
            f" ({mend})"
        )
    if abs(total) > task.return_bound:
        return f"return {total:g} cannot be believed, at most {task.return_bound:g} is ({mend})"
    return None


def episode_to_bytes(episode: Episode) -> bytes:
    """The episode as one record: magic, CRC-32, header length, JSON header, raw columns (little
    endian, row-major)."""
    columns = {f"o/{name}": values for name, values in sorted(episode.observations.items())}
    columns |= {"actions": episode.actions, "rewards": episode.rewards}
    if episode.labels is not None:
        columns["labels"] = episode.labels
    header = json.dumps(
        {
            "key": episode.key,
            "task": episode.task,
            "source": episode.source,
            "terminated": episode.terminated,
            "truncated": episode.truncated,
            "seed": episode.seed,
            "version": episode.version,
            "info": dict(episode.info),
            "columns": [
                [name, values.dtype.str, list(values.shape)] for name, values in columns.items()
            ],
        }
    ).encode()
    body = (
        len(header).to_bytes(4, "little")
        + header
        + b"".join(np.ascontiguousarray(v).tobytes() for v in columns.values())
    )
    return MAGIC + zlib.crc32(body).to_bytes(4, "little") + body


def episode_from_bytes(record: bytes) -> Episode:
    """The episode of a record of `episode_to_bytes`; its arrays are read-only views. BadEpisode
    where it is damaged."""
    if record[:4] != MAGIC:
        raise BadEpisode(f"not an episode record: begins with {record[:4]!r}, expected {MAGIC!r}")
    if zlib.crc32(memoryview(record)[8:]) != int.from_bytes(record[4:8], "little"):
        raise BadEpisode("damaged episode record: its checksum does not match its bytes")
    try:
        return _decode(record)
    except BadEpisode:
        raise
    except (
        LookupError,
        TypeError,
        ValueError,
        ArithmeticError,
        AttributeError,
        RecursionError,
    ) as problem:
        raise BadEpisode(
            f"not an episode record: {type(problem).__name__} in its header ({problem})"
        ) from problem


def check_header_bytes(header_bytes: int) -> int:
    """The length that a record claims for its header. BadEpisode where that is more than any
    needs."""
    if header_bytes > MAX_HEADER_BYTES:
        raise BadEpisode(
            f"a header of {header_bytes:,} bytes is too large, at most {MAX_HEADER_BYTES:,} are"
            " taken"
        )
    return header_bytes


def _decode(record: bytes) -> Episode:
    """What a record says, whoever wrote it: a checksum only proves that it came as it was sent."""
    start = 12 + check_header_bytes(int.from_bytes(record[8:12], "little"))
    header = json.loads(record[12:start])
    if not all(isinstance(header[name], str) for name in ("key", "task", "source")):
        raise TypeError("key, task and source must be texts")
    if not all(isinstance(text, str) for pair in header["info"].items() for text in pair):
        raise TypeError("info must hold texts")
    columns: dict[str, np.ndarray] = {}
    for name, dtype, shape in header["columns"]:
        if min(shape) < 0:
            raise ValueError(f"{name} has shape {shape}")
        count = int(np.prod(shape, dtype=np.int64))
        columns[name] = np.frombuffer(
            record, dtype=np.dtype(dtype), count=count, offset=start
        ).reshape(shape)
        start += columns[name].nbytes
    if start != len(record):
        raise ValueError(f"{len(record) - start} bytes follow the last column")
    return Episode(
        key=header["key"],
        task=header["task"],
        source=header["source"],
        observations={
            name[2:]: values for name, values in columns.items() if name.startswith("o/")
        },
        actions=columns["actions"],
        rewards=columns["rewards"],
        labels=columns.get("labels"),
        terminated=bool(header["terminated"]),
        truncated=bool(header["truncated"]),
        seed=int(header["seed"]),
        version=Version(*map(int, header["version"])) if header["version"] else None,
        info=header["info"],
    )
