"""The MuJoCo robots of Gymnasium, v5 and v4 apart, and their published or measured returns."""

from __future__ import annotations

from gato.array_spec import ArraySpec, Kind
from gato.task import References, Task

D4RL = "D4RL reference scores (d4rl/infos.py)"
JAT = "JAT data set, Gymnasium v4"
OURS = "random: 20 episodes of Gymnasium v5 under mujoco 4.0.0"
LEVELS = ("random", "medium", "expert", "medium-replay", "full-replay", "medium-expert")


def _jat(random: float, expert: float) -> References:
    return References(random=random, expert=expert, source=JAT)


def _ours(random: float, expert: float) -> References:
    return References(
        random=random,
        expert=expert,
        source=f"{OURS}; expert: {JAT}, where the robot is nearly the same",
    )


def _robots(
    short: str,
    gym_name: str,
    *,
    state: int,
    action: int,
    v5: References,
    v4: References | None,
    jat: str,
    state_v4: int | None = None,
    bound: float = 1.0,
    max_steps: int = 1000,
) -> list[Task]:
    """The robot of v5, and that of v4 if it still runs: friction, contacts and rewards differ.

    Args:
        state: Size of the observation; `state_v4` that of v4, if it differs.
        v4: References of v4; None if it does not run with today's mujoco.
        jat: The name in JAT's data, which are of v4.
    """
    squashed = short.replace("-", "")
    d4rl = [f"{squashed}-{level}-v{version}" for level in LEVELS for version in (0, 1, 2)]
    minari = [f"mujoco/{squashed}/{level}-v0" for level in ("simple", "medium", "expert")]
    # These ran on mujoco-py; `actors.tasks.resolve.note_on` tells the user.
    old = [f"{gym_name}-v3", f"{gym_name}-v2"]
    names_of = {
        5: (f"{gym_name}-v5", *old, short, squashed, *d4rl, *minari),
        4: (f"{gym_name}-v4", f"mujoco-{jat}"),
    }
    return [
        Task(
            name=f"mujoco/{short}" if version == 5 else f"mujoco-v4/{short}",
            env_id=f"{gym_name}-v{version}",
            family="mujoco",
            observations={
                "state": ArraySpec(
                    kind=Kind.CONTINUOUS,
                    shape=(state if version == 5 or state_v4 is None else state_v4,),
                )
            },
            action=ArraySpec(kind=Kind.CONTINUOUS, shape=(action,), low=-bound, high=bound),
            references=references,
            max_steps=max_steps,
            aliases=tuple(dict.fromkeys(names_of[version])),
        )
        for version, references in ((5, v5), (4, v4))
        if references is not None
    ]


ROBOTS: tuple[Task, ...] = (
    *_robots(
        "hopper",
        "Hopper",
        state=11,
        action=3,
        jat="hopper",
        v5=References(random=-20.272305, expert=3234.3, source=D4RL),
        v4=_jat(18.3802, 1858.7284),
    ),
    *_robots(
        "halfcheetah",
        "HalfCheetah",
        state=17,
        action=6,
        jat="halfcheetah",
        v5=References(random=-280.178953, expert=12135.0, source=D4RL),
        v4=_jat(-284.9692, 7437.7716),
    ),
    *_robots(
        "walker2d",
        "Walker2d",
        state=17,
        action=6,
        jat="walker",
        v5=References(random=1.629008, expert=4592.3, source=D4RL),
        v4=_jat(2.6813, 4631.2168),
    ),
    *_robots(
        "ant",
        "Ant",
        state=105,
        state_v4=27,
        action=8,
        jat="ant",
        # D4RL's random -325.6 is of Ant-v2, where contacts cost nothing.
        v5=References(random=-66.58, expert=3879.7, source=f"{OURS}; expert: {D4RL}"),
        v4=_jat(-59.9454, 5846.4161),
    ),
    *_robots(
        "inverted-pendulum",
        "InvertedPendulum",
        state=4,
        action=1,
        bound=3.0,
        jat="pendulum",
        v5=References(random=5.85, expert=1000.0, source=f"{OURS}; expert: the most there is"),
        v4=_jat(6.0702, 475.3978),
    ),
    *_robots(
        "inverted-double-pendulum",
        "InvertedDoublePendulum",
        state=9,
        state_v4=11,
        action=1,
        jat="doublependulum",
        v5=_ours(44.62, 9338.6933),
        v4=_jat(57.4551, 9338.6933),
    ),
    *_robots(
        "swimmer",
        "Swimmer",
        state=8,
        action=2,
        jat="swimmer",
        v5=_ours(6.15, 92.1764),
        v4=_jat(0.8050, 92.1764),
    ),
    *_robots(
        "reacher",
        "Reacher",
        state=10,
        state_v4=11,
        action=2,
        max_steps=50,
        jat="reacher",
        v5=_ours(-43.32, -5.6784),
        v4=_jat(-43.0020, -5.6784),
    ),
    # Gymnasium's Pusher-v4 does not run with mujoco 3 and later.
    *_robots(
        "pusher",
        "Pusher",
        state=23,
        action=7,
        bound=2.0,
        max_steps=100,
        jat="pusher",
        v5=_ours(-146.81, -25.2110),
        v4=None,
    ),
    *_robots(
        "humanoid",
        "Humanoid",
        state=348,
        state_v4=376,
        action=17,
        bound=0.4,
        jat="humanoid",
        v5=_ours(112.83, 6281.0180),
        v4=_jat(122.0247, 6281.0180),
    ),
    *_robots(
        "humanoid-standup",
        "HumanoidStandup",
        state=348,
        state_v4=376,
        action=17,
        bound=0.4,
        jat="standup",
        v5=_ours(33087.03, 273574.1569),
        v4=_jat(33135.7521, 273574.1569),
    ),
)
