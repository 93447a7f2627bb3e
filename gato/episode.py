"""Episodes: the observations, actions and rewards of one episode, and the check that it fits its
task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Shaped

from gato.task import Task
from gato.version import Version

MAX_STEPS = 10_000_000
MAX_KEY_BYTES = 200
ROUNDING = 1e-5
"""Relative distance by which an action may be beyond a bound: the rounding error of 32 bits."""
AGENT = "agent"
"""`source` of the agent's own episodes; a teacher's is `teacher:NAME`, an imported file's
`file:NAME`."""
SUCCESS = "success"
"""The entry of `Episode.info` that says whether the task was solved: yes or no."""
HELD_OUT = "held-out"
"""`source` of records that are evaluated on and never trained on is `held-out:NAME`."""
RELABELLED = "agent:relabelled"
"""`source` of the agent's episodes with a teacher's action at each step as labels."""


def is_by_agent(source: str) -> bool:
    """Whether an episode of this source is the agent's own."""
    return source.partition(":")[0] == AGENT


def is_held_out(source: str) -> bool:
    """Whether an episode of this source is kept for evaluations."""
    return source.partition(":")[0] == HELD_OUT


class BadEpisode(ValueError):
    """An episode that is rejected; the message says what is wrong with it."""


def check_key(key: str) -> None:
    """Raises BadEpisode if `key` has not 1 to 200 bytes."""
    if not key or len(key.encode()) > MAX_KEY_BYTES:
        raise BadEpisode(f"key {key!r} must have 1 to {MAX_KEY_BYTES} bytes")


def return_of(rewards: Float[np.ndarray, " T"]) -> float:
    """The undiscounted sum of rewards, in 64 bits."""
    return float(np.sum(rewards, dtype=np.float64))


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """At step t, `observations[key][t]` was observed, then `actions[t]` taken, which returned
    `rewards[t]`, for t in 0..T-1.

    Episode(key="w0.1.7", task="mujoco/hopper", source="teacher:hopper",
            observations={"state": obs_TO}, actions=act_TA, rewards=rew_T,
            terminated=True, truncated=False, seed=7)

    Raises BadEpisode if the columns have different lengths.
    """

    key: str
    """Identifies the episode permanently: a second delivery under the same key is a no-op."""
    task: str
    source: str
    observations: Mapping[str, Shaped[np.ndarray, "T ..."]]
    actions: Shaped[np.ndarray, "T ..."]
    rewards: Float[np.ndarray, " T"]
    terminated: bool
    truncated: bool
    seed: int
    labels: Shaped[np.ndarray, "T ..."] | None = None
    """The teacher's action at each step, if it is known and was not always taken. The loss is on
    these, in place of the actions (Ross et al. 2011, DAgger; Laskey et al. 2017, DART)."""
    version: Version | None = None
    """The version of the weights that played the whole episode; None for teachers and files."""
    info: Mapping[str, str] = field(default_factory=dict[str, str])
    """Provenance: environment id, package versions, file."""

    def __post_init__(self) -> None:
        check_key(self.key)
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
        return return_of(self.rewards)

    @property
    def success(self) -> bool | None:
        """Whether the task was solved; None if its environment does not say."""
        said = self.info.get(SUCCESS)
        return None if said is None else said == "yes"


def check_episode(episode: Episode, task: Task) -> None:
    """Check that an episode fits its task, for importers and workers. Replay makes the same check
    on what it receives.

    Raises:
        BadEpisode: with the reason; see `check_arrays`.
    """
    if episode.task != task.name:
        raise BadEpisode(f"episode {episode.key} is of task {episode.task!r}, not {task.name!r}")
    check_arrays(
        episode.key,
        task,
        observations=episode.observations,
        actions=episode.actions,
        rewards=episode.rewards,
        labels=episode.labels,
    )


def check_arrays(
    key: str,
    task: Task,
    *,
    observations: Mapping[str, Shaped[np.ndarray, "T ..."]],
    actions: Shaped[np.ndarray, "T ..."],
    rewards: Shaped[np.ndarray, "T ..."],
    labels: Shaped[np.ndarray, "T ..."] | None,
) -> float:
    """Check the arrays of an episode against its task. Code downstream relies on it.

    Names, dtypes, shapes and finite values; no more steps than the task's limit; actions and labels
    within its bounds; rewards and return that can be believed (`Task.return_bound`). Observations
    may lie outside of declared bounds, because environments return such: the tokeniser clips them,
    and `gato.compatibility.coverage` counts it.

    Args:
        key: of the episode, for messages.

    Returns:
        The episode's return.

    Raises:
        BadEpisode: with the reason.
    """
    if set(observations) != set(task.observations):
        raise BadEpisode(
            f"episode {key} observes {sorted(observations)}, task {task.name}"
            f" {sorted(task.observations)}"
        )
    if len(actions) > task.max_steps:
        raise BadEpisode(
            f"episode {key} of {task.name}: {len(actions)} steps, longer than the task's limit of"
            f" {task.max_steps}"
        )
    problems = [
        spec.problem_with(observations[name], name) for name, spec in task.observations.items()
    ]
    problems.append(_action_problem(actions, task, "action"))
    if labels is not None:
        problems.append(_action_problem(labels, task, "label"))
    episode_return = 0.0
    if rewards.dtype != np.float32:
        problems.append(f"rewards have dtype {rewards.dtype}, expected float32")
    elif rewards.ndim != 1:
        problems.append(f"rewards have shape {rewards.shape}, expected one number a step")
    elif not np.isfinite(rewards).all():
        problems.append("rewards are not finite")
    else:
        episode_return = return_of(rewards)
        problems.append(_reward_problem(rewards, episode_return, task))
    for problem in problems:
        if problem:
            raise BadEpisode(f"episode {key} of {task.name}: {problem}")
    return episode_return


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


def _reward_problem(rewards: Float[np.ndarray, " T"], total: float, task: Task) -> str | None:
    step = int(np.argmax(np.abs(rewards)))
    reward = float(rewards[step])
    fix = "Task.max_abs_return sets another bound"
    if abs(reward) > task.reward_bound:
        return (
            f"reward {reward:g} at step {step} cannot be believed, expected at most"
            f" {task.reward_bound:g} ({fix})"
        )
    if abs(total) > task.return_bound:
        return (
            f"return {total:g} cannot be believed, expected at most {task.return_bound:g} ({fix})"
        )
    return None
