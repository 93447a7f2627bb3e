"""A report of a run as one HTML file: curves, numbers, settings, events and clips, with nothing
that is loaded from elsewhere and no script, to be sent to a colleague."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from cluster.control.run_journal import own_summary
from cluster.exporters.comparing import curves_of
from cluster.monitor.alerts import standing_alerts
from cluster.monitor.chart import Line, Panel, draw
from cluster.monitor.curves import Curves
from cluster.monitor.format import (
    NONE,
    bytes_text,
    count_text,
    duration_text,
    number_text,
    percent_text,
    printable,
    spread_text,
)
from cluster.monitor.scores import MEASURES, Scale
from cluster.monitor.summary import Summary
from cluster.runs.config_file import config_to_yaml
from cluster.runs.folder import RunFolder

MAX_CLIPS_BYTES = 64 << 20
"""Of all clips in a report; the others are named."""
KINDS = {".mp4": "video/mp4", ".gif": "image/gif"}
STYLE = """
:root{color-scheme:light dark;--line:#d5dbe1;--soft:#6b7785}
body{font:15px/1.5 system-ui,sans-serif;max-width:1120px;margin:2rem auto;padding:0 1rem}
h1{margin-bottom:0}h2{margin-top:2.2rem}.soft{color:var(--soft)}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .9rem .25rem 0;text-align:right;border-bottom:1px solid var(--line)}
th:first-child,td:first-child{text-align:left}td.text{text-align:left;overflow-wrap:anywhere}
.alert{border-left:4px solid #d1495b;padding:.3rem .8rem;margin:.4rem 0}
svg{max-width:100%;height:auto}.clips{display:flex;flex-wrap:wrap;gap:1.2rem}
figure{margin:0;max-width:340px}video,figure img{width:100%;image-rendering:pixelated}
pre{overflow:auto;padding:1rem;border:1px solid var(--line);font-size:13px}
"""


def report_of(folder: RunFolder) -> str:
    """The page.

    Raises:
        ValueError: The run has no journal, or a file of it is damaged.
    """
    summary, curves = own_summary(folder), curves_of(folder)
    now_s = summary.last_s
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        # Should a name get through unescaped after all, no script runs and nothing is loaded.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:;'
        " media-src data:; style-src 'unsafe-inline'\">",
        f"<title>{_text(summary.run)}</title><style>{STYLE}</style></head><body>",
        *_head(summary),
        *(
            f'<p class="alert"><b>{_text(alert.kind)}</b> {_text(alert.text)}</p>'
            for alert in standing_alerts(summary, now_s)
        ),
        "<h2>Returns</h2>",
        *_table(("task", "return", "of the teacher", *(f"of the {by}" for by in MEASURES[1:]),
                 "random", "teacher", "step", "episodes"), _task_rows(summary)),
        draw(_panels(summary, curves)),
        *_clips(folder.path / "clips"),
        "<h2>Learner and replay</h2>",
        *_table(("", ""), _facts(summary)),
        draw([Panel(title="loss", x_label="updates", lines=[_loss(curves)])]),
        *_events(summary),
        "<h2>Settings</h2>",
        f"<details><summary>All settings</summary><pre>{_text_lines(_settings(folder))}</pre>"
        "</details>",
        "</body></html>",
    ]  # fmt: skip
    return "\n".join(parts) + "\n"


def _text(text: object) -> str:
    """Names from files: neither markup nor control characters."""
    return escape(printable(text))


def _text_lines(text: str) -> str:
    return "\n".join(_text(line) for line in text.splitlines())


def _settings(folder: RunFolder) -> str:
    return config_to_yaml(folder.config())


def _head(summary: Summary) -> Iterator[str]:
    yield f"<h1>{_text(summary.run)}</h1>"
    begun_s = summary.first_s
    when = "never begun" if begun_s is None else time.strftime("%Y-%m-%d", time.localtime(begun_s))
    lasted = "" if begun_s is None else f", {duration_text(summary.last_s - begun_s)}"
    yield f'<p class="soft">{_text(summary.state)}; {when}{lasted}</p>'
    for by in MEASURES:
        over = summary.aggregate(by)
        if over is not None and over.num_tasks > 1:
            yield (
                f"<p>Interquartile mean over {over.num_tasks} tasks: <b>{over.text()}</b> of the"
                f" {by}'s</p>"
            )


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield "<table>"
    if any(titles):
        yield f"<tr>{''.join(f'<th>{_text(title)}</th>' for title in titles)}</tr>"
    for row in rows:
        yield f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>"
    yield "</table>"


def _task_rows(summary: Summary) -> list[list[str]]:
    rows: list[list[str]] = []
    for name in summary.task_names():
        task, scale = summary.tasks.get(name), summary.scales.get(name)
        if task is None or task.newest is None:
            rows.append([name, "failed" if task and task.last_failure else NONE, *[NONE] * 7])
            continue
        _, score = task.newest
        mean = score.returns.mean
        normalised = [number_text(scale.normalise(mean, by=by) if scale else None)
                      for by in MEASURES]  # fmt: skip
        rows.append([
            name,
            spread_text(mean, score.returns.std),
            *normalised,
            number_text(scale.random_return if scale else None),
            number_text(scale.teacher_return if scale else None),
            count_text(score.learner_step),
            str(score.returns.count),
        ])  # fmt: skip
    return rows


def _panels(summary: Summary, curves: Curves) -> list[Panel]:
    panels: list[Panel] = []
    for name in summary.task_names():
        points = curves.tasks.get(name, ())
        errors = [p.returns.std / max(1, p.returns.count) ** 0.5 for p in points]
        means = [p.returns.mean for p in points]
        line = Line(
            name=name,
            xs=[p.updates for p in points],
            ys=means,
            lows=[mean - error for mean, error in zip(means, errors, strict=True)],
            highs=[mean + error for mean, error in zip(means, errors, strict=True)],
        )
        references = _references(summary.scales.get(name))
        panels.append(Panel(title=name, x_label="updates", lines=[line], references=references))
    return panels


def _references(scale: Scale | None) -> list[tuple[str, float]]:
    if scale is None:
        return []
    named = {
        "random": scale.random_return,
        "teacher": scale.teacher_return,
        "human": scale.human_return,
    }
    return [(name, level) for name, level in named.items() if level is not None]


def _loss(curves: Curves) -> Line:
    xs, ys = [x for x, _ in curves.losses], [y for _, y in curves.losses]
    stride = max(1, len(xs) // 1000)
    return Line(name="loss", xs=xs[::stride], ys=ys[::stride], colour=1)


def _facts(summary: Summary) -> list[tuple[str, str]]:
    learner, replay = summary.learner, summary.replay
    facts: list[tuple[str, str]] = []
    if learner is not None:
        facts += [
            ("updates", f"{learner.step:,} of {learner.num_updates:,}"),
            ("loss", number_text(learner.loss.value)),
            ("tokens/s", count_text(summary.learner_rate("tokens"))),
            ("waits for data", percent_text(summary.learner_rate("wait_s"))),
            ("MFU", percent_text(learner.mfu or None)),
            ("memory", bytes_text(learner.memory_bytes) if learner.memory_bytes else NONE),
        ]
    if replay is not None:
        facts += [
            ("episodes stored", f"{sum(replay.episodes.values()):,}"),
            ("steps stored", f"{replay.steps:,}"),
            ("bytes stored", bytes_text(replay.stored_bytes)),
        ]
    facts.append(("workers", str(len(summary.workers))))
    return facts


def _events(summary: Summary) -> Iterator[str]:
    yield "<h2>Events</h2><table>"
    for event in summary.events:
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event.time_s))
        cells = "".join(f'<td class="text">{_text(said)}</td>' for said in (event.kind, event.text))
        yield f"<tr><td>{at}</td>{cells}</tr>"
    yield "</table>"


def _clips(folder: Path) -> Iterator[str]:
    """The newest clip of each task. What a file of facts says is not trusted."""
    files = sorted(file for file in folder.glob("**/*") if file.suffix in KINDS and file.is_file())
    newest = [file for file in files if not file.relative_to(folder).as_posix().startswith("step-")]
    chosen = newest or files
    if not chosen:
        return
    yield '<h2>Clips</h2><div class="clips">'
    left = MAX_CLIPS_BYTES
    for file in chosen:
        name = file.relative_to(folder).with_suffix("").as_posix()
        caption = f"{_text(name)}{_text(_said(file.with_suffix('.json')))}"
        size = file.stat().st_size
        if size > left:
            caption += f": {bytes_text(size)}, left out"
            yield f"<figure><figcaption>{caption}</figcaption></figure>"
            continue
        left -= size
        kind = KINDS[file.suffix]
        data = f"data:{kind};base64,{base64.b64encode(file.read_bytes()).decode()}"
        shown = (
            f'<video controls muted loop src="{data}"></video>'
            if kind.startswith("video")
            else f'<img alt="" src="{data}">'
        )
        yield f"<figure>{shown}<figcaption>{caption}</figcaption></figure>"
    yield "</div>"


def _said(facts: Path) -> str:
    try:
        plain = json.loads(facts.read_text())
        return f", update {int(plain['learner_step']):,}, return {float(plain['return']):,.1f}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
