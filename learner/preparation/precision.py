"""How the learner computes, measured on its own model: precision, and threads on a CPU."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from gato.threads import use_threads
from learner.config import LearnerConfig

FILE = "computing.json"
PATIENCE_S = 60.0
"""How long all measurements may take; what is the fastest until then is taken."""
HOPELESS, HOPELESS_S = 4.0, 2.0
"""A way whose first step takes so many times the fastest's, and so many seconds, is not tried
again."""
GAIN = 0.95
"""Another way must take at most this share of the time: more threads are other processes' loss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Computing:
    """How an update is computed."""

    bf16: bool
    """Products in bfloat16 (autocast); weights and sums stay float32."""
    threads: int
    """Of one operation on a CPU; 0 on a GPU."""

    def __str__(self) -> str:
        name = "bf16" if self.bf16 else "fp32"
        if not self.threads:
            return name
        return f"{name}, {self.threads} thread{'s' if self.threads > 1 else ''}"


def candidates(
    config: LearnerConfig, device: torch.device, *, max_threads: int
) -> tuple[Computing, ...]:
    """The ways that the settings leave open; one of them is taken without a measurement.

    Args:
        config: What it says is not measured.
        device: Where the model is.
        max_threads: That leave room for the workers.
    """
    if device.type == "cuda":
        precisions = (
            (True, False) if torch.cuda.is_bf16_supported(including_emulation=False) else (False,)
        )
        threads: Sequence[int] = (0,)
    else:
        precisions = (False, True) if has_bf16() else (False,)
        doubled = [1 << n for n in range(16) if 1 << n < max_threads]
        threads = (config.num_threads,) if config.num_threads else (*doubled, max_threads)
    if config.bf16 is not None:
        precisions = (config.bf16,)
    return tuple(Computing(bf16=bf16, threads=count) for bf16 in precisions for count in threads)


def has_bf16() -> bool:
    """Whether this CPU has products in bfloat16, or a fast way around them. On others, such as
    those with AVX2 alone, they take 16 times as long as in float32."""
    mkldnn: Any = torch.ops.mkldnn
    return torch.backends.mkldnn.is_available() and mkldnn._is_mkldnn_bf16_supported()


def bf16_unless_said(config: LearnerConfig, device: torch.device) -> bool:
    """The precision of several learners, which must be the same, by the kind of device: until it is
    measured, and where it cannot be."""
    if config.bf16 is not None:
        return config.bf16
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def use(computing: Computing) -> None:
    """Set what holds for the whole process."""
    if computing.threads:
        use_threads(computing.threads)


def choose(
    ways: Sequence[Computing], once: Callable[[Computing], None], device: torch.device
) -> tuple[Computing, dict[str, float]]:
    """The fastest of several ways, and the seconds that one step takes with each.

    Each is tried once to warm up, then three times, of which the fastest counts: what else runs on
    the machine only ever makes a step slower. A hopeless one is tried once. With more threads than
    the fastest so far a way must gain 5 %. After a minute the rest is left out.

    Args:
        ways: At least one.
        once: Loss and gradient of one batch, without an update.
        device: Where it computes.
    """
    taken: dict[str, float] = {}
    best = ways[0]
    begun_s = time.monotonic()
    for way in ways:
        if taken and time.monotonic() - begun_s > PATIENCE_S:
            break
        use(way)
        step = partial(_seconds, lambda way=way: once(way), device)
        first_s = step()
        is_hopeless = bool(taken) and first_s > max(HOPELESS_S, HOPELESS * taken[str(best)])
        taken[str(way)] = first_s if is_hopeless else min(first_s, *(step() for _ in range(3)))
        needed = GAIN if way.threads > best.threads else 1.0
        if taken[str(way)] < needed * taken[str(best)]:
            best = way
    use(best)
    return best, taken


def told(taken: Computing, seconds: Mapping[str, float], *, rows: int) -> str:
    """The choice with what was measured on so many rows, for people."""
    tried = ", ".join(f"{way} {1000 * each:.0f} ms" for way, each in seconds.items())
    what = f"gradient of {rows} row{'s' if rows > 1 else ''}"
    return f"computes with {taken} ({what}: {tried})"


def _seconds(act: Callable[[], None], device: torch.device) -> float:
    begun_s = time.perf_counter()
    act()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begun_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A choice as it is kept beside the checkpoints, so that a resumed run computes as before."""

    machine: str
    ways: str
    """Among which it was made."""
    computing: Computing


def kept_choice(folder: Path, ways: Sequence[Computing], device: torch.device) -> Computing | None:
    """The choice of an earlier learner of this run, if it had the same to choose from on the same
    kind of machine."""
    try:
        plain = json.loads((folder / FILE).read_text())
        kept = Measured(
            machine=plain["machine"],
            ways=plain["ways"],
            computing=Computing(**plain["computing"]),
        )
    except (OSError, ValueError, KeyError, TypeError):  # none, or no use: it is measured again
        return None
    expected = Measured(machine=machine(device), ways=_text(ways), computing=kept.computing)
    return kept.computing if kept == expected else None


def keep_choice(
    folder: Path, ways: Sequence[Computing], device: torch.device, computing: Computing
) -> None:
    """Raises OSError if it cannot be written."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = Measured(machine=machine(device), ways=_text(ways), computing=computing)
    draft = folder / f"{FILE}.{os.getpid()}.tmp"
    draft.write_text(json.dumps(asdict(kept), indent=1) + "\n")
    draft.replace(folder / FILE)


def _text(ways: Sequence[Computing]) -> str:
    return "; ".join(map(str, ways))


def machine(device: torch.device) -> str:
    """The kind of processor that computes."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
