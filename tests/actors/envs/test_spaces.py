"""Gymnasium's spaces as specs: the round trip of what is seen and done, and clear words where there
is none."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from actors.envs.factory import make_envs
from actors.envs.gymnasium_env import GymnasiumEnv, task_of
from actors.envs.spaces import ActionSpace, ObservationSpace
from actors.players.gato_player import GatoPlayers
from actors.rollout import play
from gato.acting.config import ActingConfig
from gato.acting.policy import Policy
from gato.array_spec import ArraySpec, Kind
from gato.config import ModelConfig
from gato.episode import check_episode
from gato.network.model import Gato
from gato.sequence import StepLayout
from gato.task import References
from gato.tokenizer import TokenLayout, decode, encode
from gato.version import Version
from gato.weights import Weights, snapshot
from tests.gato.models import WordEncoder, small_model

REFERENCES = References(random=0.0, expert=1.0, source="made")
EVERYTHING = spaces.Dict(
    {
        "camera": spaces.Dict(
            {
                "left": spaces.Box(0, 255, (20, 17, 3), np.uint8),
                "grey": spaces.Box(0, 255, (16, 16), np.uint8),
                "first": spaces.Box(0, 255, (3, 16, 32), np.uint8),
            }
        ),
        "joints": spaces.Box(
            np.array([-1, -np.inf, 0], np.float32), np.array([1, np.inf, 4], np.float32)
        ),
        "free": spaces.Box(-np.inf, np.inf, (2, 2), np.float64),
        "die": spaces.Discrete(6, start=1),
        "cards": spaces.Tuple([spaces.Discrete(3) for _ in range(11)]),
        "flags": spaces.MultiBinary((2, 2)),
        "grid": spaces.Box(-2, 5, (3,), np.int32),
        "wheels": spaces.MultiDiscrete([2, 5, 3], start=[1, 0, -1]),
        "order": spaces.Text(8, charset="abä "),
    }
)


class EverythingEnv(gymnasium.Env):
    """Shows one of each space, takes a nested action, and returns reward 1 if that is as
    expected."""

    def __init__(self) -> None:
        self.observation_space = EVERYTHING
        self.action_space = spaces.Dict(
            {
                "turn": spaces.Discrete(3, start=-1),
                "press": spaces.MultiBinary(2),
                "2": spaces.MultiDiscrete([4, 2]),
            }
        )
        self.taken: list[object] = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return (
            self.observation_space.sample(),
            float(self.action_space.contains(action)),
            False,
            False,
            {},
        )


gymnasium.register("test/Everything-v0", EverythingEnv, max_episode_steps=4)


def test_every_kind_of_space_becomes_a_spec() -> None:
    specs = ObservationSpace(EVERYTHING, text_tokens=3).specs
    assert specs["camera/left"] == ArraySpec(kind=Kind.IMAGE, shape=(20, 17, 3))
    assert specs["camera/grey"] == ArraySpec(kind=Kind.IMAGE, shape=(16, 16, 3))
    assert specs["camera/first"] == ArraySpec(kind=Kind.IMAGE, shape=(16, 32, 3))
    assert specs["joints"].low == (-1, -np.inf, 0)
    assert specs["joints"].high == (1, np.inf, 4)
    assert specs["free"] == ArraySpec(kind=Kind.CONTINUOUS, shape=(2, 2))
    assert specs["die"] == ArraySpec(kind=Kind.DISCRETE, shape=(), num_values=6)
    assert specs["flags"] == ArraySpec(kind=Kind.DISCRETE, shape=(2, 2), num_values=2)
    assert specs["grid"] == ArraySpec(kind=Kind.DISCRETE, shape=(3,), num_values=8)
    assert specs["wheels"] == ArraySpec(kind=Kind.DISCRETE, shape=(3,), num_values=(2, 5, 3))
    assert specs["order"] == ArraySpec(kind=Kind.TEXT, shape=(16,), max_tokens=3)  # ä has two bytes


def test_whatever_a_space_samples_fits_its_spec() -> None:
    space = ObservationSpace(EVERYTHING, text_tokens=3)
    EVERYTHING.seed(0)
    for _ in range(20):
        for key, values in space.flatten(EVERYTHING.sample()).items():
            assert space.specs[key].problem_with(values[None], key) is None


def test_the_order_of_a_tuple_of_more_than_ten_parts_is_kept() -> None:
    keys = [
        key for key in ObservationSpace(EVERYTHING, text_tokens=3).specs if key.startswith("cards")
    ]
    assert sorted(keys) == keys
    assert keys[2] == "cards/02"
    assert keys[10] == "cards/10"


def test_values_are_kept_from_nought_on_and_given_back_as_they_were() -> None:
    observation = {
        **EVERYTHING.sample(),
        "die": 6,
        "wheels": np.array([2, 0, 1]),
        "grid": np.array([-2, 5, 0]),
    }
    kept = ObservationSpace(EVERYTHING, text_tokens=3).flatten(observation)
    assert (kept["die"].item(), kept["wheels"].tolist(), kept["grid"].tolist()) == (
        5,
        [1, 0, 2],
        [0, 7, 2],
    )
    assert (kept["camera/grey"] == observation["camera"]["grey"][..., None]).all()
    assert (kept["camera/first"].transpose(2, 0, 1) == observation["camera"]["first"]).all()
    for space in (EVERYTHING["die"], EVERYTHING["wheels"], EVERYTHING["grid"]):
        action = ActionSpace(space)
        taken = ObservationSpace(spaces.Dict(a=space))
        for _ in range(10):
            value = space.sample()
            back = action.unflatten(taken.flatten({"a": value})["a"])
            np.testing.assert_array_equal(back, value)
            assert space.contains(back)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(4),
        spaces.MultiDiscrete([[2, 3], [4, 5]]),
        spaces.MultiBinary(3),
        spaces.Box(np.array([-1, -2], np.float32), np.array([1, 5], np.float32)),
        spaces.Dict(
            {
                "b": spaces.Box(-2, 2, (2, 2)),
                "a": spaces.Tuple((spaces.Box(0, 1, (1,)), spaces.Box(-1, 1, ()))),
            }
        ),
        spaces.Dict(b=spaces.Discrete(3, start=5), a=spaces.MultiBinary(2)),
    ],
)
def test_an_action_goes_through_tokens_and_is_one_that_the_environment_takes(
    space: spaces.Space,
) -> None:
    action = ActionSpace(space)
    rng = np.random.default_rng(0)
    layout = TokenLayout()
    for _ in range(20):
        ids = np.array(
            [[int(rng.integers(*layout.ids_of(action.spec, i))) for i in range(action.spec.size)]]
        )
        values = decode(ids, action.spec, layout)
        assert (encode(values, action.spec, layout) == ids).all()
        assert space.contains(action.unflatten(values[0]))


def test_the_parts_of_a_nested_action_are_in_the_order_of_their_keys() -> None:
    action = ActionSpace(
        spaces.Dict(turn=spaces.Discrete(3, start=-1), press=spaces.MultiDiscrete([4, 2]))
    )
    assert action.spec.num_values == (4, 2, 3)
    taken = action.unflatten(np.array([3, 1, 0]))
    assert (taken["press"].tolist(), int(taken["turn"])) == ([3, 1], -1)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Sequence(spaces.Discrete(3)), "Sequence"),
        (spaces.Graph(spaces.Box(0, 1, (2,)), None), "Graph"),
        (
            spaces.Dict(a=spaces.Dict(b=spaces.Discrete(1025))),
            "a/b is Discrete.1025.*1025 values.*digits",
        ),
        (spaces.Text(5), "no encoder.*SentencePiece"),
        (spaces.Box(0, 255, (8, 8, 4), np.uint8), "4 channels"),
        (spaces.Box(0, 1, (0,)), "no elements"),
        (
            spaces.Dict({"a": spaces.Dict(b=spaces.Discrete(2)), "a/b": spaces.Discrete(2)}),
            "two parts.*a/b",
        ),
        (spaces.Dict(), "empty"),
    ],
)
def test_a_space_that_cannot_become_tokens_is_rejected_with_its_fix(
    space: spaces.Space, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ObservationSpace(space)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (
            spaces.Tuple((spaces.Discrete(2), spaces.Box(0, 1, (2,)))),
            "continuous, discrete.*all discrete",
        ),
        (spaces.Box(0, 255, (16, 16, 3), np.uint8), "parts that are image"),
    ],
)
def test_an_action_that_cannot_become_tokens_is_rejected_with_its_fix(
    space: spaces.Space, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ActionSpace(space)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(np.array([0, -1], np.float32), np.array([0, 1], np.float32)),
        spaces.Box(-np.inf, np.inf, (3,), np.float64),
        spaces.Box(np.array([-np.inf, 3, -2e9]), np.array([5, np.inf, 2e9]), dtype=np.float64),
        spaces.Box(-(2**31), 2**31 - 1, (2,), np.int32),
        spaces.Box(-(2**63), 2**63 - 1, (), np.int64),
        spaces.Box(0, 70_000, (2,), np.int64),
        spaces.Discrete(3, start=-7),
        spaces.Discrete(5, start=10**12),
        spaces.MultiDiscrete([3, 2], start=[-4, 9]),
        spaces.Dict(a=spaces.Box(0, 1, (0,)), b=spaces.Discrete(2, start=4)),
    ],
    ids=str,
)
def test_every_legal_space_is_shown_and_acted_in(space: spaces.Space) -> None:
    seen, acts = ObservationSpace(space), ActionSpace(space)
    space.seed(0)
    for key, values in seen.flatten(space.sample()).items():
        assert seen.specs[key].problem_with(values[None], key) is None
    assert acts.accepts(acts.spec)
    layout, rng = TokenLayout(), np.random.default_rng(0)
    for _ in range(20):
        ids = [int(rng.integers(*layout.ids_of(acts.spec, i))) for i in range(acts.spec.size)]
        action = acts.unflatten(decode(np.array([ids]), acts.spec, layout)[0])
        assert space.contains(action), action


def test_an_action_without_bounds_reaches_as_far_as_is_said() -> None:
    half = spaces.Box(np.array([-np.inf, 3]), np.array([np.inf, np.inf]), dtype=np.float64)
    assert ActionSpace(half).spec == ActionSpace(half, bound=10).spec
    spec = ActionSpace(half, bound=2).spec
    assert (spec.low, spec.high) == ((-2, 3), (2, 5))
    assert ActionSpace(half).accepts(spec)
    other = ArraySpec(kind=Kind.CONTINUOUS, shape=(2,), low=(-2, 4), high=(2, 5))
    assert not ActionSpace(half).accepts(other)
    assert not ActionSpace(spaces.Discrete(3)).accepts(spec)


@pytest.mark.parametrize(
    ("env_id", "tokens"),
    [
        ("CartPole-v1", 4 + 1 + 1),
        ("FrozenLake-v1", 1 + 1 + 1),
        ("Blackjack-v1", 3 + 1 + 1),
        ("test/Everything-v0", 3 + (1 + 2 + 4) + (11 + 1 + 4 + 4 + 3 + 3 + 3) + 1 + 5),
    ],
)
def test_an_environment_of_any_spaces_is_played_by_the_model(env_id: str, tokens: int) -> None:
    task = task_of(env_id, references=REFERENCES, max_steps=4, text_tokens=3)
    text = WordEncoder()
    assert StepLayout(task, TokenLayout(text=text)).tokens_per_step == tokens

    class Player:
        def __init__(self) -> None:
            model = small_model(64, max_observation_tokens=40)
            self.policy = Policy(model, task, ActingConfig(window_steps=1), text=text)
            self.state = self.policy.start(2)

        def act(self, step):
            self.state.reset(step.is_first)
            return self.policy.act(self.state, step.observations)

    envs = make_envs(task, 2)
    played = list(play(envs, Player(), [0, 1, 2], source="agent", new_key=lambda: "k"))
    envs.close()
    assert len(played) == 3
    for episode in played:
        check_episode(episode, task)
        if env_id == "test/Everything-v0":
            # each action was one that its space contains
            assert episode.rewards.tolist() == [1.0] * 4


def test_an_environment_without_a_limit_of_steps_needs_one() -> None:
    gymnasium.register("test/Endless-v0", EverythingEnv)
    with pytest.raises(ValueError, match="max_steps"):
        task_of("test/Endless-v0", references=REFERENCES, text_tokens=3)
    with pytest.raises(ValueError, match=r"test/Endless-v0 cannot become a task.*no encoder"):
        task_of("test/Endless-v0", references=REFERENCES, max_steps=3)
    with pytest.raises(ValueError, match="cannot make"):
        task_of("test/Nowhere-v0", references=REFERENCES)


def test_a_task_that_does_not_fit_its_environment_is_rejected() -> None:
    task = task_of("CartPole-v1", references=REFERENCES)
    other = task_of("FrozenLake-v1", references=REFERENCES)
    with pytest.raises(ValueError, match="make the task again"):
        make_envs(
            type(task)(
                name="t",
                env_id="CartPole-v1",
                family="gymnasium",
                observations=other.observations,
                action=task.action,
                references=REFERENCES,
                max_steps=5,
            ),
            1,
        )


def test_a_target_return_is_lowered_by_the_received_rewards() -> None:
    task = task_of(
        "CartPole-v1", references=References(random=0.0, expert=100.0, source="made"), max_steps=6
    )
    config = ModelConfig(
        num_layers=1,
        num_heads=2,
        width=32,
        feedforward=64,
        context_tokens=64,
        num_text_ids=1024,
        max_observation_tokens=8,
        patch_channels=32,
        patch_stride=8,
        return_conditioned=True,
    )
    model = Gato(config)
    acting = {task.name: ActingConfig(target_return=0.5)}
    player = GatoPlayers(model=config, evaluate=acting, generate=acting, seed=0)(
        task, 2, "evaluate"
    )
    player.load(Weights(version=Version(1, 1), learner_step=0, arrays=snapshot(model)))
    told: list[list[float]] = []
    steps = player._policy.steps
    plain = steps.observation_ids

    def noting(observations, returns=None, **options):
        told.append(returns.tolist())
        return plain(observations, returns, **options)

    steps.observation_ids = noting
    envs = make_envs(task, 2)
    episodes = list(play(envs, player, [0, 1, 2], source="agent", new_key=lambda: "k"))
    envs.close()
    assert [episode.num_steps for episode in episodes] == [6, 6, 6]
    # row 0 began the third episode
    assert told[:7] == [[50.0 - t] * 2 for t in range(6)] + [[50.0, told[6][1]]]


@pytest.mark.report("Farama-Foundation/Metaworld#556", "stanfordnmbl/osim-rl#184")
def test_a_box_with_equal_bounds_has_constants_and_plain_numbers() -> None:
    space = spaces.Box(np.array([0, 0.5, -1], np.float32), np.array([0, 0.5, 1], np.float32))
    spec = ObservationSpace(space).specs["state"]
    assert (spec.low, spec.high) == ((0.0, 0.5, -1.0), (0.0, 0.5, 1.0))
    assert "float64" not in str(spec)
    action = ActionSpace(space)
    ids = np.full((1, 3), TokenLayout().first_bin + 900)
    given = action.unflatten(decode(ids, action.spec, TokenLayout(), is_action=True)[0])
    assert given[:2].tolist() == [0.0, 0.5]
    assert space.contains(given)


def test_a_number_that_float32_cannot_hold_is_named() -> None:
    space = ObservationSpace(spaces.Box(-np.inf, np.inf, (2,), np.float64))
    with pytest.raises(
        ValueError, match=r"holds -1e\+300, but it is stored as float32, which ends at 3.4e38"
    ):
        space.flatten(np.array([1.0, -1e300]))
    assert np.isnan(space.flatten(np.array([1.0, np.nan]))["state"][1])  # which `VectorEnv` refuses


class Given(gymnasium.Env):
    """Returns the given values."""

    observation_space, action_space = spaces.Box(-1, 1, (2,)), spaces.Discrete(2)

    def __init__(self, begun: object, stepped: object) -> None:
        self.begun, self.stepped = begun, stepped

    def reset(self, *, seed: int | None = None, options: object = None) -> object:
        return self.begun

    def step(self, action: object) -> object:
        return self.stepped


SHOWN = np.zeros(2, np.float32)


@pytest.mark.parametrize(
    ("begun", "stepped", "message"),
    [
        (SHOWN, None, r"reset returned an array of shape \(2,\), expected \(observation, info\)"),
        ((SHOWN, 0), None, r"reset returned a tuple of 2, expected \(observation, info\)"),
        (
            (SHOWN, {}),
            (SHOWN, 1.0, False, {}),
            r"step did not return .* \(expected 5, got 4\); an environment of old gym",
        ),
        (
            (SHOWN, {}),
            (SHOWN, np.ones(2), False, False, {}),
            r"the reward is .* of shape \(2,\), expected a single number",
        ),
        (
            (SHOWN, {}),
            (SHOWN, "1", False, False, {}),
            "the reward is '1', expected a single number",
        ),
        (
            (SHOWN, {}),
            (SHOWN, [[1], [1, 2]], False, False, {}),
            "the reward is .*, expected a single number",
        ),
    ],
)
def test_what_reset_and_step_may_not_give_is_named_with_what_they_should(
    begun: object, stepped: object, message: str
) -> None:
    gymnasium.register(
        "Given-v0",
        entry_point=Given,
        max_episode_steps=9,
        kwargs={"begun": begun, "stepped": stepped},
    )
    try:
        task = task_of("Given-v0")
        env = GymnasiumEnv(task)
        with pytest.raises(ValueError, match=message):
            (env.reset(0), env.step(np.array(0)))
    finally:
        del gymnasium.registry["Given-v0"]


@pytest.mark.parametrize("reward", [1, True, np.float32(1.0), np.array(1.0), np.int64(1)])
def test_any_single_number_is_a_reward(reward: object) -> None:
    gymnasium.register(
        "Given-v0",
        entry_point=Given,
        max_episode_steps=9,
        kwargs={"begun": (SHOWN, {}), "stepped": (SHOWN, reward, False, False, {})},
    )
    try:
        env = GymnasiumEnv(task_of("Given-v0"))
        env.reset(0)
        assert env.step(np.array(0))[1] == 1.0
    finally:
        del gymnasium.registry["Given-v0"]
