"""The Atari games of ale-py for one player, and their published returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from gato.array_spec import ArraySpec, Kind
from gato.task import References, Task

DQN_ZOO = "random and human: DQN Zoo, dqn_zoo/atari_data.py"
JAT_EXPERT = "expert: JAT data set"
NO_EXPERT = "expert: the human, because JAT's is no better than chance"

PUBLISHED: Mapping[str, tuple[float, float, float]] = {
    "alien": (227.8, 7127.7, 16912.5),
    "amidar": (5.8, 1719.5, 2164.7),
    "assault": (222.4, 742.0, 15699.1),
    "asterix": (210.0, 8503.3, 3699.6),
    "asteroids": (719.1, 47388.7, 177011.1),
    "atlantis": (12850.0, 29028.1, 320679.6),
    "bank_heist": (14.2, 753.1, 1322.4),
    "battle_zone": (2360.0, 37187.5, 295592.6),
    "beam_rider": (363.9, 16926.5, 29589.3),
    "berzerk": (123.7, 2630.4, 57085.3),
    "bowling": (23.1, 160.7, 20.4),
    "boxing": (0.1, 12.1, 98.0),
    "breakout": (1.7, 30.5, 703.0),
    "centipede": (2090.9, 12017.0, 11624.3),
    "chopper_command": (811.0, 7387.8, 90990.6),
    "crazy_climber": (10780.5, 35829.4, 179296.9),
    "defender": (2874.5, 18688.9, 351958.3),
    "demon_attack": (152.1, 1971.0, 92195.3),
    "double_dunk": (-18.6, -16.4, 20.9),
    "enduro": (0.0, 860.5, 2292.2),
    "fishing_derby": (-91.7, -38.7, 7.2),
    "freeway": (0.0, 29.6, 33.9),
    "frostbite": (65.2, 4334.7, 13196.1),
    "gopher": (257.6, 2412.5, 81676.2),
    "gravitar": (173.0, 3351.4, 3986.6),
    "hero": (1027.0, 30826.4, 44677.4),
    "ice_hockey": (-11.2, 0.9, 25.2),
    "jamesbond": (29.0, 302.8, 27786.9),
    "kangaroo": (52.0, 3035.0, 574.0),
    "krull": (1598.0, 2665.5, 11439.8),
    "kung_fu_master": (258.5, 22736.3, 32392.8),
    "montezuma_revenge": (0.0, 4753.3, 393.5),
    "ms_pacman": (307.3, 6951.6, 6896.1),
    "name_this_game": (2292.3, 8049.0, 22991.2),
    "phoenix": (761.4, 7242.6, 424583.2),
    "pitfall": (-229.4, 6463.7, -1.4),
    "pong": (-20.7, 14.6, 21.0),
    "private_eye": (24.9, 69571.3, 100.0),
    "qbert": (163.9, 13455.0, 42971.4),
    "riverraid": (1338.5, 17118.0, 14800.9),
    "road_runner": (11.5, 7845.0, 77942.8),
    "robotank": (2.2, 11.9, 80.5),
    "seaquest": (68.4, 42054.7, 2597.3),
    "skiing": (-17098.1, -4336.9, -10738.1),
    "solaris": (1236.3, 12326.7, 1353.7),
    "space_invaders": (148.0, 1668.7, 29425.3),
    "star_gunner": (664.0, 10250.0, 360588.6),
    "surround": (-10.0, 6.5, 9.4),
    "tennis": (-23.8, -8.3, 11.1),
    "time_pilot": (3568.0, 5229.2, 69583.3),
    "tutankham": (11.4, 167.6, 291.2),
    "up_n_down": (533.4, 11693.2, 429418.3),
    "venture": (0.0, 1187.5, 0.0),
    "video_pinball": (16256.9, 17667.9, 441507.9),
    "wizard_of_wor": (563.5, 4756.5, 49333.3),
    "yars_revenge": (3092.9, 54576.9, 270262.9),
    "zaxxon": (32.5, 9173.3, 73097.2),
}  # fmt: skip
"""By ROM: mean returns of random play, of a human tester, and of JAT's expert."""

UNPUBLISHED = """
adventure air_raid atlantis2 backgammon basic_math blackjack carnival casino crossbow darkchambers
donkey_kong earthworld elevator_action entombed et flag_capture frogger galaxian hangman
haunted_house human_cannonball journey_escape kaboom keystone_kapers king_kong klax koolaid
laser_gates lost_luggage mario_bros miniature_golf mr_do othello pacman pitfall2 pooyan sir_lancelot
space_war superman tetris tic_tac_toe_3d trondead turmoil video_checkers video_chess video_cube
word_zapper
"""
"""ROMs of the other games, without published returns."""


