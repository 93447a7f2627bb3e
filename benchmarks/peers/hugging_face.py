"""Acting and training against transformers of equal size from Hugging Face, on one thread.

The Decision Transformer is the paper's (K = 20, three layers of 128, one head), without a cache:
its step encodes the last 20 steps. GPT-Neo plays as a Gato: the tokens of a step, then one action
token after the other from its cache, with the same vocabulary and as many parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from importlib import import_module
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from benchmarks.act import HOPPER, acting_model, seen
from benchmarks.bare_gpt import passed_parameters
from benchmarks.rows import Row
from benchmarks.timing import paired_s
from benchmarks.train import hopper_batch, loss_of, ratio, take_turns, training_step
from gato.acting.config import ActingConfig
from gato.acting.policy import Policy
from gato.config import PRESETS, ModelConfig
from gato.network.model import Gato
from gato.sequence import StepLayout
from learner.preparation.precision import has_bf16

STEPS = 20
"""The Decision Transformer's K."""
CONTEXT = 1024
TRANSFORMERS = f"transformers {version('transformers')}"
CPU = torch.device("cpu")
hf: Any = import_module("transformers")  # by name: an extra, which type checkers do not know


def decision_transformer() -> Any:
    torch.manual_seed(0)
    return hf.DecisionTransformerModel(
        hf.DecisionTransformerConfig(
            state_dim=11, act_dim=3, hidden_size=128, n_layer=3, n_head=1, max_ep_len=1000,
            activation_function="relu",
        )
    )  # fmt: skip


def windows(num_rows: int) -> dict[str, torch.Tensor]:
    """Inputs of the Decision Transformer: `num_rows` windows of `STEPS` steps."""
    rng = np.random.default_rng(0)

    def numbers(size: int) -> torch.Tensor:
        return torch.from_numpy(rng.normal(size=(num_rows, STEPS, size)).astype(np.float32))

    return {
        "states": numbers(11),
        "actions": numbers(3),
        "returns_to_go": numbers(1),
        "timesteps": torch.arange(STEPS).expand(num_rows, STEPS),
        "attention_mask": torch.ones(num_rows, STEPS),
    }


def decision_step(model: Any, num_envs: int) -> Callable[[], object]:
    """A step of N environments whose windows are full."""
    inputs = windows(num_envs)

    @torch.inference_mode()
    def once() -> np.ndarray:
        return model(**inputs).action_preds[:, -1].numpy()

    return once


