"""Clips: what is filmed is played as it would have been, and becomes a file that a player plays, or
a reason why not."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from actors.assignment import Assignment
from actors.envs.env import Backend, NoPictureError
from actors.envs.factory import WorkerEnvs, make_envs
from actors.envs.vector import VectorEnv
from actors.players.filming import Clip, ClipFolder, Filming, framed, new_film
from actors.players.player import Player
from actors.rollout import play
from actors.tasks.catalog import TASKS
from actors.tasks.resolve import resolve_task
from actors.worker import Worker
from gato.episode import Episode
from gato.metrics import Evaluation
from gato.task import Task
from gato.version import Version
from tests.actors.fakes import (
    COUNTING,
    CountingEnv,
    EchoPlayer,
    ListSink,
    ListSource,
    RandomPlayer,
    WeightedEcho,
)
from tests.actors.faulty import faulty


class PicturedEnv(CountingEnv):
    """Its picture is as bright as its seed, but for a corner as bright as its step."""

    steps_per_s = 50.0

    def picture(self) -> np.ndarray:
        picture = np.full((40, 64, 3), self.seed, np.uint8)
        picture[:8, :8] = self.count
        return picture


class ListFilm:
    """Keeps the pictures."""

    suffix = ".mp4"
    is_full = False

    def __init__(self, height: int, width: int, pictures_per_s: float) -> None:
        self.pictures: list[np.ndarray] = []
        self.about = (height, width, pictures_per_s)

    def add(self, picture: np.ndarray) -> None:
        self.pictures.append(picture)

    def develop(self) -> bytes:
        return b"film"


def episodes_of(envs: VectorEnv, player: Player, seeds: list[int]) -> list[Episode]:
    return list(play(envs, player, seeds, source="t", new_key=lambda: "k"))


def test_the_first_rows_first_episode_is_filmed_and_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    film = ListFilm(0, 0, 0.0)
    monkeypatch.setattr("actors.players.filming.new_film", lambda *about: film)
    envs = VectorEnv(COUNTING, [PicturedEnv(), PicturedEnv()])
    filming = Filming(EchoPlayer(), envs, caption="1.2")
    # of 7, 4 and 5 steps: the third is played by the second row
    episodes_of(envs, filming, [4, 1, 2])
    seen = [(int(picture[20, 200, 0]), int(picture[0, 0, 0])) for picture in film.pictures]
    assert seen == [(4, step) for step in (0, 2, 4, 6)]  # 50 a second are more than a film needs
    assert filming.clip() == Clip(data=b"film", suffix=".mp4", seconds=0.16, steps=7)


@pytest.mark.parametrize("name", ["mujoco/hopper", "atari/pong"])
def test_what_is_filmed_is_played_as_it_would_have_been(name: str) -> None:
    task = TASKS[name]
    if task.family == "atari":
        task = Task(**{f: getattr(task, f) for f in task.__dataclass_fields__} | {"max_steps": 40})
    envs = make_envs(task, 2)
    plain = episodes_of(envs, RandomPlayer(task), [3, 4])
    filming = Filming(RandomPlayer(task), envs, caption="1.2")
    for filmed, other in zip(episodes_of(envs, filming, [3, 4]), plain, strict=True):
        np.testing.assert_array_equal(filmed.actions, other.actions)
        np.testing.assert_array_equal(filmed.rewards, other.rewards)
    clip = filming.clip()
    assert clip.problem == ""
    assert clip.steps == next(e.num_steps for e in plain if e.seed == 3)


def test_a_film_is_h264_of_even_sides_at_the_speed_of_its_world(tmp_path: Path) -> None:
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg", reason="MP4 needs the extra `video`")
    film = new_film(64, 320, 12.5)
    for brightness in range(0, 250, 10):
        film.add(np.full((64, 320, 3), brightness, np.uint8))
    assert film.suffix == ".mp4"
    (tmp_path / "a.mp4").write_bytes(film.develop())
    reader = imageio_ffmpeg.read_frames(str(tmp_path / "a.mp4"))
    about = next(reader)
    pictures = [np.frombuffer(picture, np.uint8) for picture in reader]
    assert (about["codec"], about["pix_fmt"][:7], about["size"], about["fps"]) == (
        "h264",
        "yuv420p",
        (320, 64),
        12.5,
    )
    assert len(pictures) == 25
    assert abs(float(pictures[20].mean()) - 200) < 4


def test_without_ffmpeg_a_film_is_a_gif(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    film = new_film(64, 320, 12.5)
    for brightness in (0, 100, 200):
        film.add(np.full((64, 320, 3), brightness, np.uint8))
    assert film.suffix == ".gif"
    gif = Image.open(BytesIO(film.develop()))
    assert (gif.size, getattr(gif, "n_frames", 1), gif.info["duration"]) == ((320, 64), 3, 80)


def test_a_gif_says_the_length_that_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    monkeypatch.setattr("actors.players.filming.MOST_GIF_PICTURES", 2)
    envs = VectorEnv(COUNTING, [PicturedEnv()])
    filming = Filming(EchoPlayer(), envs, caption="1.2")
    episodes_of(envs, filming, [4])
    clip = filming.clip()
    assert clip.data is not None
    assert getattr(Image.open(BytesIO(clip.data)), "n_frames", 1) == 2
    assert clip.steps == 3  # the third step has no picture of its own


def test_a_small_picture_is_shown_larger_above_a_bar() -> None:
    picture = np.arange(35 * 63 * 3, dtype=np.uint8).reshape(35, 63, 3)
    shown = framed(picture, "a task")
    assert shown.shape == (35 * 6 + 24, 63 * 6, 3)
    np.testing.assert_array_equal(shown[: 35 * 6 : 6, ::6], picture)
    assert shown[-24:].max() > 150


def test_an_environment_that_cannot_be_drawn_is_played_and_says_why() -> None:
    class Broken(PicturedEnv):
        def picture(self) -> np.ndarray:
            raise OSError("no display; install one")

    for env, reason in (
        (CountingEnv(), "CountingEnv has no picture"),
        (Broken(), "no display; install one"),
    ):
        envs = VectorEnv(COUNTING, [env])
        filming = Filming(EchoPlayer(), envs, caption="1.2")
        assert len(episodes_of(envs, filming, [4, 5])) == 2
        clip = filming.clip()
        assert clip.data == b""
        assert f"fake/counting cannot be drawn: {reason}" in clip.problem


def test_a_film_that_fails_costs_the_clip_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(ListFilm):
        def add(self, picture: np.ndarray) -> None:
            raise OSError("No space left on device")

    class Lost(ListFilm):
        def develop(self) -> bytes:
            raise FileNotFoundError("clip.mp4 is gone")

    def unmade(*about: float) -> ListFilm:
        raise OSError("no folder can be made")

    for make, reason in (
        (Full, "No space left"),
        (Lost, "clip.mp4 is gone"),
        (unmade, "no folder can be made"),
    ):
        monkeypatch.setattr("actors.players.filming.new_film", make)
        filming = Filming(EchoPlayer(), envs := VectorEnv(COUNTING, [PicturedEnv()]), caption="1.2")
        assert len(episodes_of(envs, filming, [4, 5])) == 2
        assert re.match(
            f"fake/counting cannot be filmed: .*{reason}.*; see that there is room in",
            filming.clip().problem,
        )


def test_ffmpeg_that_died_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg", reason="MP4 needs the extra `video`")
    monkeypatch.setattr(imageio_ffmpeg._io, "get_ffmpeg_exe", lambda: "false")  # ends at once
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    filming = Filming(EchoPlayer(), envs := VectorEnv(COUNTING, [PicturedEnv()]), caption="1.2")
    assert len(episodes_of(envs, filming, [4])) == 1
    assert "fake/counting cannot be filmed" in filming.clip().problem
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("backend", ["loop", "process"])
def test_users_environments_are_filmed_in_workers(backend: Backend) -> None:
    task = faulty("none")
    envs = WorkerEnvs(backend=backend)(task, 1)
    filming = Filming(RandomPlayer(task), envs, caption="1.2")
    assert len(episodes_of(envs, filming, [0])) == 1
    clip = filming.clip()
    # of 50 steps a second, every second one
    assert (clip.problem, clip.steps, clip.seconds) == ("", 5, 0.12)
    np.testing.assert_array_equal(envs.picture(0), np.full((4, 6, 3), 50, np.uint8))
    assert envs.extras()["wanted"].tolist() == [1]  # a picture takes nothing away
    envs.close()


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("cannot draw", "no brush; buy one"), ("draws grey", r"uint8 \(4, 6\), expected uint8")],
)
def test_what_cannot_be_drawn_in_a_process_is_played_and_says_why(fault: str, reason: str) -> None:
    task = faulty(fault)
    envs = make_envs(task, 1, backend="process")
    filming = Filming(RandomPlayer(task), envs, caption="1.2")
    assert len(episodes_of(envs, filming, [0])) == 1
    assert re.search(
        f"faulty/{fault.replace(' ', '-')} cannot be drawn: .*{reason}", filming.clip().problem
    )
    assert envs.extras()["wanted"].tolist() == [1]
    envs.close()


def test_the_pole_is_filmed_or_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    envs = make_envs(resolve_task("CartPole-v1"), 1)
    envs.reset_row(0, 1)
    if find_spec("pygame"):
        assert envs.picture(0).shape == (400, 600, 3)
    envs.close()
    envs = make_envs(resolve_task("CartPole-v1"), 1)
    envs.reset_row(0, 1)
    monkeypatch.setitem(sys.modules, "pygame", None)
    with pytest.raises(
        NoPictureError,
        match=r"CartPole-v1 cannot be drawn: pygame is not installed, run .*pip install",
    ):
        envs.picture(0)
    envs.close()


@pytest.mark.parametrize("name", ["mujoco/hopper", "mujoco/reacher", "mujoco/inverted-pendulum"])
def test_a_robot_is_drawn_at_its_position(name: str) -> None:
    if name not in TASKS:
        pytest.skip(f"no task {name}")
    envs = make_envs(TASKS[name], 1)
    envs.reset_row(0, seed=0)
    first = envs.picture(0)
    assert first.shape == (240, 320, 3)
    assert len(np.unique(first.reshape(-1, 3), axis=0)) > 100  # sky, ground and a body in the sun
    np.testing.assert_array_equal(first, envs.picture(0))
    actions = np.ones((1, *TASKS[name].action.shape), np.float32)
    for _ in range(5):
        envs.step(actions, np.array([True]))
    assert (first != envs.picture(0)).any()


def evaluation(*returns: float, failed: str | None = None) -> Evaluation:
    return Evaluation(
        task="a/b", version=Version(1, 7), learner_step=70, returns=returns, failed=failed
    )


def test_the_newest_clip_stands_in_the_folder_with_what_it_shows(tmp_path: Path) -> None:
    folder = ClipFolder(tmp_path)
    for data in (b"old", b"new"):
        assert (
            folder.keep(Clip(data=data, suffix=".mp4", steps=3, seconds=0.5), evaluation(5.0, 6.0))
            == ""
        )
    assert folder.files == {"a/b": tmp_path / "a" / "b.mp4"}
    assert (tmp_path / "a" / "b.mp4").read_bytes() == b"new"
    about = json.loads((tmp_path / "a" / "b.json").read_text())
    assert about == {
        "task": "a/b",
        "file": "b.mp4",
        "version": "1.7",
        "learner_step": 70,
        "return": 5.0,
        "shown_steps": 3,
        "shown_s": 0.5,
    }
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["b.json", "b.mp4"]


def test_why_there_is_no_clip_is_said_once(tmp_path: Path) -> None:
    folder = ClipFolder(tmp_path)
    assert folder.keep(Clip(problem="no display"), evaluation(5.0)) == "no display"
    assert folder.keep(Clip(problem="no display"), evaluation(5.0)) == ""
    assert folder.keep(Clip(data=b"x", suffix=".mp4"), evaluation(failed="it broke")) == ""
    assert list(tmp_path.iterdir()) == []


def test_a_worker_films_the_assignments_that_say_so() -> None:
    worker = Worker(
        "w0",
        {COUNTING.name: COUNTING},
        lambda *_: WeightedEcho(),
        ListSink(),
        ListSource([Version(1, 1)] * 3),
        make=lambda task, num_envs: VectorEnv(task, [PicturedEnv() for _ in range(num_envs)]),
    )
    assignment = Assignment(role="evaluate", task=COUNTING.name, seeds=(4, 1), film=True)
    _, filmed = worker.perform(assignment)
    clip = worker.take_clip()
    assert (clip.steps, clip.suffix[:1]) == (7, ".")
    assert len(clip.data) > 100
    _, plain = worker.perform(Assignment(role="evaluate", task=COUNTING.name, seeds=(4, 1)))
    assert filmed is not None
    assert plain is not None
    assert filmed.returns == plain.returns
    assert worker.take_clip().problem == "nothing was filmed"