def _references(rom: str) -> References | None:
    if rom not in PUBLISHED:
        return None
    random, human, expert = PUBLISHED[rom]
    if expert <= random:
        return References(
            random=random, human=human, expert=human, source=f"{DQN_ZOO}; {NO_EXPERT}"
        )
    return References(random=random, human=human, expert=expert, source=f"{DQN_ZOO}; {JAT_EXPERT}")


def _camel(rom: str) -> str:
    """Camel case: `SpaceInvaders` of `space_invaders`, `TicTacToe3D` of `tic_tac_toe_3d`."""
    return "".join(
        part.upper() if part[0].isdigit() else part.capitalize() for part in rom.split("_")
    )


def _game(rom: str) -> Task:
    camel, short, squashed = _camel(rom), rom.replace("_", "-"), rom.replace("_", "")
    gym = (f"ALE/{camel}-v5", f"{camel}NoFrameskip-v4", f"{camel}Deterministic-v4", f"{camel}-v4")
    minari = (f"atari/{squashed}/expert-v0", f"atari/{squashed}/random-v0")
    return Task(
        name=f"atari/{short}",
        env_id=f"ALE/{camel}-v5",
        family="atari",
        observations={"image": ArraySpec(kind=Kind.IMAGE, shape=(64, 80, 3))},
        action=ArraySpec(kind=Kind.DISCRETE, shape=(), num_values=18),
        references=_references(rom),
        max_steps=27_000,  # 108,000 frames
        aliases=tuple(dict.fromkeys((*gym, short, squashed, f"atari-{squashed}", *minari))),
        env_kwargs={"rom": rom, "sticky": 0.0, "frameskip": 4, "max_noops": 30},
    )


def _grey(rom: str) -> Task:
    """The same game, shown as in JAT and in the DQN replay data set: 84x84, grey in all three
    channels."""
    game, short = _game(rom), rom.replace("_", "-")
    return replace(
        game,
        name=f"atari84/{short}",
        observations={"image": ArraySpec(kind=Kind.IMAGE, shape=(84, 84, 3))},
        aliases=(f"{short}-84",),
        env_kwargs={**game.env_kwargs, "grey": True},
    )


ROMS = (*PUBLISHED, *UNPUBLISHED.split())
GAMES: tuple[Task, ...] = (*map(_game, ROMS), *map(_grey, ROMS))


def with_sticky(task: Task, sticky: float) -> Task:
    """The same game with sticky actions: each frame repeats the last action with this probability
    (Machado et al. 2018, who propose 0.25).

    Raises:
        ValueError: if the task is not an Atari game, or `sticky` is outside of [0, 1).
    """
    if task.family != "atari":
        raise ValueError(
            f"only Atari games have sticky actions, {task.name} is of family {task.family!r}; leave"
            " them out"
        )
    if not 0.0 <= sticky < 1.0:
        raise ValueError(
            f"task {task.name}: sticky must be in [0, 1), got {sticky}; 0.25 is usual, 0 is off"
        )
    return replace(task, env_kwargs={**task.env_kwargs, "sticky": sticky})


MOST_FRAMES = 16


def with_frames(task: Task, *, frames: int | None = None, grey: bool | None = None) -> Task:
    """The same game, with several frames in an observation, or grey or coloured.

    One frame is the array `image`; several are `image/0`, the oldest, to `image/3`, the present
    one, an image each with tokens of its own. None: as the task has it.

    Raises:
        ValueError: if the task is not an Atari game, or `frames` is not in 1 to 16.
    """
    if task.family != "atari":
        raise ValueError(
            f"only Atari games have frames or grey, {task.name} is of family {task.family!r}; leave"
            " them out"
        )
    options = dict(task.env_kwargs)
    count = int(options.get("frames", 1)) if frames is None else frames
    if not 1 <= count <= MOST_FRAMES:
        raise ValueError(f"task {task.name}: frames must be in 1 to {MOST_FRAMES}, got {count}")
    spec = next(iter(task.observations.values()))
    digits = len(str(count - 1))
    names = [f"image/{place:0{digits}}" for place in range(count)] if count > 1 else ["image"]
    if frames is not None:
        options["frames"] = count
    if grey is not None:
        options["grey"] = grey
    return replace(task, observations=dict.fromkeys(names, spec), env_kwargs=options)
