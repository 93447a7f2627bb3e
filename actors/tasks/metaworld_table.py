"""Meta-World's 50 tasks, with the returns of random play and of its scripted experts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from gato.array_spec import ArraySpec, Kind
from gato.task import References, Task

ENV_ID = "actors.envs.adapters.metaworld_env:gato/MetaWorld-v0"
MOST_RETURN = 5000.0
"""A step pays at most 10."""
REACH_M = 1.25
"""All places are within so many metres of the origin."""
EXPERT_EPISODES, RANDOM_EPISODES, FIRST_SEED = 10, 5, 20_000
SOURCE = (
    f"metaworld 3.0.0 under mujoco 4.0.0: {RANDOM_EPISODES} episodes of random play,"
    f" {EXPERT_EPISODES} of its scripted expert, from seed {FIRST_SEED} on"
)

MEASURED: Mapping[str, tuple[float, float, float, float, int]] = {
    "assembly": (223.33, 4318.64, 33.36, 4259.81, 10),
    "basketball": (10.34, 4243.73, 61.79, 4093.18, 10),
    "bin-picking": (11.67, 3692.81, 572.73, 2132.25, 10),
    "box-close": (299.24, 2353.15, 1268.59, 1029.02, 10),
    "button-press-topdown": (190.06, 3667.76, 253.62, 3265.57, 10),
    "button-press-topdown-wall": (190.06, 0.00, 0.00, 0.00, 10),
    "button-press": (191.69, 433.42, 12.11, 417.41, 10),
    "button-press-wall": (59.93, 4210.36, 19.71, 4181.62, 10),
    "coffee-button": (173.60, 498.04, 14.43, 477.45, 10),
    "coffee-pull": (21.99, 4260.59, 21.70, 4233.10, 10),
    "coffee-push": (24.98, 4384.27, 171.24, 3878.22, 10),
    "dial-turn": (138.73, 4068.10, 233.26, 3819.99, 10),
    "disassemble": (210.17, 3513.15, 1203.66, 0.00, 9),
    "door-close": (35.76, 4453.12, 47.81, 4404.10, 10),
    "door-lock": (522.18, 3411.58, 207.39, 2881.37, 10),
    "door-open": (241.11, 4185.25, 759.67, 1921.76, 9),
    "door-unlock": (488.19, 4380.15, 119.89, 4025.03, 10),
    "hand-insert": (27.54, 4025.66, 842.71, 1944.65, 9),
    "drawer-close": (690.79, 4238.05, 20.95, 4221.22, 10),
    "drawer-open": (757.39, 4024.77, 33.28, 3988.35, 10),
    "faucet-open": (1288.36, 4114.69, 116.44, 3813.98, 10),
    "faucet-close": (1296.34, 3829.46, 300.69, 3447.48, 10),
    "hammer": (478.47, 2882.25, 619.61, 1863.60, 10),
    "handle-press-side": (354.02, 978.22, 57.48, 927.47, 10),
    "handle-press": (913.25, 1271.32, 137.72, 866.52, 10),
    "handle-pull-side": (12.99, 3092.24, 166.34, 2790.56, 10),
    "handle-pull": (26.92, 3909.83, 91.53, 3804.30, 10),
    "lever-pull": (186.11, 749.86, 216.12, 237.45, 10),
    "peg-insert-side": (7.40, 3696.78, 1304.27, 258.63, 9),
    "pick-place-wall": (0.00, 4040.77, 1079.26, 807.53, 10),
    "pick-out-of-hole": (7.26, 3926.21, 45.83, 3859.76, 10),
    "reach": (553.90, 4845.53, 13.23, 4824.66, 10),
    "push-back": (5.60, 294.85, 236.99, 90.16, 10),
    "push": (24.29, 4363.05, 408.68, 3241.50, 10),
    "pick-place": (6.68, 4532.13, 22.03, 4485.07, 10),
    "plate-slide": (336.18, 4613.62, 13.01, 4590.89, 10),
    "plate-slide-side": (150.73, 3691.03, 508.53, 3137.90, 10),
    "plate-slide-back": (158.21, 1141.34, 62.67, 1011.73, 10),
    "plate-slide-back-side": (240.74, 1190.12, 531.63, 892.93, 10),
    "peg-unplug-side": (19.42, 1228.51, 169.56, 831.83, 10),
    "soccer": (23.89, 2628.62, 926.79, 893.44, 10),
    "stick-push": (13.65, 840.11, 20.15, 812.77, 10),
    "stick-pull": (9.33, 950.41, 632.17, 319.50, 9),
    "push-wall": (27.08, 4432.92, 52.19, 4335.08, 10),
    "reach-wall": (579.55, 4801.23, 44.32, 4729.84, 10),
    "shelf-place": (0.00, 2506.76, 832.61, 78.39, 9),
    "sweep-into": (34.44, 2014.66, 1645.10, 348.72, 9),
    "sweep": (29.99, 4408.51, 32.26, 4329.88, 10),
    "window-open": (237.91, 2054.24, 412.00, 1329.37, 10),
    "window-close": (255.39, 3620.26, 112.08, 3440.70, 10),
}
"""By task: mean return of random play; mean, standard deviation and least of the expert's returns;
in how many of its 10 episodes the expert solved the task."""


def _task(name: str) -> Task:
    random, expert, *_ = MEASURED[name]
    # An expert presses a button with an open hand, which solves the task and pays nothing.
    source = SOURCE if expert > random else f"{SOURCE}, which pays less: in its place the most"
    return Task(
        name=f"metaworld/{name}",
        env_id=ENV_ID,
        family="metaworld",
        # Scaled by bounds, because companded places of objects would be known to a centimetre only.
        observations={
            "state": ArraySpec(kind=Kind.CONTINUOUS, shape=(39,), low=-REACH_M, high=REACH_M)
        },
        action=ArraySpec(kind=Kind.CONTINUOUS, shape=(4,), low=-1.0, high=1.0),
        references=References(
            random=random, expert=expert if expert > random else MOST_RETURN, source=source
        ),
        max_steps=500,
        aliases=(f"{name}-v3", f"Meta-World/{name}-v3", f"metaworld-{name}"),
        env_kwargs={"env_name": f"{name}-v3"},
    )


MANIPULATION: tuple[Task, ...] = tuple(map(_task, MEASURED))


def with_task_id(task: Task) -> Task:
    """The same task, whose number among the 50 is shown in each step, as one token: what MT50's
    one-hot vector says. Observations of several tasks look alike.

    Raises:
        ValueError: if the task is not one of Meta-World's.
    """
    if task.family != "metaworld":
        raise ValueError(
            f"only tasks of metaworld have a number, {task.name} is of family {task.family!r};"
            " leave out task_id"
        )
    number = ArraySpec(kind=Kind.DISCRETE, shape=(), num_values=len(MEASURED))
    return replace(
        task,
        observations={**task.observations, "task": number},
        env_kwargs={**task.env_kwargs, "task_id": True},
    )
