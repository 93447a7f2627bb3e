"""Short names keep tasks apart."""

from cluster.monitor.terminal.names import short_name, short_names


def test_options_that_all_tasks_share_are_left_out() -> None:
    arms = ["metaworld/push?task_id=1", "metaworld/reach?task_id=1"]
    assert list(short_names(arms).values()) == ["push", "reach"]


def test_options_that_tell_tasks_apart_stay() -> None:
    games = ["atari/pong", "atari/pong?sticky=0.25", "minigrid:Level-v0"]
    assert list(short_names(games).values()) == ["pong", "pong?sticky=0.25", "minigrid:Level-v0"]
    assert short_names(games[1:2]) == {"atari/pong?sticky=0.25": "pong?sticky=0.25"}
    assert short_name("lerobot/arm?file=a/b") == "arm?file=a/b"
    assert short_names([]) == {}
