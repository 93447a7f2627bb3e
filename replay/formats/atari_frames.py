"""Atari for importers: the buttons that other projects count, and frames of other sizes.

Shape letters: T steps, H height, W width, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from jaxtyping import Integer, UInt8

from gato.array_spec import ArraySpec
from gato.episode import Episode
from gato.task import Task

GAMES_OF_BUTTONS: Mapping[tuple[int, ...], str] = {
    tuple(range(18)): (
        "adventure alien bank_heist battle_zone berzerk boxing centipede chopper_command "
        "crossbow darkchambers defender donkey_kong double_dunk earthworld elevator_action "
        "entombed et fishing_derby flag_capture frostbite gravitar hangman haunted_house hero "
        "human_cannonball ice_hockey jamesbond kangaroo klax krull laser_gates mario_bros "
        "miniature_golf montezuma_revenge pitfall2 pitfall private_eye riverraid road_runner "
        "robotank seaquest solaris space_war star_gunner superman tennis trondead venture "
        "video_cube word_zapper yars_revenge zaxxon"
    ),
    (
        0,
        1,
        3,
        4,
        11,
        12,
    ): "air_raid carnival demon_attack galaxian name_this_game pong sir_lancelot space_invaders",
    (0, 2, 3, 4, 5, 6, 7, 8, 9): "asterix crazy_climber koolaid lost_luggage ms_pacman",
    (0, 1, 2, 3, 4, 5, 10, 11, 12, 13): "amidar mr_do time_pilot wizard_of_wor",
    (0, 1, 2, 3, 4, 5): "basic_math king_kong qbert",
    (0, 1, 2, 5, 10, 13): "bowling pooyan up_n_down",
    (0, 2, 3, 4, 5): "frogger pacman surround",
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9): "othello tic_tac_toe_3d video_chess",
    (0, 1, 11, 12): "atlantis2 atlantis",
    (0, 1, 2, 5): "blackjack casino",
    (0, 1, 3, 4): "breakout kaboom",
    (0, 1, 2, 3, 4, 11, 12): "assault",
    (0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12, 13, 14, 15): "asteroids",
    (1, 3, 4): "backgammon",
    (0, 1, 2, 3, 4, 6, 7, 11, 12): "beam_rider",
    (0, 1, 3, 4, 5, 8, 9, 11, 12): "enduro",
    (0, 2, 5): "freeway",
    (0, 1, 2, 3, 4, 10, 11, 12): "gopher",
    (0, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17): "journey_escape",
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13): "keystone_kapers",
    (0, 2, 3, 4, 5, 8, 9, 11, 12, 13, 14, 15, 16, 17): "kung_fu_master",
    (0, 1, 3, 4, 5, 11, 12, 13): "phoenix",
    (0, 3, 4): "skiing",
    (0, 1, 3, 4, 5): "tetris",
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12): "turmoil",
    (0, 2, 3, 4, 5, 10, 11, 12): "tutankham",
    (1, 6, 7, 8, 9): "video_checkers",
    (0, 1, 2, 3, 4, 5, 10, 11, 12): "video_pinball",
}
MINIMAL_BUTTONS: Mapping[str, tuple[int, ...]] = {
    rom: buttons for buttons, roms in GAMES_OF_BUTTONS.items() for rom in roms.split()
}
"""By ROM: which of the 18 buttons a game reads. Other projects count actions among these: action 2
of Freeway is button 5."""


SCREEN = (210, 160, 3)
"""The emulator's frames."""


def minimal_buttons(task: Task) -> tuple[int, ...]:
    """The buttons of the task's game. Raises ValueError if they are not known here."""
    rom = str(task.env_kwargs.get("rom", ""))
    if rom not in MINIMAL_BUTTONS:
        raise ValueError(
            f"task {task.name}: the buttons of {rom or task.env_id} are not known; they are of"
            f" {', '.join(MINIMAL_BUTTONS)}"
        )
    return MINIMAL_BUTTONS[rom]


def to_all_buttons(
    actions_T: Integer[np.ndarray, " T"], buttons: tuple[int, ...], what: str
) -> Integer[np.ndarray, " T"]:
    """Convert actions that count a game's minimal buttons to the 18 that all games share.
    Raises ValueError if one is outside."""
    if len(actions_T) and not 0 <= actions_T.min() <= actions_T.max() < len(buttons):
        raise ValueError(
            f"{what}: from {actions_T.min()} to {actions_T.max()}, but the game has {len(buttons)}"
            " buttons"
        )
    return np.asarray(buttons, np.int64)[actions_T]


def shrink(
    frames_THWC: UInt8[np.ndarray, "T H W C"], spec: ArraySpec
) -> UInt8[np.ndarray, "T h w C"]:
    """Frames in the size of `spec`, shrunk by area as the Atari environment does it."""
    import cv2  # only here: most data sets need no resizing

    height, width = spec.shape[:2]
    out = np.empty((len(frames_THWC), *spec.shape), np.uint8)
    for place, frame in enumerate(frames_THWC):
        out[place] = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
    return out


def may_shrink(shape: tuple[int, ...]) -> bool:
    """Whether frames of this shape are the emulator's own. Others were shrunk before, and shrunk
    twice they would not be those of the task."""
    return shape == SCREEN


def one_frame(task: Task) -> Task:
    """The task as importers read it: with the last frame alone, if it shows several."""
    if int(task.env_kwargs.get("frames", 1)) == 1:
        return task
    spec = next(iter(task.observations.values()))
    options = {name: value for name, value in task.env_kwargs.items() if name != "frames"}
    return replace(task, observations={"image": spec}, env_kwargs=options)


def with_frames_before(episode: Episode, task: Task) -> Episode:
    """An episode of single frames as the task shows it: in each step also the frames of the steps
    before, and in place of those before the first step the first."""
    image_T = episode.observations["image"]
    names = sorted(task.observations)
    steps_T = np.arange(len(image_T))
    shown = {
        name: image_T[np.maximum(steps_T - back, 0)]
        for name, back in zip(names, reversed(range(len(names))), strict=True)
    }
    return replace(episode, observations=shown)
