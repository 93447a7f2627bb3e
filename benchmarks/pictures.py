"""The pictures of the README from a finished run: its live table, and what it plays.

python -m benchmarks.pictures demo        # writes docs/pictures/watch.svg and
docs/pictures/play.gif
"""

from __future__ import annotations

import argparse
import io
import re
import time
from pathlib import Path

import cv2
import imageio.v3 as imageio
import numpy as np
from jaxtyping import UInt8
from PIL import Image
from rich.console import Console

from benchmarks.machine import ROOT
from cluster.control.run_journal import journal_of
from cluster.monitor.fold import read_summary
from cluster.monitor.scores import read_scales
from cluster.monitor.terminal.watch import render
from cluster.runs.folder import find_run

HEIGHT = 200
"""Of the film, in pixels."""
SECONDS, FRAMES_PER_S = 8.0, 12
COLORS = 64
COLUMNS = 84
FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
"""Rich names fonts on a server elsewhere; any fixed-width font will do."""


def table_svg(run: str) -> str:
    """The live table of a run as it is now, as an SVG picture."""
    folder = find_run(run)
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    with journal_of(folder) as journal:
        summary = read_summary(journal, folder.name, read_scales(folder.path))
    console.print(render(summary, now_s=time.time()))
    return FONTS.sub("", console.export_svg(title=f"gato watch {folder.name}"))


def film(files: list[Path]) -> list[UInt8[np.ndarray, "H W 3"]]:
    """The clips next to each other, each from its beginning and again from there when it ends."""
    rows: list[list[UInt8[np.ndarray, "H W 3"]]] = []
    for file in files:
        metadata = imageio.immeta(file)
        step = max(1.0, float(metadata.get("fps", 25.0)) / FRAMES_PER_S)
        frames = [np.asarray(frame)[..., :3] for frame in imageio.imiter(file)]
        kept = [frames[int(i * step) % len(frames)] for i in range(int(SECONDS * FRAMES_PER_S))]
        scale = HEIGHT / kept[0].shape[0]
        size = (round(kept[0].shape[1] * scale), HEIGHT)
        rows.append([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in kept])
    return [np.concatenate(parts, axis=1) for parts in zip(*rows, strict=True)]


def clips_of(folder: Path, tasks: tuple[str, ...]) -> list[Path]:
    """The clip of each task. Raises ValueError if one is missing."""
    found: list[Path] = []
    for task in tasks:
        files = [file for kind in ("mp4", "gif") if (file := folder / f"{task}.{kind}").is_file()]
        if not files:
            raise ValueError(f"there is no clip of {task} in {folder}")
        found.append(files[0])
    return found


def main() -> None:
    """Write both pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    asked = parser.parse_args()
    out = ROOT / "docs" / "pictures"
    out.mkdir(exist_ok=True)
    (out / "watch.svg").write_text(table_svg(asked.run))
    folder = find_run(asked.run)
    frames = film(clips_of(folder.path / "clips", folder.config().tasks))
    pictures = [Image.fromarray(frame).quantize(COLORS) for frame in frames]
    pictures[0].save(
        out / "play.gif",
        save_all=True,
        append_images=pictures[1:],
        duration=round(1000 / FRAMES_PER_S),
        loop=0,
        optimize=True,
    )


if __name__ == "__main__":
    main()
