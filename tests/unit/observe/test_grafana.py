"""The dashboard of deploy/grafana.json asks for metrics that there are."""

from __future__ import annotations

import json
import re
from pathlib import Path

from agent.fleet.metrics import FleetMetrics
from agent.model import RunFigures, RunReport
from agent.observe.health import judge_health
from agent.observe.metrics import metric_families

DASHBOARD = json.loads((Path(__file__).parents[3] / "deploy" / "grafana.json").read_text())


def test_the_panels_of_grafana_ask_for_metrics_that_are_written(tmp_path: Path) -> None:
    names_of_panels = {
        name for panel in DASHBOARD["panels"] for target in panel["targets"] for name in re.findall(r"trimtab_\w+", target["expr"])
    }
    figures = RunFigures(drifts_bps=(("WETH", 1),), endpoint_scores_ppm=(("a", 1),))
    report = RunReport("a", "", True, 600, 1, 1, transactions=(("swap final", 1),), figures=figures)
    of_run = {sample.name for family in metric_families(report, judge_health(report, 1), 1) for sample in family.samples}
    metrics = FleetMetrics(tmp_path / "trimtab.prom")
    metrics.on_look("hold", 0.1, 0.0)
    metrics.write_if_due([])
    of_fleet = set(re.findall(r"^(trimtab_\w+)", (tmp_path / "trimtab.prom").read_text(), re.MULTILINE))
    assert names_of_panels
    assert names_of_panels <= of_run | of_fleet


def test_the_panels_of_grafana_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
