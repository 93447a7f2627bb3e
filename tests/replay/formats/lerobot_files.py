"""A LeRobot v3 data set as its own library writes it, small enough for tests: every value says
which episode and step it is of."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

FPS = 10
TASKS = ("push the block", "open the drawer")


def shade(episode: int, step: int) -> int:
    """The grey of a frame."""
    return 20 + 30 * episode + 3 * step


def lerobot(path: Path, *, lengths: tuple[int, ...] = (5, 4, 6), video: bool = False) -> Path:
    """Episodes of so many steps, all in one file of data, and of film where there is `video`."""
    (path / "meta" / "episodes" / "chunk-000").mkdir(parents=True)
    (path / "data" / "chunk-000").mkdir(parents=True)
    rows: dict[str, list[Any]] = {
        name: []
        for name in ("observation.state", "action", "timestamp", "frame_index", "episode_index",
                     "index", "task_index")
    }  # fmt: skip
    frames: list[int] = []
    episodes: list[dict[str, Any]] = []
    for episode, length in enumerate(lengths):
        begin = len(frames)
        for step in range(length):
            rows["observation.state"].append([float(episode), float(step), 0.5])
            rows["action"].append([step / 10 - 0.2, 5.0 * episode])
            rows["timestamp"].append(step / FPS)
            rows["frame_index"].append(step)
            rows["episode_index"].append(episode)
            rows["index"].append(len(frames))
            rows["task_index"].append(episode % 2)
            frames.append(shade(episode, step))
        film = {
            "videos/observation.images.top/chunk_index": 0,
            "videos/observation.images.top/file_index": 0,
            "videos/observation.images.top/from_timestamp": begin / FPS,
            "videos/observation.images.top/to_timestamp": len(frames) / FPS,
        }
        episodes.append(
            {
                "episode_index": episode,
                "tasks": [TASKS[episode % 2]],
                "length": length,
                "data/chunk_index": 0,
                "data/file_index": 0,
                "dataset_from_index": begin,
                "dataset_to_index": len(frames),
                "stats/action/mean": [0.0, 0.0],
            }
            | (film if video else {})
        )
    if video:
        _film(path, frames)
    else:
        rows["observation.images.top"] = [
            {"bytes": _png(grey), "path": f"frame-{at}.png"} for at, grey in enumerate(frames)
        ]
    pq.write_table(pa.table(rows), path / "data" / "chunk-000" / "file-000.parquet")
    pq.write_table(
        pa.Table.from_pylist(episodes), path / "meta/episodes/chunk-000/file-000.parquet"
    )
    pq.write_table(
        pa.table({"task_index": [0, 1], "__index_level_0__": list(TASKS)}),
        path / "meta" / "tasks.parquet",
    )
    camera = {"dtype": "video" if video else "image", "shape": [48, 64, 3], "names": None}
    numbers = {"dtype": "float32", "names": None}
    (path / "meta" / "info.json").write_text(
        json.dumps(
            {
                "codebase_version": "v3.0",
                "robot_type": "test",
                "fps": FPS,
                "total_episodes": len(lengths),
                "total_frames": len(frames),
                "splits": {"train": f"0:{len(lengths)}"},
                "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
                "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
                if video
                else None,
                "features": {
                    "observation.state": numbers | {"shape": [3]},
                    "observation.images.top": camera,
                    "action": numbers | {"shape": [2]},
                    "timestamp": numbers | {"shape": [1]},
                    "task_index": {"dtype": "int64", "shape": [1], "names": None},
                },
            }
        )
    )
    return path


def _png(grey: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (64, 48), (grey, grey, grey)).save(out, "PNG")
    return out.getvalue()


def _film(path: Path, frames: list[int]) -> None:
    folder = path / "videos" / "observation.images.top" / "chunk-000"
    folder.mkdir(parents=True)
    film = imageio_ffmpeg.write_frames(
        str(folder / "file-000.mp4"), (64, 48), fps=FPS, codec="libx264", macro_block_size=1
    )
    film.send(None)
    for grey in frames:
        film.send(np.full((48, 64, 3), grey, np.uint8).tobytes())
    film.close()
