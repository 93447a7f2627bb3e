"""Episodes for tests: every value says which episode and step it is of."""

from pathlib import Path

import lmdb
import numpy as np

from gato.array_spec import ArraySpec, Kind
from gato.episode import AGENT, Episode
from gato.task import References, Task
from gato.tokenizer import TokenLayout
from gato.version import Version
from replay.config import ReplayConfig
from replay.rate_limiter import LimiterConfig
from replay.sampling.config import MixConfig, TaskMix
from replay.storage.record import (
    Record,
    chunk_steps,
    episode_of,
    open_value,
    pack,
    record_to_bytes,
)

LAYOUT = TokenLayout(num_text_ids=1024)
COUNTER = Task(
    name="test/counter",
    env_id="Counter-v0",
    family="test",
    observations={"state": ArraySpec(kind=Kind.DISCRETE, shape=(2,), num_values=1000)},
    action=ArraySpec(kind=Kind.DISCRETE, shape=(), num_values=1000),
    references=References(random=0.0, expert=10.0, source="made"),
    max_steps=10_000,
)
PICTURES = Task(
    name="test/pictures",
    env_id="Pictures-v0",
    family="test",
    observations={"image": ArraySpec(kind=Kind.IMAGE, shape=(48, 48, 3))},
    action=ArraySpec(kind=Kind.DISCRETE, shape=(), num_values=1000),
    references=References(random=0.0, expert=10.0, source="made"),
    max_steps=10_000,
)
TASKS = {task.name: task for task in (COUNTER, PICTURES)}


def counter_episode(
    number: int,
    steps: int = 10,
    *,
    key: str | None = None,
    source: str = "teacher:t",
    reward: float = 1.0,
) -> Episode:
    """`state` is (episode, step), the action is the step."""
    state = np.stack([np.full(steps, number), np.arange(steps)], axis=1).astype(np.int64)
    return Episode(
        key=key or f"k{number}",
        task=COUNTER.name,
        source=source,
        observations={"state": state},
        actions=np.arange(steps, dtype=np.int64),
        rewards=np.full(steps, reward, np.float32),
        terminated=True,
        truncated=False,
        seed=number,
        version=Version(1, number) if source == AGENT else None,
    )


def picture_episode(number: int, steps: int = 20) -> Episode:
    """Every pixel is the step, the action is the step."""
    image = np.broadcast_to(
        np.arange(steps, dtype=np.uint8)[:, None, None, None], (steps, 48, 48, 3)
    )
    return Episode(
        key=f"p{number}",
        task=PICTURES.name,
        source="teacher:t",
        observations={"image": np.ascontiguousarray(image)},
        actions=np.arange(steps, dtype=np.int64),
        rewards=np.ones(steps, np.float32),
        terminated=False,
        truncated=True,
        seed=number,
    )


def to_bytes(episode: Episode) -> bytes:
    """As a writer sends it."""
    return record_to_bytes(pack(episode))


def unpack(record: Record) -> Episode:
    """The episode of a record in memory."""
    steps, arrays = record.header.steps, dict[str, np.ndarray]()
    for index, (name, (dtype, shape)) in enumerate(record.header.columns.items()):
        each = chunk_steps(dtype, shape, steps)
        arrays[name] = np.concatenate(
            [
                open_value(record.values[index, chunk], dtype, shape, min(each, steps - start))
                for chunk, start in enumerate(range(0, steps, each))
            ]
        )
    return episode_of(record.header, arrays)


def config(
    *,
    rows: int = 8,
    row_tokens: int = 40,
    window_steps: int | None = 2,
    prompt_fraction: float = 0.0,
    prompt_steps: int | None = 1,
    capacity_bytes: int = 64 << 20,
    limiter: LimiterConfig | None = None,
    weights: tuple[float, float] = (1.0, 0.0),
) -> ReplayConfig:
    return ReplayConfig(
        capacity_bytes=capacity_bytes,
        limiter=limiter or LimiterConfig(warmup_tokens=0),
        mix=MixConfig(
            rows=rows,
            row_tokens=row_tokens,
            prompt_fraction=prompt_fraction,
            prompt_steps=prompt_steps,
            tasks={
                COUNTER.name: TaskMix(weight=weights[0], window_steps=window_steps),
                PICTURES.name: TaskMix(weight=weights[1], window_steps=window_steps),
            },
        ),
    )


def flip_a_bit(folder: Path, *, number: int, database: str = "columns") -> None:
    """Damage the last byte of the first value of an episode in a store that is closed."""
    env = lmdb.open(str(folder), max_dbs=4, map_size=1 << 28)
    opened = env.open_db(database.encode())
    with env.begin(write=True) as txn:
        cursor = txn.cursor(db=opened)
        assert cursor.set_range(number.to_bytes(8, "big"))
        key, value = bytes(cursor.key()), bytearray(cursor.value())
        value[-1] ^= 1
        txn.put(key, bytes(value), db=opened)
    env.close()
