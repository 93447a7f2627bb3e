"""What the paper leaves open (A1 to A10): each is a setting, and each of its values does what it
says. ADRs 4 and 6 to 8."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from actors.envs.factory import make_envs
from actors.tasks.catalog import TASKS
from cluster.runs.config import RunConfig
from cluster.runs.overrides import override
from cluster.runs.presets import RUNS
from gato.acting.config import ActingConfig
from gato.acting.policy import Policy
from gato.array_spec import ArraySpec, Kind
from gato.config import ModelConfig
from gato.network.model import Gato, next_token_loss
from gato.sequence import StepLayout, Window
from gato.serialization import from_plain, to_plain
from gato.task import Task
from gato.tokenizer import TokenLayout, action_centres, decode, encode
from learner.checkpoints.state import Progress, load_checkpoint, read_model_config, save_checkpoint
from tests.gato.models import random_observations
from tests.paper.tasks import BUTTON, TORQUES, batch_of, image, model_of, task_of, values, window_of

ROBOT = task_of(
    {"lives": ArraySpec(kind=Kind.DISCRETE, shape=(), num_values=5), "state": values(3)}, TORQUES
)
GAME = task_of(dict(ROBOT.observations), BUTTON)
LAYOUTS: dict[str, dict[str, object]] = {
    "paper": {},
    "discrete own": {"discrete_ids": "own"},
    "actions own": {"action_ids": "own"},
    "separator in text": {"separator_id": 124},
    "companded": {"compand_actions": True},
    "all": {
        "discrete_ids": "own",
        "action_ids": "own",
        "separator_id": 124,
        "compand_actions": True,
    },
}
BINS, MORE_BINS = (32_000, 33_024), (33_024, 34_048)


@pytest.mark.parametrize(
    ("layout", "button", "state", "torque", "separator", "rows"),
    [
        ("paper", (0, 18), BINS, BINS, 33_024, 33_025),
        ("discrete own", (33_024, 33_042), BINS, BINS, 34_048, 34_049),
        ("actions own", (0, 18), BINS, MORE_BINS, 34_048, 34_049),
        ("separator in text", (0, 18), BINS, BINS, 124, 33_024),
        ("companded", (0, 18), BINS, (32_279, 32_745), 33_024, 33_025),
        ("all", (34_048, 34_066), BINS, (33_303, 33_769), 124, 35_072),
    ],
)
def test_a1_a2_a3_ids_stand_where_the_layout_says(
    layout: str,
    button: tuple[int, int],
    state: tuple[int, int],
    torque: tuple[int, int],
    separator: int,
    rows: int,
) -> None:
    """A1: do discrete values share ids with text? A2: actions with observations? A3: which id is
    the separator?"""
    model = model_of(**LAYOUTS[layout])
    ids = model.config.layout
    assert ids.ids_of(BUTTON) == ids.ids_of(BUTTON, is_action=True) == button
    assert (ids.ids_of(values(3)), ids.ids_of(TORQUES, is_action=True)) == (state, torque)
    assert (ids.separator, ids.vocab_size) == (separator, rows)
    assert model.embedding.table.weight.shape[0] == rows
    assert model.logits(torch.zeros(1, 32)).shape == (1, rows)


@pytest.mark.parametrize("task", [ROBOT, GAME], ids=["robot", "game"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_writes_each_token_into_its_range_and_reads_it_back(
    layout: str, task: Task
) -> None:
    """A1 to A3 and A5, in a sequence: observation, separator and action."""
    ids_of = model_of(**LAYOUTS[layout]).config.layout
    steps, window = StepLayout(task, ids_of), window_of(task, 200)
    ids = steps.step_ids(window.observations, window.actions)
    columns = [task.observations["lives"], *[task.observations["state"]] * 3]
    for column, spec in enumerate(columns):
        low, high = ids_of.ids_of(spec)
        assert low <= ids[:, column].min() <= ids[:, column].max() < high
    assert (ids[:, 4] == ids_of.separator).all()
    back = decode(ids[:, 5:], task.action, ids_of, is_action=True)
    if task.action.kind is Kind.DISCRETE:
        np.testing.assert_array_equal(back, window.actions)
    elif not ids_of.compand_actions:
        assert np.abs(back - window.actions).max() <= 1 / 1024 + 1e-6
    else:
        assert (np.abs(back - window.actions) <= 0.012 * np.abs(window.actions) + 1e-3).all()
    np.testing.assert_array_equal(
        decode(ids[:, :1], columns[0], ids_of)[:, None], window.observations["lives"][:, None]
    )


def first_token(model: Gato, task: Task, observations: dict[str, np.ndarray]) -> np.ndarray:
    """Probabilities [N, V] of the first action token, from the training pass: each row is one step
    with any action."""
    low, high = model.config.layout.ids_of(task.action, is_action=True)
    some = np.zeros((1, *task.action.shape), task.action.dtype)
    rows = [
        Window(
            observations={key: column[row : row + 1] for key, column in observations.items()},
            actions=some,
        )
        for row in range(len(observations["lives"]))
    ]
    batch = batch_of(task, model, rows)
    at = int(batch.is_target[0].nonzero()[0, 0]) - 1
    with torch.no_grad():
        return model.logits(model(batch)[:, at], low, high).softmax(-1).numpy()


def acted(
    model: Gato,
    task: Task,
    observations: dict[str, np.ndarray],
    config: ActingConfig,
    seed: int = 0,
) -> np.ndarray:
    """The first element [N] of the actions."""
    policy = Policy(
        model, task, replace(config, window_steps=1), generator=torch.Generator().manual_seed(seed)
    )
    actions = policy.act(policy.start(len(observations["lives"])), observations)
    assert task.action.problem_with(actions, "action") is None
    return actions.reshape(len(actions), -1)[:, 0]


@pytest.mark.parametrize("task", [ROBOT, GAME], ids=["robot", "game"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_acted_and_learned_as_it_is_written(layout: str, task: Task) -> None:
    """A1 to A3 and A5, from the logits to an action and to a loss; also with shared waves and
    spread targets."""
    model = model_of(value_waves=4, **LAYOUTS[layout])
    observations = random_observations(task, 6, np.random.default_rng(0))
    likeliest = first_token(model, task, observations).argmax(-1)
    expected = action_centres(model.config.layout)[likeliest] if task is ROBOT else likeliest
    np.testing.assert_allclose(
        acted(model, task, observations, ActingConfig(continuous="argmax")), expected, atol=1e-6
    )
    batch = batch_of(task, model, [window_of(task, 2)])
    with torch.no_grad():
        plain, narrow, wide = (
            next_token_loss(model, batch, spread_bins=bins).losses for bins in (0.0, 0.01, 8.0)
        )
    torch.testing.assert_close(plain, narrow, atol=1e-4, rtol=1e-4)
    assert torch.equal(plain, wide) == (task.action.kind is Kind.DISCRETE)


def test_a2_ranges_of_their_own_have_waves_of_their_own() -> None:
    """A2 with shared cosines: each range of bins has its own mix; other ids have none."""
    model = model_of(value_waves=4, action_ids="own", discrete_ids="own")
    added = (model.embedding.weight - model.embedding.table.weight).detach()
    assert added[32_000:34_048].abs().amax(-1).gt(0).all()
    assert added[:32_000].count_nonzero() == added[34_048:].count_nonzero() == 0
    assert not torch.allclose(added[32_000:33_024], added[33_024:34_048], atol=1e-3)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_checkpoint_and_a_run_keep_the_layout(layout: str, tmp_path: Path) -> None:
    """A1 to A3 and A5: the ids are part of the model's shape, on disk and in a run's settings."""
    config = replace(
        ModelConfig(num_layers=1, num_heads=2, width=32, feedforward=64, context_tokens=64),
        **LAYOUTS[layout],
    )  # type: ignore[arg-type]
    model = Gato(config)
    path = save_checkpoint(
        tmp_path, model, torch.optim.AdamW(model.parameters()), Progress(step=1, number=1)
    )
    assert read_model_config(path) == config
    assert load_checkpoint(path, model).step == 1
    if layout != "paper":
        with pytest.raises(ValueError, match=f"another shape: {next(iter(LAYOUTS[layout]))}"):
            load_checkpoint(
                path, Gato(replace(config, **asdict(ModelConfig(**asdict(config))) | PAPER_IDS))
            )
    run = override(
        RUNS["debug"],
        [f"model.{name}={json.dumps(value)}" for name, value in LAYOUTS[layout].items()],
    )
    assert (
        from_plain(RunConfig, json.loads(json.dumps(to_plain(run)))).model.layout
        == run.model.layout
    )
    assert run.model.layout == TokenLayout(
        num_text_ids=1024, **{FIELDS[k]: v for k, v in LAYOUTS[layout].items()}
    )  # type: ignore[arg-type]


PAPER_IDS: dict[str, object] = {
    "discrete_ids": "text",
    "action_ids": "shared",
    "separator_id": None,
    "compand_actions": False,
}
FIELDS = {
    "discrete_ids": "discrete", "action_ids": "actions", "separator_id": "separator_id",
    "compand_actions": "compand_actions"
}  # fmt: skip


def test_a_checkpoint_from_before_a_setting_has_its_default(tmp_path: Path) -> None:
    """A setting that is added later does not shut out a run that began without it; one that is not
    known does."""
    model = Gato(
        ModelConfig(num_layers=1, num_heads=2, width=32, feedforward=64, context_tokens=64)
    )
    path = save_checkpoint(
        tmp_path, model, torch.optim.AdamW(model.parameters()), Progress(step=1, number=1)
    )
    about = json.loads((path / "checkpoint.json").read_text())
    del about["model"]["compand_actions"]
    (path / "checkpoint.json").write_text(json.dumps(about))
    assert load_checkpoint(path, model).step == 1
    about["model"]["of_tomorrow"] = 1
    (path / "checkpoint.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match="'of_tomorrow', which this version does not know"):
        load_checkpoint(path, model)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"separator_id": 33_024}, r"not a text id in \[0, 32000\)"),
        ({"num_text_ids": 1000}, "at least 1024"),
    ],
)
def test_ids_that_cannot_be_are_refused(settings: dict[str, object], message: str) -> None:
    """A1 to A3: before anything is built, in one line."""
    with pytest.raises(ValueError, match=message):
        model_of(**settings)
    assert TokenLayout(num_text_ids=0, discrete="own").vocab_size == 1024 + 1024 + 1


@pytest.mark.parametrize(
    ("name", "message"), [("discrete", "'text'.*or 'own'"), ("actions", "'shared'.*or 'own'")]
)
def test_a_range_that_is_no_choice_is_refused(name: str, message: str) -> None:
    """A1 and A2: also where no annotations are checked, as in a run; a test's own check of them
    would come first."""
    layout = TokenLayout()
    object.__setattr__(layout, name, "none")
    with pytest.raises(ValueError, match=message):
        layout.__post_init__()


@pytest.mark.parametrize(
    ("value", "token"),
    [(-1, 32279), (-0.5, 32313), (0, 32512), (0.1, 32632), (0.5, 32710), (1, 32744)],
)
def test_a5_companded_actions_have_the_tokens_of_observations(value: float, token: int) -> None:
    """A5: off in the paper; on, an action in [-1, 1] is companded like an observation, and nothing
    beyond is emitted."""
    layout = TokenLayout(compand_actions=True)
    spec = ArraySpec(kind=Kind.CONTINUOUS, shape=(), low=-1.0, high=1.0)
    assert encode(np.array([value], np.float32), spec, layout, is_action=True).item() == token
    doubled = replace(spec, low=-2.0, high=2.0)
    assert (
        encode(np.array([2.0 * value], np.float32), doubled, layout, is_action=True).item() == token
    )
    assert encode(np.array([1e6], np.float32), spec, layout, is_action=True).item() == 32744
    assert -1.0 <= action_centres(layout).min() < -0.99
    assert 0.99 < action_centres(layout).max() <= 1.0


def test_a6_the_spec_says_what_is_companded_and_the_data_never_do() -> None:
    """A6: "if not already in [-1, 1]" is decided by the task's spec: bounds scale, none compand,
    whatever the batch holds."""
    layout = TokenLayout()
    free, bounded = values(1), ArraySpec(kind=Kind.CONTINUOUS, shape=(1,), low=-1.0, high=1.0)
    small, large = np.array([[0.5]], np.float32), np.array([[0.5], [99.0]], np.float32)
    assert encode(small, free, layout)[0] == encode(large, free, layout)[0] == 32_710
    assert encode(small, bounded, layout)[0] == encode(large, bounded, layout)[0] == 32_768
    assert (
        encode(np.array([[5.0]], np.float32), replace(bounded, low=-10.0, high=10.0), layout).item()
        == 32_768
    )


@pytest.mark.parametrize(
    ("height", "width", "tokens"), [(64, 80, 22), (80, 80, 27), (84, 84, 38), (210, 160, 142)]
)
def test_a7_the_size_of_a_games_image_is_that_of_its_task(
    height: int, width: int, tokens: int
) -> None:
    """A7: 64x80, 20 patches, by default; any other size is the task's data, for the emulator and
    for the tokens."""
    task = TASKS["atari/freeway"]
    assert task.observations["image"].shape == (64, 80, 3)
    task = replace(task, observations={"image": image(height, width)})
    envs = make_envs(task, 1)
    envs.reset_row(0, 0)
    assert task.observations["image"].problem_with(envs.observations["image"], "image") is None
    assert envs.observations["image"].std() > 10
    assert StepLayout(task, TokenLayout()).tokens_per_step == tokens
    envs.close()


def game_steps(steps: int = 30, **options: float) -> list[np.ndarray]:
    """Images of some steps of Freeway, whose cars leave each place that they were in."""
    task = TASKS["atari/freeway"]
    task = replace(
        task,
        observations={"image": image(210, 160)},  # as the emulator draws it
        env_kwargs={**task.env_kwargs, "max_noops": 0, **options},
    )
    envs = make_envs(task, 1)
    envs.reset_row(0, 0)
    seen: list[np.ndarray] = []
    for _ in range(steps):
        envs.step(np.array([2]), np.ones(1, np.bool_))
        seen.append(envs.observations["image"][0].copy())
    envs.close()
    return seen


def test_a8_frames_a_step_and_sticky_actions_are_the_tasks_data() -> None:
    """A8: 4 frames a step and no sticky actions by default; one image a step, the pixelwise maximum
    of its last two frames.

    With one frame a step there is no maximum: nothing of an earlier step stays on the screen.
    """
    options = TASKS["atari/freeway"].env_kwargs
    assert (options["frameskip"], options["sticky"]) == (4, 0.0)
    plain, sticky = game_steps(), game_steps(sticky=0.75)
    assert not np.array_equal(plain[-1], sticky[-1])
    ones, twos, fours = (
        game_steps(60, frameskip=1),
        game_steps(30, frameskip=2),
        game_steps(15, frameskip=4),
    )
    assert not np.array_equal(ones[58], ones[59])
    for step in range(15):
        last, before = ones[4 * step + 3], ones[4 * step + 2]
        np.testing.assert_array_equal(fours[step], np.maximum(last, before))
        np.testing.assert_array_equal(twos[2 * step + 1], np.maximum(last, before))
    with pytest.raises(ValueError, match="frameskip 0 must be at least 1"):
        game_steps(frameskip=0)
    with pytest.raises(ValueError, match=r"sticky 1.5 in \[0, 1\)"):
        game_steps(sticky=1.5)


def same_observation(task: Task, num: int) -> dict[str, np.ndarray]:
    one = random_observations(task, 1, np.random.default_rng(1))
    return {key: np.repeat(column, num, axis=0) for key, column in one.items()}


@pytest.mark.parametrize("temperature", [1.0, 0.3])
@pytest.mark.parametrize("task", [ROBOT, GAME], ids=["robot", "game"])
def test_a9_sampling_follows_the_probabilities_of_the_tasks_ids(
    task: Task, temperature: float
) -> None:
    """A9: sample: drawn from the softmax over the ids that the task may emit, sharper the lower the
    temperature."""
    model = model_of()
    with torch.no_grad():
        model.embedding.table.weight.mul_(2.0)  # far from uniform
    observations = same_observation(task, 1000)
    p = first_token(model, task, {key: column[:1] for key, column in observations.items()})[0]
    p = p ** (1 / temperature) / (p ** (1 / temperature)).sum()
    worth = action_centres(model.config.layout) if task is ROBOT else np.arange(18)
    config = ActingConfig(continuous="sample", discrete="sample", temperature=temperature)
    actions = acted(model, task, observations, config)
    deviation = np.sqrt((p * worth**2).sum() - (p * worth).sum() ** 2)
    assert actions.mean() == pytest.approx(
        (p * worth).sum(), abs=5 * deviation / np.sqrt(1000) + 1e-6
    )
    assert actions.std() == pytest.approx(deviation, rel=0.15)
    # the seed decides
    np.testing.assert_array_equal(actions, acted(model, task, observations, config))
    assert not np.array_equal(actions, acted(model, task, observations, config, seed=1))


def test_a9_the_mean_is_that_of_the_bins_and_argmax_the_likeliest() -> None:
    """A9: mean: the expected value over the bins (continuous, our default in evaluation); argmax:
    the likeliest id."""
    model = model_of()
    observations = random_observations(ROBOT, 5, np.random.default_rng(2))
    p, centres = first_token(model, ROBOT, observations), action_centres(model.config.layout)
    np.testing.assert_allclose(
        acted(model, ROBOT, observations, ActingConfig()), p @ centres, atol=1e-5
    )
    likeliest = acted(model, ROBOT, observations, ActingConfig(continuous="argmax"))
    np.testing.assert_allclose(likeliest, centres[p.argmax(-1)], atol=1e-6)
    p = first_token(model, GAME, observations)
    np.testing.assert_array_equal(acted(model, GAME, observations, ActingConfig()), p.argmax(-1))


def test_a9_ids_of_other_kinds_are_never_emitted() -> None:
    """A9: the logits are restricted to the task's own ids, where those of all others would win."""
    model = model_of()
    observations = random_observations(GAME, 20, np.random.default_rng(3))
    batch = batch_of(GAME, model, [window_of(GAME, 1)])
    with torch.no_grad():
        assert (model.logits(model(batch))[0].argmax(-1) >= 18).any()
    assert set(acted(model, GAME, observations, ActingConfig()).tolist()) <= set(range(18))


def test_a9_evaluation_is_greedy_and_generation_samples() -> None:
    """A9: what a run does by default."""
    actors = RUNS["demo"].actors
    assert (actors.evaluate.continuous, actors.evaluate.discrete) == ("mean", "argmax")
    assert (actors.generate.continuous, actors.generate.discrete) == ("sample", "sample")
