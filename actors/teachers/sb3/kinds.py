"""The kinds of Stable-Baselines3 policies that are read, with the tensors and keywords of each."""

from __future__ import annotations

from dataclasses import dataclass

READ = (
    "MlpPolicy of PPO, A2C, TRPO, SAC, TQC, TD3, DDPG, DQN and ARS is, CnnPolicy, MultiInputPolicy,"
    " masked, recurrent, batch-normalised and quantile networks are not; play it yourself with"
    " python:PACKAGE.MODULE:FUNCTION"
)
TRAINING_ONLY = frozenset(
    {
        "net_arch",
        "activation_fn",
        "features_extractor_class",
        "features_extractor_kwargs",
        "normalize_images",
        "optimizer_class",
        "optimizer_kwargs",
    }
)
"""Keywords of every policy. The first four are checked; images are rejected, so nothing is divided
by 255."""
EXPLORATION = frozenset({"use_sde", "log_std_init", "use_expln", "sde_net_arch"})
"""Keywords of exploration in training, which is not played. The last one, of older versions, is
checked."""
CRITICS = r"critic(_target)?\.qf\d+\.\d+\.(weight|bias)"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyKind:
    """One kind of policy. `path` has the names of its layers in order; a name that ends in `.N`
    stands for several."""

    modules: tuple[str, ...]
    path: tuple[str, ...]
    unused: str
    """Regular expression of the names of tensors that do not change the greedy action."""
    keywords: frozenset[str]
    activation: str
    hidden: tuple[int, ...]
    """Default sizes of the hidden layers."""
    may_lack_bias: bool = False


KINDS = {
    "actor-critic": PolicyKind(
        modules=(
            "stable_baselines3.common.policies",
            "stable_baselines3.ppo.policies",
            "stable_baselines3.a2c.policies",
        ),
        path=("mlp_extractor.shared_net.N", "mlp_extractor.policy_net.N", "action_net"),
        unused=r"mlp_extractor\.value_net\.\d+\.(weight|bias)|value_net\.(weight|bias)|log_std",
        keywords=TRAINING_ONLY
        | EXPLORATION
        | {"ortho_init", "full_std", "share_features_extractor", "squash_output"},
        activation="tanh",
        hidden=(64, 64),
    ),
    "SAC": PolicyKind(
        modules=("stable_baselines3.sac.policies", "sb3_contrib.tqc.policies"),
        path=("actor.latent_pi.N", "actor.mu"),
        unused=rf"actor\.log_std(\.weight|\.bias)?|{CRITICS}",
        keywords=TRAINING_ONLY
        | EXPLORATION
        | {"clip_mean", "n_critics", "n_quantiles", "share_features_extractor"},
        activation="relu",
        hidden=(256, 256),
    ),
    "TD3": PolicyKind(
        modules=("stable_baselines3.td3.policies",),
        path=("actor.mu.N",),
        unused=rf"actor_target\.mu\.\d+\.(weight|bias)|{CRITICS}",
        keywords=TRAINING_ONLY | {"n_critics", "share_features_extractor"},
        activation="relu",
        hidden=(400, 300),
    ),
    "DQN": PolicyKind(
        modules=("stable_baselines3.dqn.policies",),
        path=("q_net.q_net.N",),
        unused=r"q_net_target\.q_net\.\d+\.(weight|bias)",
        keywords=TRAINING_ONLY,
        activation="relu",
        hidden=(64, 64),
    ),
    "ARS": PolicyKind(
        modules=("sb3_contrib.ars.policies",),
        path=("action_net.N",),
        unused="(?!)",
        keywords=frozenset({"net_arch", "activation_fn", "with_bias", "squash_output"}),
        activation="relu",
        hidden=(64, 64),
        may_lack_bias=True,
    ),
}
"""By the name in messages. DDPG's policy is TD3's; PPO, A2C and TRPO share one."""
