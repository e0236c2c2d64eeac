"""docs/service.md is true: metrics, events and exit codes are those of the code."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from agent import errors
from agent.fleet.metrics import FleetMetrics
from agent.model import RunFigures, RunReport
from agent.observe.health import judge_health
from agent.observe.metrics import metric_families
from tests.support.pages_of_docs import rows

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "service.md").read_text(encoding="utf-8")


def test_metrics__are_those_registered_with_their_labels() -> None:
    listed = {cells[0].strip("`"): tuple(re.findall(r"`(\w+)`", cells[1])) for cells in rows(PAGE) if cells[0].startswith("`trimtab_")}
    figures = RunFigures(drifts_bps=(("WETH", 1),), endpoint_scores_ppm=(("a", 1),))
    report = RunReport("a", "", True, 600, 1, 1, transactions=(("swap final", 1),), figures=figures)
    samples = [sample for family in metric_families(report, judge_health(report, 1), 1) for sample in family.samples]
    assert listed == {sample.name: tuple(sample.labels) for sample in samples}


def test_wallet_metrics__are_those_of_the_file_with_labels(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "many-wallets.md").read_text(encoding="utf-8")
    listed = {cells[0].strip("`"): set(re.findall(r"`(\w+)`", cells[1])) for cells in rows(page) if cells[0].startswith("`trimtab_")}
    metrics = FleetMetrics(tmp_path / "trimtab.prom")
    metrics.on_look("hold", 0.1, 0.0)
    metrics.write_if_due([], {"due": 1})
    written: dict[str, set[str]] = {}
    for family in text_string_to_metric_families((tmp_path / "trimtab.prom").read_text()):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        written[name] = {label for sample in family.samples for label in sample.labels} - {"le"}
    assert listed == written


def test_the_events_are_those_that_are_logged() -> None:
    logged: set[str] = set()
    app = ROOT / "agent" / "app"
    fleet = ROOT / "agent" / "fleet"
    logging = [app / "service.py", app / "records" / "cycle_report.py"]
    logging += [fleet / f"{name}.py" for name in ("members", "metrics", "run", "wake_ups")]
    log_calls = {
        f"{log}.{level}" for log in ("log", "self.log", "self._log", "service.log", "Log()") for level in ("info", "warning", "error")
    }
    for node in (node for path in logging for node in ast.walk(ast.parse(path.read_text()))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {*log_calls, "log_event"}:
            logged |= {node.value for node in ast.walk(node.args[0]) if isinstance(node, ast.Constant)}
        if isinstance(node, ast.Tuple) and len(node.elts) == 2 and isinstance(node.elts[0], ast.Constant):
            logged.add(node.elts[0].value)
    log_lines = PAGE.partition("**Log lines**")[2].partition("All lines are")[0]
    assert set(re.findall(r"`([a-z ]+)`", log_lines)) == {event for event in logged if isinstance(event, str)}


def test_the_exit_codes_are_those_of_the_errors() -> None:
    listed = [int(cells[0]) for cells in rows(PAGE.partition("## How it ends")[2]) if cells[0].isdecimal()]
    assert listed == sorted(value for name, value in vars(errors).items() if name.startswith("EXIT_"))
