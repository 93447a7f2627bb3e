"""The table of tasks: what each environment shows and takes, and the returns that it is measured against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from gato.task import ArraySpec, Kind, References, Task

D4RL = "D4RL reference scores (d4rl/infos.py)"
DQN_ZOO = "DQN Zoo human-normalisation table (dqn_zoo/atari_data.py)"
OURS = "random: 20 episodes of Gymnasium v5 under mujoco 4.0.0"


def _robot(
    short: str,
    gym_name: str,
    state: int,
    action: int,
    references: References,
    *,
    bound: float = 1.0,
    max_steps: int = 1000,
) -> Task:
    squashed = short.replace("-", "")
    levels = ("random", "medium", "expert", "medium-replay", "full-replay", "medium-expert")
    d4rl = [f"{squashed}-{level}-v{version}" for level in levels for version in (0, 1, 2)]
    minari = [f"mujoco/{squashed}/{level}-v0" for level in ("simple", "medium", "expert")]
    jat = {"InvertedPendulum": "mujoco-pendulum"}.get(gym_name, f"mujoco-{squashed}")
    aliases = (f"{gym_name}-v5", f"{gym_name}-v4", short, squashed, jat, *d4rl, *minari)
    return Task(
        name=f"mujoco/{short}",
        env_id=f"{gym_name}-v5",
        family="mujoco",
        observations={"state": ArraySpec(kind=Kind.CONTINUOUS, shape=(state,))},
        action=ArraySpec(kind=Kind.CONTINUOUS, shape=(action,), low=-bound, high=bound),
        references=references,
        max_steps=max_steps,
        aliases=tuple(dict.fromkeys(aliases)),
    )


def _game(short: str, rom: str, references: References) -> Task:
    camel = "".join(part.capitalize() for part in short.split("-"))
    squashed = short.replace("-", "")
    aliases = (f"ALE/{camel}-v5", f"{camel}NoFrameskip-v4", f"{camel}-v4", short, squashed, f"atari-{squashed}")
    minari = tuple(f"atari/{squashed}/{level}-v0" for level in ("expert", "random"))
    return Task(
        name=f"atari/{short}",
        env_id=f"ALE/{camel}-v5",
        family="atari",
        observations={"image": ArraySpec(kind=Kind.IMAGE, shape=(64, 80, 3))},
        action=ArraySpec(kind=Kind.DISCRETE, shape=(), num_values=18),
        references=references,
        max_steps=27_000,  # 108,000 frames
        aliases=tuple(dict.fromkeys((*aliases, *minari))),
        env_kwargs={"rom": rom, "sticky": 0.0, "frameskip": 4, "max_noops": 30},
    )


def _grey(game: Task) -> Task:
    """The same game, shown as JAT and the DQN replay data set show it: 84x84, grey, here in all three channels."""
    short = game.name.removeprefix("atari/")
    return replace(
        game,
        name=f"atari84/{short}",
        observations={"image": ArraySpec(kind=Kind.IMAGE, shape=(84, 84, 3))},
        aliases=(f"{short}-84",),
        env_kwargs={**game.env_kwargs, "grey": True},
    )


_ALL = (
    _robot("hopper", "Hopper", 11, 3, References(random=-20.272305, expert=3234.3, source=D4RL)),
    _robot("halfcheetah", "HalfCheetah", 17, 6, References(random=-280.178953, expert=12135.0, source=D4RL)),
    _robot("walker2d", "Walker2d", 17, 6, References(random=1.629008, expert=4592.3, source=D4RL)),
    _robot("ant", "Ant", 105, 8, References(random=-66.58, expert=3879.7, source=f"{OURS}; expert: {D4RL}")),
    _robot(
        "inverted-pendulum", "InvertedPendulum", 4, 1, bound=3.0,
        references=References(random=5.85, expert=1000.0, source=f"{OURS}; expert: the most there is"),
    ),
    _robot("swimmer", "Swimmer", 8, 2, References(random=6.15, expert=92.1764, source=f"{OURS}; expert: JAT, Swimmer-v4")),
    _robot(
        "reacher", "Reacher", 10, 2, max_steps=50,
        references=References(random=-43.32, expert=-5.6784, source=f"{OURS}; expert: JAT, Reacher-v4"),
    ),
    _game("pong", "pong", References(random=-20.7, human=14.6, expert=21.0, source=f"{DQN_ZOO}; expert: JAT")),
    _game("breakout", "breakout", References(random=1.7, human=30.5, expert=703.0, source=f"{DQN_ZOO}; expert: JAT")),
    _game(
        "space-invaders", "space_invaders",
        References(random=148.0, human=1668.7, expert=29425.3, source=f"{DQN_ZOO}; expert: JAT"),
    ),
    _game("freeway", "freeway", References(random=0.0, human=29.6, expert=33.9, source=f"{DQN_ZOO}; expert: JAT")),
)  # fmt: skip

TASKS: Mapping[str, Task] = {
    task.name: task for task in (*_ALL, *(_grey(task) for task in _ALL if task.family == "atari"))
}
"""By name. `gato.task.find_task` also finds the names that other projects use."""