def gpt_neo(config: ModelConfig) -> Any:
    """As wide and deep as `config`, its hidden layers made as wide as equal size asks: of what a
    Gato applies to tokens, which its projections of distances and its patches are not."""
    torch.manual_seed(0)
    shape: dict[str, Any] = {
        "vocab_size": config.layout.vocab_size,
        "hidden_size": config.width,
        "num_layers": config.num_layers,
        "num_heads": config.num_heads,
        "attention_types": [[["global"], config.num_layers]],
        "max_position_embeddings": CONTEXT,
        "attn_implementation": "eager",
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    with torch.device("meta"):
        fixed = hf.GPTNeoForCausalLM(hf.GPTNeoConfig(**shape, intermediate_size=16))
    missing = passed_parameters(replace(config, positions="rotary")) - fixed.num_parameters()
    a_unit = config.num_layers * (2 * config.width + 1)
    hidden = max(16, 16 + round(missing / a_unit / 16) * 16)
    return hf.GPTNeoForCausalLM(hf.GPTNeoConfig(**shape, intermediate_size=hidden))


def neo_step(model: Any, config: ModelConfig, num_envs: int) -> Callable[[], object]:
    """A step of N environments of Hopper at the end of a context that is full."""
    steps = StepLayout(HOPPER, config.layout)
    actions = HOPPER.action.num_tokens
    shown = steps.tokens_per_step - actions
    rng = np.random.default_rng(0)
    state = seen(num_envs, rng)
    ids = np.stack(
        [
            steps.step_ids({"state": state["state"][n : n + 1]}, np.zeros((1, actions), np.float32))
            .reshape(-1)[:shown]
            for n in range(num_envs)
        ]
    )  # fmt: skip
    first, past = torch.from_numpy(ids).long(), CONTEXT - steps.tokens_per_step
    cache = hf.DynamicCache()
    with torch.inference_mode():
        model(torch.zeros(num_envs, past, dtype=torch.long), cache=cache, use_cache=True)
    begin, end = config.layout.ids_of(HOPPER.action)

    @torch.inference_mode()
    def once() -> np.ndarray:
        if (new := cache.get_seq_length() - past) > 0:
            cache.crop(-new)
        chosen: list[torch.Tensor] = []
        token = first
        for _ in range(actions):
            logits = model(token, cache=cache, use_cache=True, logits_to_keep=1).logits
            token = logits[:, -1, begin:end].argmax(-1, keepdim=True) + begin
            chosen.append(token)
        return torch.cat(chosen, dim=1).numpy()

    return once


def our_step(preset: str, num_envs: int, window_steps: int | None) -> Callable[[], object]:
    """The same of our model, whose context is full."""
    policy = Policy(acting_model(preset), HOPPER, ActingConfig(window_steps=window_steps))
    state, rng = policy.start(num_envs), np.random.default_rng(0)
    shown = seen(num_envs, rng)
    for _ in range(policy.window_steps + 1):
        policy.act(state, shown)
    return partial(policy.act, state, shown)


def acting() -> Iterator[Row]:
    """Steps of Hopper, preset small, for one environment and for 16."""
    config = PRESETS["small"]
    with torch.inference_mode():
        decision, neo = decision_transformer().eval(), gpt_neo(config).eval()
    for num_envs in (1, 16):
        for window_steps in (1, STEPS, None):
            what = "1,024 tokens" if window_steps is None else f"{window_steps} steps"
            ours_s, theirs_s = paired_s(
                our_step("small", num_envs, window_steps), decision_step(decision, num_envs)
            )
            yield {
                "path": f"act, small, {num_envs} environments, {what}, and a Decision Transformer",
                "against": f"Hugging Face's, {STEPS} steps without a cache, {TRANSFORMERS}",
                "ours_s": ours_s,
                "theirs_s": theirs_s,
                "steps_per_s": num_envs / ours_s,
                "their_parameters": decision.num_parameters(),
            }
        ours_s, theirs_s = paired_s(
            our_step("small", num_envs, None), neo_step(neo, config, num_envs)
        )
        yield {
            "path": f"act, small, {num_envs} environments, 1,024 tokens, and GPT-Neo",
            "against": f"Hugging Face's, with its cache, {TRANSFORMERS}",
            "ours_s": ours_s,
            "theirs_s": theirs_s,
            "steps_per_s": num_envs / ours_s,
            "their_parameters": neo.num_parameters(),
        }


def training(num_rows: int = 4, repeats: int = 5) -> Iterator[Row]:
    """A training step of preset small: against GPT-Neo on the same tokens, and a step of Hopper's
    data against the Decision Transformer's."""
    config = PRESETS["small"]
    gato = Gato(config).train()
    batch = hopper_batch(config, num_rows, CPU)
    neo, decision = gpt_neo(config).train(), decision_transformer().train()
    ids = batch.ids.long()
    labels = torch.full_like(ids, -100)
    at = batch.target_at
    labels.view(-1)[at] = ids.view(-1)[at]
    inputs = windows(64)
    wanted = torch.rand_like(inputs["actions"])
    bf16 = has_bf16()
    optimised, name = partial(training_step, device=CPU, bf16=bf16), "bf16" if bf16 else "fp32"
    steps = {
        "ours": optimised(gato, partial(loss_of, gato, batch)),
        "neo": optimised(neo, lambda: neo(ids, labels=labels, use_cache=False).loss),
        "decision": optimised(
            decision,
            lambda: (decision(**inputs).action_preds - wanted).square().mean(),
        ),
    }
    seconds = take_turns(steps, repeats)
    ours_s = float(np.median(seconds["ours"]))
    # Of Hopper's steps, those that the batch trains on.
    our_steps = len(at) / HOPPER.action.num_tokens
    yield {
        "path": f"train step, CPU {name}, small, L={CONTEXT}, and GPT-Neo",
        "against": f"Hugging Face's, logits at every token, {TRANSFORMERS}",
        "ours_s": ours_s,
        "theirs_s": float(np.median(seconds["neo"])),
        "ratio": ratio(seconds["ours"], seconds["neo"]),
        "parameters": gato.num_parameters(),
        "their_parameters": neo.num_parameters(),
    }
    per_step = [second / our_steps for second in seconds["ours"]]
    theirs = [second / (64 * STEPS) for second in seconds["decision"]]
    yield {
        "path": f"train on a step of Hopper, CPU {name}, small, and a Decision Transformer",
        "against": f"Hugging Face's, 3 tokens a step for ours of 15, {TRANSFORMERS}",
        "ours_s": float(np.median(per_step)),
        "theirs_s": float(np.median(theirs)),
        "ratio": ratio(per_step, theirs),
        "their_parameters": decision.num_parameters(),
    }
