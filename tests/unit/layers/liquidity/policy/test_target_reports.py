"""Tests of agent/layers/liquidity/policy/target_reports.py: value, share, due moves and skipped ones of each target."""

from __future__ import annotations

from fractions import Fraction

import pytest

from agent.errors import Refused
from agent.layers.liquidity.policy.target_reports import TargetReport, target_reports
from agent.layers.liquidity.state import LiquidityProgress
from agent.model import StepInput
from agent.reference import reference_prices
from tests.support.builders import with_limits, with_snapshot
from tests.support.lp_worlds import USD, lp_target, paired, quiet, ranged, roomy, v2_at, v3_at, world


def reports(step: StepInput) -> tuple[TargetReport, ...]:
    return target_reports(step, reference_prices(step).price_by_token)


def test_reports_are_in_the_order_of_the_config() -> None:
    fees = (60 * USD, 3 * 10**16)
    step = world([paired(1_000), ranged(1_000, 1_800, 2_200, owed=fees, core_owed=fees)], [lp_target(500), lp_target(2_000, v2_at())])

    range_report, pair_report = reports(step)

    assert [report.target.share_bps for report in (range_report, pair_report)] == [500, 2_000]
    assert (float(range_report.value), range_report.fees) == (pytest.approx(1_120 * USD, rel=1e-6), 120 * USD)
    assert (float(pair_report.value), pair_report.fees) == (pytest.approx(1_000 * USD, rel=1e-6), 0)
    assert [float(report.share or 0) for report in (range_report, pair_report)] == pytest.approx([1_120 / 10_120, 1_000 / 10_120])


def test_report_has_the_due_moves_of_its_own_pool() -> None:
    step = world([paired(0), ranged(2_000, 1_800, 2_200)], [lp_target(1_000), lp_target(1_000, v2_at())])

    range_report, pair_report = reports(step)

    assert [reason.split()[-1] for reason in range_report.due_reasons] == ["withdrawn"]
    assert [reason.split()[-1] for reason in pair_report.due_reasons] == ["provided"]
    assert (range_report.skipped_reasons, pair_report.skipped_reasons) == ((), ())


def test_report_names_positions_out_of_range() -> None:
    step = world([ranged(800, 2_200, 2_600, 1), ranged(800, 1_800, 2_200, 2)], [lp_target(1_700)], trigger=quiet())

    [report] = reports(step)

    assert report.out_of_range_names == ("uniswap_v3 #1",)


@pytest.mark.parametrize(("pushed", "deviation"), [(Fraction(1), 0), (Fraction(12, 10), 0.2)], ids=["level", "pushed"])
def test_report_has_the_deviation_of_its_pool(pushed: Fraction, deviation: float) -> None:
    [report] = reports(world(targets=[lp_target(1_000, v2_at(pushed))], pushed=pushed))

    assert report.pool_deviation is not None
    assert min(abs(float(report.pool_deviation) - deviation), abs(float(report.pool_deviation) - (1 - 1 / (1 + deviation)))) < 1e-6


def test_report_of_an_unread_pool_has_the_reason() -> None:
    step = world(targets=[lp_target(1_000)])

    [report] = reports(with_snapshot(step, pools=step.snapshot.pools[:-1]))

    assert (report.pool_deviation, report.value, report.share) == (None, 0, 0)
    assert report.skipped_reasons == ("the pool was not read: it is not pinned; trimtab trust pins it",)


def test_report_has_what_a_limit_skips_of_its_positions() -> None:
    """Above a limit the skipped items are named by position, not by target."""
    step = world(
        [ranged(2_000, 1_800, 2_200), paired(0)], [lp_target(2_000), lp_target(100, v2_at())], bounds=roomy(lp_max_weight_bps=1_500)
    )
    step = step.with_progress(LiquidityProgress(failed_withdrawal_pools=(v3_at().address,)))

    range_report, pair_report = reports(step)

    assert range_report.skipped_reasons == ("not withdrawn: its withdrawal failed in this step",)
    assert pair_report.skipped_reasons == ()


def test_report_of_an_empty_portfolio_has_no_share() -> None:
    [report] = reports(world(targets=[lp_target(1_000)], values={"WETH": 0, "USDC": Fraction(1, 10**7)}))

    assert report.share is None


def test_reports_are_none_without_targets() -> None:
    assert reports(world([paired(100)])) == ()


def test_reports_are_refused_while_a_position_is_unknown() -> None:
    step = with_limits(world([paired(100)], [lp_target(1_000, v2_at())]), lp_max_weight_bps=None)

    with pytest.raises(Refused, match="it was not read"):
        reports(with_snapshot(step, positions=()))
