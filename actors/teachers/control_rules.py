"""Rules for tasks of dm_control: a few lines of control theory, of the present observation alone.

Shape letters: N rows, the last axis as the task shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float, Shaped

Observed = Mapping[str, Shaped[np.ndarray, "N ..."]]
ControlRule = Callable[[Observed], Float[np.ndarray, "N A"]]
"""Actions in [-1, 1], from what a task shows."""
GRAVITY = 9.81


def _clipped(*columns: np.ndarray) -> Float[np.ndarray, "N A"]:
    return np.clip(np.stack(columns, axis=-1), -1.0, 1.0).astype(np.float32)


def pendulum(shown: Observed) -> Float[np.ndarray, "N A"]:
    """Pumps energy until the pole would just stand, then holds it by position and speed.

    A mass of 1 kg at 0.5 m, a motor of 1 Nm: too weak to lift it at once. Energy is measured from
    the upright rest (Åström and Furuta 2000).
    """
    cos, sin = shown["orientation"][:, 0], shown["orientation"][:, 1]
    speed = shown["velocity"][:, 0]
    inertia, weight_m = 0.25, GRAVITY * 0.5
    missing = weight_m * (1.0 - cos) - 0.5 * inertia * speed**2
    pump = np.where(speed >= 0, 1.0, -1.0) * np.clip(5.0 * missing, -1.0, 1.0)
    angle = np.arctan2(sin, cos)
    hold = -(8.0 * angle + 2.0 * speed)
    return _clipped(np.where(np.abs(angle) + 0.25 * np.abs(speed) < 0.4, hold, pump))


def cartpole(shown: Observed) -> Float[np.ndarray, "N A"]:
    """Pumps the pole's energy by the cart's acceleration, then balances it and brings the cart to
    the middle by linear state feedback."""
    place, cos, sin = shown["position"].T
    cart_speed, speed = shown["velocity"].T
    angle = np.arctan2(sin, cos)
    # A rod of 0.1 kg and 1 m: in units of its weight times its half length.
    energy = cos - 1.0 + speed**2 / (3.0 * GRAVITY)
    pump = 10.0 * energy * speed * cos - 0.8 * place - 0.3 * cart_speed
    hold = place + 1.2 * cart_speed + 8.0 * angle + 2.4 * speed
    return _clipped(np.where((np.abs(angle) < 0.8) & (np.abs(speed) < 4.0), hold, pump))


def point_mass(shown: Observed) -> Float[np.ndarray, "N A"]:
    """Moves to the middle by position and speed."""
    wanted = -(30.0 * shown["position"] + 8.0 * shown["velocity"])
    return np.clip(wanted, -1.0, 1.0).astype(np.float32)


def reacher(shown: Observed) -> Float[np.ndarray, "N A"]:
    """Turns the joints to the angles that put the finger on the target: inverse kinematics of two
    links of 0.12 m, with the elbow on the side where it is."""
    shoulder, wrist = shown["position"].T
    link, both = 0.12, shoulder + wrist
    target = np.stack(
        [link * (np.cos(shoulder) + np.cos(both)), link * (np.sin(shoulder) + np.sin(both))]
    )
    target += shown["to_target"].T
    far = np.linalg.norm(target, axis=0)
    bend = np.arccos(np.clip(far**2 / (2.0 * link**2) - 1.0, -1.0, 1.0))
    bend = np.where(wrist >= 0, bend, -bend)
    turn = np.arctan2(target[1], target[0]) - bend / 2.0 - shoulder
    turn = (turn + np.pi) % (2.0 * np.pi) - np.pi
    speeds = shown["velocity"].T
    return _clipped(2.0 * turn - 0.35 * speeds[0], 2.0 * (bend - wrist) - 0.25 * speeds[1])


CONTROL_RULES: Mapping[str, ControlRule] = {
    "dm-control/pendulum-swingup": pendulum,
    "dm-control/cartpole-balance": cartpole,
    "dm-control/cartpole-balance-sparse": cartpole,
    "dm-control/cartpole-swingup": cartpole,
    "dm-control/cartpole-swingup-sparse": cartpole,
    "dm-control/point-mass-easy": point_mass,
    "dm-control/reacher-easy": reacher,
    "dm-control/reacher-hard": reacher,
}
"""By task."""
