"""The file of metrics of several portfolios: sums of all, and the worst of them by name."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from agent.errors import ConfigError
from agent.fleet.members import MemberState
from agent.fleet.metrics import WORST_COUNT, FleetMetrics
from agent.model import RunFigures, RunReport
from agent.observe.health import RunHealth, judge_health

prometheus_parser = pytest.importorskip("prometheus_client.parser")

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class FakeMember:
    """A portfolio with the report of a run that has looked just now."""

    def __init__(
        self,
        name: str,
        *,
        state: MemberState = MemberState.WAITING,
        trouble: str = "",
        drift_bps: int = 0,
        loss: str | None = None,
        is_served: bool = True,
    ) -> None:
        self.name = name
        self.state = state
        now_s = int(time.time())
        report = RunReport("run", "", True, 600, now_s - 9_000, now_s, 1, now_s, now_s)
        if trouble:
            report = replace(report, last_good_cycle_at_s=None, trouble=trouble)
        figures = RunFigures(drifts_bps=(("WETH", drift_bps),), loss_24h=loss, loss_limit=None if loss is None else "100")
        self._report = replace(report, figures=figures)
        self._is_served = is_served

    @property
    def run_figures(self) -> tuple[RunReport, RunHealth] | None:
        return (self._report, judge_health(self._report, time.time())) if self._is_served else None


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "trimtab.prom"


def written(file: Path, members: list[FakeMember], metrics: FleetMetrics | None = None) -> Samples:
    """The samples of a file with these portfolios, by name and labels."""
    metrics = metrics or FleetMetrics(file)
    metrics.write_if_due(members)  # type: ignore[arg-type]  # fakes
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in prometheus_parser.text_string_to_metric_families(file.read_text())
        for sample in family.samples
    }


def worst_names(samples: Samples) -> set[str]:
    return {dict(labels)["portfolio"] for (name, labels) in samples if name == "trimtab_healthy"}


def test_portfolios_are_counted_by_state(file: Path) -> None:
    members = [FakeMember("a"), FakeMember("b"), FakeMember("c", state=MemberState.BACKING_OFF, is_served=False)]
    samples = written(file, members)
    assert samples["trimtab_fleet_portfolios", (("state", "waiting"),)] == 2
    assert samples["trimtab_fleet_portfolios", (("state", "backing off"),)] == 1
    assert samples["trimtab_fleet_portfolios", (("state", "hung"),)] == 0


def test_looks_are_counted_by_outcome_with_lateness_and_duration(file: Path) -> None:
    metrics = FleetMetrics(file)
    for outcome, late_s in (("hold", 0.1), ("hold", 4.0), ("done", -1.0)):
        metrics.on_look(outcome, 0.2, late_s)
    samples = written(file, [], metrics)
    assert samples["trimtab_fleet_looks_total", (("outcome", "hold"),)] == 2
    assert samples["trimtab_fleet_looks_total", (("outcome", "done"),)] == 1
    assert samples["trimtab_fleet_lateness_seconds_bucket", (("le", "0.25"),)] == 2
    assert samples["trimtab_fleet_lateness_seconds_bucket", (("le", "5.0"),)] == 3
    assert samples["trimtab_fleet_look_seconds_count", ()] == 3


def test_jobs_of_the_queue_are_counted_by_state_for_a_worker_alone(file: Path) -> None:
    metrics = FleetMetrics(file)
    metrics.write_if_due([], {"due": 3, "stalled": 1})
    assert 'trimtab_fleet_jobs{state="due"} 3.0\ntrimtab_fleet_jobs{state="stalled"} 1.0\n' in file.read_text()
    assert not [name for name, _ in written(file, []) if name == "trimtab_fleet_jobs"]


def test_the_worst_twenty_are_named_unhealthy_ones_first(file: Path) -> None:
    healthy = [FakeMember(f"m{number:02}", drift_bps=number) for number in range(40)]
    unhealthy = [FakeMember(f"bad{number}", trouble="no endpoint answers") for number in range(3)]
    names = worst_names(written(file, [*healthy, *unhealthy]))
    assert len(names) == WORST_COUNT
    assert {"bad0", "bad1", "bad2"} <= names
    assert "m39" in names
    assert "m22" not in names


def test_a_used_loss_budget_is_worse_than_a_drift(file: Path) -> None:
    drifted = [FakeMember(f"drift{number}", drift_bps=-900) for number in range(WORST_COUNT)]
    names = worst_names(written(file, [*drifted, FakeMember("loss", loss="99")]))
    assert "loss" in names


def test_an_unknown_loss_budget_is_no_used_one(file: Path) -> None:
    unknown = [FakeMember(f"unknown{number:02}") for number in range(WORST_COUNT + 1)]
    names = worst_names(written(file, [*unknown, FakeMember("loss", loss="1")]))
    assert "loss" in names


def test_each_metric_of_a_run_has_the_name_of_its_portfolio(file: Path) -> None:
    samples = written(file, [FakeMember("a", drift_bps=120)])
    assert samples["trimtab_drift_bps", (("portfolio", "a"), ("symbol", "WETH"))] == 120
    assert samples["trimtab_healthy", (("portfolio", "a"),)] == 1


def test_portfolio_metrics__leave_out_what_another_worker_serves(file: Path) -> None:
    samples = written(file, [FakeMember("a"), FakeMember("b", state=MemberState.STANDING_BY, is_served=False)])
    assert worst_names(samples) == {"a"}
    assert samples["trimtab_fleet_portfolios", (("state", "standing by"),)] == 1


def test_a_file_that_cannot_be_written_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--metrics-file"):
        FleetMetrics(tmp_path / "no folder" / "trimtab.prom")


def test_metrics_that_cannot_be_encoded__end_no_run(file: Path) -> None:
    assert worst_names(written(file, [FakeMember("\udcffeth")])) == set()


def test_vanished_folder__is_reported_once_and_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "metrics"
    folder.mkdir()
    metrics = FleetMetrics(folder / "trimtab.prom")
    warnings: list[str] = []
    monkeypatch.setattr(metrics._log, "warning", lambda event, **_: warnings.append(event))
    (folder / "trimtab.prom").unlink()
    folder.rmdir()
    for failure_count in (1, 2):
        for _ in range(2):
            metrics._written_s = -1_000.0
            metrics.write_if_due([])
        assert warnings == ["metrics not written"] * failure_count
        folder.mkdir()
        metrics._written_s = -1_000.0
        assert ("trimtab_fleet_unhealthy", ()) in written(folder / "trimtab.prom", [], metrics)
        (folder / "trimtab.prom").unlink()
        folder.rmdir()
