"""The dashboard and what feeds it: metrics that exist, with labels that they have, and files that
are where docker-compose.yml mounts them."""

from __future__ import annotations

import json
import re
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from cluster.monitor.fold import fold
from cluster.monitor.prometheus import metrics_text
from cluster.monitor.scores import Scale
from cluster.monitor.summary import Summary
from gato.metrics import Mean
from tests.cluster.exporters.test_follow import TASK, records
from tests.cluster.hosts import ROOT
from tests.deploy.recipes import documents

DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy/grafana/gato.json").read_text())
METRIC = re.compile(r"\b(gato_\w+)(?:\{([^}]*)\})?")
LABEL = re.compile(r"(\w+)=~?\"")


def metrics() -> dict[str, set[str]]:
    """Every metric that a run has, with its labels."""
    from dataclasses import replace

    from cluster.journal.records import Event
    from gato.metrics import LearnerReport

    summary = Summary(run="demo", scales={TASK: Scale(random_return=0.0, teacher_return=100.0)})
    kept = [*records(), Event(kind="task failed", text="x", time_s=0.0)]
    for number, record in enumerate(kept, start=1):
        if isinstance(record, LearnerReport):
            record = replace(
                record, loss_by_task={TASK: Mean(1.0, 1)}, accuracy_by_task={TASK: Mean(1.0, 2)},
                seconds={"forward": 1.0}, memory_bytes=5,
            )  # fmt: skip
        summary = fold(summary, f"{number}-0", float(number), record)
    text = metrics_text([summary], summary.last_s).decode()
    return {
        sample.name: set(sample.labels)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_every_panel_asks_for_metrics_and_labels_that_there_are() -> None:
    known = metrics()
    asked: set[str] = set()
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            labels = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            found = METRIC.findall(target["expr"])
            assert found, panel["title"]
            for name, selector in found:
                asked.add(name)
                assert name in known, f"{panel['title']}: {name}"
                assert labels | set(LABEL.findall(selector)) <= known[name], panel["title"]
                assert 'run=~"$run"' in selector
    variables = {v["name"]: v for v in DASHBOARD["templating"]["list"]}
    assert variables["run"]["definition"] == "label_values(gato_run_state, run)"
    page = (ROOT / "docs/how-to/exporters.md").read_text()
    documented = set(re.findall(r"`(gato_[a-z_]+)`", page))
    assert known.keys() == documented
    assert asked <= documented


def test_panels_lie_side_by_side() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(at["x"] + i, at["y"] + j) for i in range(at["w"]) for j in range(at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells


def test_what_is_mounted_is_there_and_speaks_of_the_same_places() -> None:
    services = documents("docker-compose.yml")[0]["services"]
    mounts = [m for name in ("prometheus", "grafana") for m in services[name]["volumes"]]
    for mount in mounts:
        source, _, options = mount.partition(":")
        assert not source.startswith("./") or (ROOT / source).is_file(), mount
        assert not source.startswith("./") or options.endswith(":ro")
    (scraped,) = documents("deploy/prometheus/prometheus.yml")[0]["scrape_configs"]
    assert scraped["static_configs"] == [{"targets": ["metrics:9464"]}]
    assert "0.0.0.0:9464" in services["metrics"]["command"]
    token = scraped["authorization"]["credentials_file"]
    assert token == services["metrics"]["command"][-1]
    assert services["prometheus"]["secrets"] == ["token"]
    (source,) = documents("deploy/grafana/datasource.yml")[0]["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert DASHBOARD["templating"]["list"][0]["current"]["value"] == source["uid"]
    (provider,) = documents("deploy/grafana/dashboards.yml")[0]["providers"]
    assert any(f"{provider['options']['path']}/gato.json" in mount for mount in mounts)
