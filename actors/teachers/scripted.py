"""Scripted teachers of games: rules that read the emulator's RAM and press a button.

Each rule is a function of the present frame alone, and always presses the same button for the same
move, so that a student who sees a single frame can copy it. Shape letters: N rows, B bytes of RAM,
H steps ahead, K heights, L lanes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, UInt8

NOOP, FIRE, UP, RIGHT, LEFT, DOWN, RIGHTFIRE, LEFTFIRE = 0, 1, 2, 3, 4, 5, 11, 12
"""Buttons, as numbered in the full set of 18."""
MOVES = np.array([[7, UP, 6], [LEFT, NOOP, RIGHT], [9, DOWN, 8]])
STRIKES = np.array([[15, 10, 14], [LEFTFIRE, FIRE, RIGHTFIRE], [17, 13, 16]])
"""Buttons by direction, [up to down, left to right]; `STRIKES` are those with fire pressed."""


@runtime_checkable
class Rule(Protocol):
    """A button for each row, from the 128 bytes of its RAM."""

    def __call__(self, ram_NB: UInt8[np.ndarray, "N 128"]) -> Int[np.ndarray, " N"]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Freeway:
    """Crosses where no car will be: plans `ahead` steps, and takes the path with the largest sum of
    heights.

    The cars of a lane have one speed, so their positions are known in advance. A step in which a
    car is met costs more than all heights of a path, so paths that meet fewer cars are better, and
    there is an answer even if a car cannot be avoided. Of equal paths the one that goes up is
    taken, then the one that waits. RAM: byte 14 is the chicken's height, which grows upwards; bytes
    108 to 117 are the cars' columns, lowest lane first. Seeds 0 to 9: 31.5 ± 0.5 over 10 episodes.
    """

    ahead: int = 16

    CHICKEN, CARS = 14, 108
    TOP, FIRST_LANE, LANE, STRIDE = 174, 14, 16, 4
    """Heights: where a crossing ends, where the lowest lane begins, of a lane, and climbed in a
    step."""
    HIT = 1e4
    """More than all heights of a path together."""

    def __call__(self, ram_NB: UInt8[np.ndarray, "N 128"]) -> Int[np.ndarray, " N"]:
        hit_NHL = self._cars_in_the_way(ram_NB)
        # The heights [N, K] that can be reached in H steps, the present one in the middle. Values
        # that `roll` carries over the ends are out of reach.
        height_NK = ram_NB[:, self.CHICKEN, None] + self.STRIDE * np.arange(
            -self.ahead, self.ahead + 1
        )
        height_NK = np.clip(height_NK, 6, self.TOP + self.STRIDE)
        lane_NK = np.where(height_NK < self.TOP, (height_NK - self.FIRST_LANE) // self.LANE, -1)
        hit_NHK = np.take_along_axis(hit_NHL, lane_NK[:, None, :] % hit_NHL.shape[2], axis=2)
        # Dynamic programming, backwards in time: the best sum of heights from each height on.
        later_NK = np.zeros(height_NK.shape)
        for step in reversed(range(1, self.ahead)):
            later_NK = self._worth(height_NK, hit_NHK[:, step], later_NK).max(axis=0)
        worth_3N = self._worth(height_NK, hit_NHK[:, 0], later_NK)[:, :, self.ahead]
        return np.array([UP, NOOP, DOWN])[worth_3N.argmax(axis=0)]

    def _worth(self, height_NK: np.ndarray, hit_NK: np.ndarray, later_NK: np.ndarray) -> np.ndarray:
        """[3, N, K]: the value of going up, staying and going down from each height; a step in
        which a car is met is worth less."""
        there_NK = height_NK + later_NK
        return np.stack(
            [
                np.roll(there_NK, shift, axis=1)
                - self.HIT * (hit_NK | np.roll(hit_NK, shift, axis=1))
                for shift in (-1, 0, 1)
            ]
        )

    def _cars_in_the_way(self, ram_NB: UInt8[np.ndarray, "N 128"]) -> np.ndarray:
        """[N, H, L + 1]: whether a car of a lane is on the chicken's column in a step; the last
        lane is the pavement."""
        # Pixels in a step, lowest lane first.
        speed_L = np.array([0.8, 1, 4 / 3, 2, 4, -4, -2, -4 / 3, -1, -0.8])
        decision_H1 = np.arange(1, self.ahead + 1)[:, None]
        car_NHL = (ram_NB[:, None, self.CARS : self.CARS + 10] + speed_L * decision_H1) % 160
        # A car that ends the step here was on the column, 40 to 53, during a part of it.
        hit_NHL = (car_NHL >= 40 + np.minimum(speed_L, 0)) & (
            car_NHL <= 53 + np.maximum(speed_L, 0)
        )
        return np.concatenate([hit_NHL, np.zeros_like(hit_NHL[:, :, :1])], axis=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stroke:
    """How the paddle meets the ball. Heights and columns are those of the RAM, in pixels; height
    grows downwards."""

    offset: int
    """How far below the paddle's upper edge the ball is met: an edge returns it steeply, past the
    opponent."""
    slack: int
    """The paddle rests while it is off by no more than this: one press moves it by 21."""
    tilt: float = 0.0
    """How much further below that edge the ball is met, per pixel that it is below the middle."""
    far: int = 0
    """Left of this column the ball is far: the paddle then stays near `home`, and follows the ball
    by the share `follow`."""
    home: int = 0
    follow: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pong:
    """Keeps the paddle at the ball's height, and changes its stroke after each of the first points
    that it loses.

    The emulator is deterministic: a stroke that scores would score again, and one that loses would
    lose again. There are as many games as numbers of no-ops at the start. These strokes, found by
    random search, win each of them in steps of 4 frames without sticky actions. The score is on the
    screen, so a student sees which stroke is played. The strokes are not robust: with one button in
    a hundred pressed at random, four games, truncated at 6,000 steps, returned -2 on average. RAM:
    byte 13 is the opponent's score, 49 and 54 the ball's column and height (0: no ball), 51 the
    paddle's upper edge. Seeds 0 to 9: 20.9 ± 0.3 over 10 episodes.
    """

    strokes: tuple[_Stroke, ...] = (
        _Stroke(offset=14, slack=9, far=70, home=116, follow=0.3),
        _Stroke(offset=12, slack=7),
        _Stroke(offset=8, slack=7, tilt=-0.02, far=70, home=148, follow=1.0),
    )

    OPPONENTS_SCORE, BALL_X, PADDLE, BALL = 13, 49, 51, 54
    MIDDLE = 120

    def __call__(self, ram_NB: UInt8[np.ndarray, "N 128"]) -> Int[np.ndarray, " N"]:
        # The stroke of each row, by the points that it has lost: its numbers as columns [N].
        lost_N = np.minimum(ram_NB[:, self.OPPONENTS_SCORE], len(self.strokes) - 1)
        offset_N, slack_N, tilt_N, far_N, home_N, follow_N = np.array(
            [astuple(s) for s in self.strokes]
        )[lost_N].T
        ball_N, paddle_N = ram_NB[:, self.BALL].astype(float), ram_NB[:, self.PADDLE]
        near_N = ball_N - tilt_N * (ball_N - self.MIDDLE)
        away_N = home_N + follow_N * (ball_N - home_N)
        below_N = np.where(ram_NB[:, self.BALL_X] < far_N, away_N, near_N) - offset_N - paddle_N
        button_N = np.where(below_N > 0, LEFT, RIGHT)  # LEFT turns the paddle down
        return np.where((ball_N == 0) | (np.abs(below_N) <= slack_N), NOOP, button_N)


@dataclass(frozen=True, slots=True, kw_only=True)
class Breakout:
    """Keeps the paddle's middle under the ball, and serves if there is none. RAM: see the bytes
    below."""

    offset: int = 10
    slack: int = 6

    PADDLE, BALL_X, BALL = 72, 99, 101

    def __call__(self, ram_NB: UInt8[np.ndarray, "N 128"]) -> Int[np.ndarray, " N"]:
        beside_N = ram_NB[:, self.BALL_X].astype(int) - ram_NB[:, self.PADDLE] - self.offset
        button_N = np.where(
            np.abs(beside_N) <= self.slack, NOOP, np.where(beside_N > 0, RIGHT, LEFT)
        )
        return np.where(ram_NB[:, self.BALL] == 0, FIRE, button_N)


@dataclass(frozen=True, slots=True, kw_only=True)
class Boxing:
    """Stands next to the opponent, a little below, and keeps punching; steps back first if the
    height is wrong.

    RAM: bytes 32 and 33 are the own and the opponent's column, 34 and 35 the heights, which grow
    downwards. The numbers, in these units, were found by random search on the seeds 0 to 4.
    """

    gap: int = 15
    below: int = 7
    slack_x: int = 2
    slack_y: int = 3
    close: int = 11
    """Nearer than this it steps back while its height is wrong."""

    X, OTHER_X, Y, OTHER_Y = 32, 33, 34, 35

    def __call__(self, ram_NB: UInt8[np.ndarray, "N 128"]) -> Int[np.ndarray, " N"]:
        x_N, other_N, y_N, other_y_N = (
            ram_NB[:, [self.X, self.OTHER_X, self.Y, self.OTHER_Y]].astype(int).T
        )
        side_N = np.where(x_N <= other_N, 1, -1)
        right_N, down_N = other_N - side_N * self.gap - x_N, other_y_N + self.below - y_N
        go_down_N = np.where(np.abs(down_N) <= self.slack_y, 0, np.sign(down_N))
        go_right_N = np.where(np.abs(right_N) <= self.slack_x, 0, np.sign(right_N))
        apart_N = np.abs(other_N - x_N)
        go_right_N = np.where((go_down_N != 0) & (apart_N < self.close), -side_N, go_right_N)
        strikes_N = (go_down_N == 0) & (apart_N <= self.gap + self.slack_x)
        place = (go_down_N + 1, go_right_N + 1)
        return np.where(strikes_N, STRIKES[place], MOVES[place])


@dataclass(frozen=True, slots=True, kw_only=True)
class DemonAttack:
    """Stays under the nearest demon and shoots; avoids falling bombs, and waits next to them.

    Shape letter: R the three rows of demons. The hardware stores a column in units of 15 pixels
    with a correction, see `_column`. A demon has two halves, which become birds in later waves.
    RAM: bytes 13 to 15 and 17 to 19 are their columns, 29 to 31 and 33 to 35 their pictures (0:
    none). Byte 16 is the own column, 20 that of the bombs, 37 to 45 the bombs by height, lowest
    first. The numbers, in pixels, were found by random search on the seeds 0 to 7.
    """

    demon: int = 10
    bird: int = 3
    """Where to stand: pixels to the right of the column of a demon, and of a single half."""
    slack: int = 4
    bomb: int = -3
    """Where bombs fall: pixels to the right of their column."""
    away: int = 21
    """The distance from there that is safe."""

    LEFTS, RIGHTS, LEFT_PICTURES, RIGHT_PICTURES = (
        slice(13, 16),
        slice(17, 20),
        slice(29, 32),
        slice(33, 36),
    )
    OWN, BOMB, BOMBS, STRIDE = 16, 20, slice(37, 46), 4
    FIRST, LAST, LEFT_EDGE, RIGHT_EDGE = 20, 134, 25, 128
    """Where it may stand, and where it turns back from a wall."""

    @staticmethod
    def _column(byte_N: np.ndarray) -> np.ndarray:
        fine_N = (byte_N >> 4).astype(int)
        return 15 * (byte_N & 15).astype(int) - np.where(fine_N > 7, fine_N - 16, fine_N)

    def __call__(self, ram_NB: UInt8[np.ndarray, "N 128"]) -> Int[np.ndarray, " N"]:
        x_N = self._column(ram_NB[:, self.OWN])
        left_NR, right_NR = (
            self._column(ram_NB[:, self.LEFTS]),
            self._column(ram_NB[:, self.RIGHTS]),
        )
        has_left_NR, has_right_NR = (
            ram_NB[:, self.LEFT_PICTURES] > 0,
            ram_NB[:, self.RIGHT_PICTURES] > 0,
        )
        # The targets: whole demons at their left half's place, single halves at their own.
        whole_NR = has_left_NR & has_right_NR & (np.abs(right_NR - left_NR) <= 8)
        place_N2R = np.concatenate(
            [left_NR + np.where(whole_NR, self.demon, self.bird), right_NR + self.bird], axis=1
        )
        there_N2R = np.concatenate([has_left_NR, has_right_NR & ~whole_NR], axis=1)
        apart_N2R = np.where(there_N2R, np.abs(place_N2R - x_N[:, None]), 1000)
        target_N = np.take_along_axis(place_N2R, apart_N2R.argmin(axis=1)[:, None], axis=1)[:, 0]
        target_N = np.clip(np.where(there_N2R.any(axis=1), target_N, x_N), self.FIRST, self.LAST)
        right_N = target_N - x_N
        button_N = np.where(
            np.abs(right_N) <= self.slack, FIRE, np.where(right_N > 0, RIGHTFIRE, LEFTFIRE)
        )

        # Bombs come first: flee from one that is near, do not walk into one that is close.
        bomb_N, falls_N = (
            self._column(ram_NB[:, self.BOMB]) + self.bomb,
            ram_NB[:, self.BOMBS].any(axis=1),
        )
        into_N = np.abs(x_N + self.STRIDE * np.sign(right_N) - bomb_N) < self.away
        flees_right_N = (x_N < self.LEFT_EDGE) | ((x_N >= bomb_N) & (x_N <= self.RIGHT_EDGE))
        flight_N = np.where(flees_right_N, RIGHTFIRE, LEFTFIRE)
        flees_N = np.abs(x_N - bomb_N) < self.away
        return np.where(falls_N & flees_N, flight_N, np.where(falls_N & into_N, FIRE, button_N))


RULES: Mapping[str, Rule] = {
    "atari/freeway": Freeway(),
    "atari/pong": Pong(),
    "atari/breakout": Breakout(),
    "atari/boxing": Boxing(),
    "atari/demon-attack": DemonAttack(),
}
"""By task."""
