"""Whole simulations: by hand arithmetic, without looking ahead, with the decisions and the books of a live agent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from agent import codec, research
from agent.amm import POOL_KIND_BY_CURVE_NAME
from agent.amm.v2 import get_amount_out
from agent.backtest import context
from agent.backtest.report.series import growth_series
from agent.backtest.result import SimulationResult
from agent.backtest.settings import WALLET, AnswerLog, ChoiceLog, OwnerTransfer, SimulationSettings, make_spec
from agent.backtest.simulate import SimulationRun
from agent.errors import ConfigError
from agent.execution import settlement
from agent.model import (
    Allocation,
    AllocationMethod,
    AnyOf,
    Cron,
    Drawdown,
    Every,
    HybridTrigger,
    IntentKind,
    Rebalance,
    StepInput,
    Threshold,
    Trigger,
)
from agent.model.weights import SignalAnswer, SignalMarket, SignalRequest
from agent.planning import planner
from agent.policy.decide import decide
from agent.store import Store, open_store
from agent.store.database.connection import MemoryDatabase
from tests.support.backtests import (
    BAND,
    COIN,
    DEEP,
    HALVES,
    HOUR_S,
    START_S,
    halves,
    hourly,
    random_table,
    simulation_of,
    with_reserve,
)
from tests.support.builders import token
from tests.support.planning_worlds import PLAIN
from tests.support.signals import SIGNAL, signal_step
from tests.support.studies.signal_views import view
from tests.support.text import mentions, raises_field

CROSSING = [100.0, 100, 130, 130, 104]
"""56.5 % of BTC in bar 2: beyond 55. Back at 50/50 there, 104 is 44.4 %: beyond 45."""
MAX_STATEMENTS = 544
"""Of the two approvals and two swaps there, with the steps that plan them; the least so far."""


@pytest.mark.parametrize(
    "asks",
    [
        pytest.param({"trigger": research.trigger(lambda _: False, window="9h")}, id="trigger"),
        pytest.param({"signal": research.signal(lambda signal_view: dict(signal_view.targets), window="9h")}, id="signal"),
    ],
)
def test_bar_that_holds__forgets_no_answer_of_the_store(monkeypatch: pytest.MonkeyPatch, asks: dict[str, Any]) -> None:
    """Each asks for the same: only the first bars write what a later bar has to read again."""
    writes: list[bool] = []
    write = MemoryDatabase.write
    monkeypatch.setattr(
        MemoryDatabase, "write", lambda self, action, keeps_cache=False: writes.append(keeps_cache) or write(self, action, keeps_cache)
    )
    forgetful_counts = []
    for bar_count in (6, 18):
        research.backtest(hourly(BTC=[100.0 + bar % 2 for bar in range(bar_count)]), {"BTC": 0.5, "USD": 0.5}, **asks)
        forgetful_counts.append(writes.count(False))
        writes.clear()
    assert forgetful_counts[0] == forgetful_counts[1]


def test_traded_amounts__are_in_the_openings_at_once() -> None:
    """No block is taken back, so that no later step reads them again."""
    with SimulationRun(halves(), hourly(BTC=CROSSING), DEEP) as going:
        while going.evaluate_next_bar():
            assert going.context.store.balances.expected().own_changes == ()
        assert len(going.world.transaction_costs) > 2


def test_backtest_proves_no_gap_of_a_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    proofs: list[tuple[object, ...]] = []
    monkeypatch.setattr(planner, "gap_bps", lambda *problem: proofs.append(problem))
    assert len(simulation_of(hourly(BTC=CROSSING)).rebalances) == 2
    assert not proofs


def test_transaction__takes_few_statements() -> None:
    statements: list[str] = []
    with SimulationRun(halves(), hourly(BTC=CROSSING), DEEP) as going:
        engine = going.context.store.db.engine
        event.listen(engine, "before_cursor_execute", lambda _, __, statement, *rest: statements.append(statement))
        while going.evaluate_next_bar():
            pass
        assert len(going.world.transaction_costs) == 4
    assert len(statements) <= MAX_STATEMENTS


def test_the_worked_example_is_what_a_hand_works_out() -> None:
    simulation = simulation_of(hourly(BTC=CROSSING))
    # 50 BTC and 5,000 USD. At 130 they are 6,500 and 5,000. Sold is v with 6,500 - v = 5,000 + v · 0.999, but for the impact.
    first, second = simulation.rebalances
    assert (first.bar, second.bar) == (2, 4)
    assert float(first.turnover) / COIN == pytest.approx(750, rel=1e-9)  # half of v and of 0.999 v
    assert float(first.fees) / COIN == pytest.approx(1.5 / 1.999, rel=1e-5)
    # The pool has 10^9 USD on either side; x sold for USD out of reserves X, Y bring x'·Y / (X + x'), x' = 0.999 x.
    depth = 10**9 * COIN
    value_sold = first.turnover + (first.fees + first.impact) / 2  # half of what left and of what came
    sold = round(value_sold / 130)
    out_raw = get_amount_out(sold, int(Fraction(depth, 130)), depth, 1_000)
    btc = 50 * COIN - sold
    usd = 5_000 * COIN + out_raw
    assert simulation.equity[2] * COIN == pytest.approx(float(btc * 130 + usd), rel=1e-12)
    assert simulation.weights[2].tolist() == pytest.approx([0.5, 0.5], abs=1e-7)
    assert float(first.fees + first.impact) / COIN == pytest.approx(11_500 - simulation.equity[2], rel=1e-9)
    # At 104 BTC is worth 4/5 of what it was; then v is bought with 0.1 % of fee.
    half = simulation.equity[3] / 2
    assert simulation.equity[4] == pytest.approx(half * 1.8 - float(second.fees + second.impact) / COIN, rel=1e-9)
    assert float(simulation.final_value) / COIN == pytest.approx(simulation.equity[-1], rel=1e-12)
    assert simulation.hold_value == 50 * COIN * 104 + 5_000 * COIN
    assert simulation.turnover_ratio == pytest.approx(
        float(first.turnover) / COIN / simulation.equity[2] + float(second.turnover) / COIN / simulation.equity[4]
    )


def test_both_kinds_of_pools_pay_the_same_at_the_same_depth() -> None:
    pair = simulation_of(hourly(BTC=CROSSING), depth=Fraction(50_000))
    ranged = simulation_of(hourly(BTC=CROSSING), depth=Fraction(50_000), pool_kind="v3")
    assert pair.impact > 10 * simulation_of(hourly(BTC=CROSSING)).impact
    assert float(pair.final_value) == pytest.approx(float(ranged.final_value), rel=1e-9)
    assert float(pair.impact) == pytest.approx(float(ranged.impact), rel=1e-6)


def same(simulation: SimulationResult, other: SimulationResult) -> bool:
    """Whether two results say the same of what was done and what came of it."""
    paths = all(np.array_equal(getattr(simulation, name), getattr(other, name)) for name in ("equity", "hold_equity", "weights"))
    fields = (
        "rebalances",
        "final_value",
        "balances",
        "halted_bar_count",
        "refusal_counts",
        "fees",
        "impact",
        "gas",
        "config_hash",
        "data_hash",
    )
    return paths and all(getattr(simulation, name) == getattr(other, name) for name in fields)


def test_passed_bars__are_those_at_which_the_step_holds() -> None:
    table = random_table(2, 40)
    holes = table.closes.copy()
    holes[20:26, 0] = np.nan  # a gap longer than prices stay fresh
    holes[36:, 1] = np.nan  # and an end
    table = replace(table, closes=holes)
    spec = make_spec({"BTC": 4_000, "ETH": 3_000, "USD": 3_000}, Threshold(None, 1_000), "USD")
    quick = simulation_of(table, spec)
    whole = simulation_of(table, spec, looks_at_all=True)
    assert same(quick, whole)
    assert len(quick.rebalances) >= 2
    assert quick.halted_bar_count == 4 + 2  # prices are fresh until they are three bars old
    assert quick.evaluated_bar_count < whole.evaluated_bar_count == 40


@pytest.mark.parametrize(
    "trigger",
    [Every(5 * HOUR_S), Cron("30 */6 * * *", "UTC"), HybridTrigger(Threshold(200, None), Every(3 * HOUR_S))],
    ids=["every", "cron", "hybrid"],
)
def test_bars_between_reviews__are_passed_and_change_nothing(trigger: Trigger) -> None:
    table = random_table(6, 20)
    holes = table.closes.copy()
    holes[8:13, 0] = np.nan  # reviews fall due while a price is stale
    spec = make_spec({"BTC": 4_000, "ETH": 3_000, "USD": 3_000}, trigger, "USD")
    spec = replace(spec, policy=replace(spec.policy, cooldown_s=4 * HOUR_S))
    settings = {"flows": (OwnerTransfer(START_S + 15 * HOUR_S, Fraction(5_000)),)}
    quick = simulation_of(replace(table, closes=holes), spec, **settings)
    whole = simulation_of(replace(table, closes=holes), spec, looks_at_all=True, **settings)
    assert same(quick, whole)
    assert quick.holds_by_setting == whole.holds_by_setting
    assert len(quick.rebalances) >= 2
    assert quick.evaluated_bar_count <= 15 < whole.evaluated_bar_count == 20


def test_cached_store__answers_as_one_that_is_always_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spec = make_spec({"BTC": 4_000, "ETH": 3_000, "USD": 3_000}, AnyOf((BAND, Drawdown(800, 10 * HOUR_S))), "USD", native="ETH")
    deep_settings = replace(DEEP, gas_price_wei=10**10, latency_bars=1, flows=(OwnerTransfer(START_S + 9 * HOUR_S, Fraction(-2_000)),))

    def steps() -> list[str]:
        with SimulationRun(spec, random_table(8, 20), deep_settings) as going:
            while going.evaluate_next_bar():
                pass
            assert len(going.finish().rebalances) >= 2
            store = going.context.store
            return [store.steps.input_json(line.id) or "" for line in store.steps.newest(200)]

    quick = steps()

    def plain(coin: str, keeps_prices: bool) -> Store:
        assert keeps_prices
        return open_store(f"sqlite:///{tmp_path}/plain.db", context.CHAIN_ID, WALLET, coin)

    monkeypatch.setattr(context, "simulation_store", plain)
    assert quick == steps()
    assert len(quick) >= 20


def test_the_step_of_several_transactions_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def counted(cls: type[StepInput], text: str) -> StepInput:
        read.append(text)
        return codec.loads(cls, text)

    monkeypatch.setattr(settlement, "codec", SimpleNamespace(loads=counted))
    settlement._parse_step.cache_clear()
    simulation_of(hourly(BTC=CROSSING))
    assert read
    assert len(read) == len(set(read))


def test_the_future_changes_nothing_in_the_past() -> None:
    table = random_table(5, 60)
    closes = table.closes.copy()
    closes[30:] *= np.linspace(0.3, 3, 30)[:, None]
    closes[40:, 1] = np.nan
    spec = make_spec({"BTC": 4_000, "ETH": 3_000, "USD": 3_000}, BAND, "USD")
    first_run = simulation_of(table, spec)
    other = simulation_of(replace(table, closes=closes), spec)
    past = [rebalance for rebalance in first_run.rebalances if rebalance.bar < 30]
    assert past
    assert past == [rebalance for rebalance in other.rebalances if rebalance.bar < 30]
    assert np.array_equal(first_run.equity[:30], other.equity[:30])
    assert np.array_equal(first_run.weights[:30], other.weights[:30])
    assert not np.array_equal(first_run.equity[30:], other.equity[30:])


def test_stored_steps_decide_anew_what_they_decided() -> None:
    with SimulationRun(halves(), hourly(BTC=CROSSING), replace(DEEP, looks_at_all=True)) as going:
        while going.evaluate_next_bar():
            pass
        store = going.context.store
        decided = 0
        for line in store.steps.newest(100):
            text = store.steps.input_json(line.id)
            assert text is not None
            decision = decide(codec.loads(StepInput, text)).decision
            assert (type(decision).__name__.lower(), decision.reason) == (line.decision, line.reason)
            decided += isinstance(decision, Rebalance)
        assert decided >= 2
        assert {line.decision for line in store.steps.newest(100)} == {"hold", "rebalance"}


@given(
    seed=st.integers(0, 10**6),
    gas_gwei=st.sampled_from([0, 20]),
    depth=st.sampled_from([20_000, 10**7]),
    pool=st.sampled_from(sorted(POOL_KIND_BY_CURVE_NAME)),
)
@settings(max_examples=6, deadline=None, derandomize=True)
def test_value__is_lost_to_fees_impact_and_gas_alone(seed: int, gas_gwei: int, depth: int, pool: str) -> None:
    spec = make_spec({"BTC": 4_000, "ETH": 3_000, "USD": 3_000}, BAND, "USD", native="ETH")
    simulation_settings = SimulationSettings(Fraction(depth), 3_000, Fraction(10_000), pool, gas_gwei * 10**9, looks_at_all=True)
    with SimulationRun(spec, random_table(seed, 8, volatility=0.1), simulation_settings) as going:
        world = going.world
        store = going.context.store
        before = dict(world.wallet.balances)
        while going.evaluate_next_bar():
            here = [fill for fill in world.transaction_costs if fill.bar == world.bar]
            lost = sum((fill.fees + fill.impact for fill in here), Fraction(0))
            assert world.value(before) - world.value(world.wallet.balances) == lost
            assert all(fill.fees >= 0 and fill.impact >= -Fraction(1, 10**6) * COIN for fill in here)
            assert min(world.wallet.balances.values()) >= 0
            assert set(world.wallet.allowances.values()) <= {0}
            before = dict(world.wallet.balances)
        assert store.journal.unbooked_intents() == ()
        assert store.journal.open_intents() == ()
        stands = {stand.token: stand.raw for stand in store.ledger.balances(world.block_number)}
        assert {token: stands[token] for token in world.wallet.balances} == world.wallet.balances
        simulation = going.finish()
        costs = simulation.fees + simulation.impact + simulation.gas
        assert float(store.budgets.history(world.now_s()).budgets.loss_total) == pytest.approx(float(costs), rel=1e-9, abs=1e6)
        assert simulation.final_value == world.value(world.wallet.balances) - simulation.gas
        assert (simulation.gas > 0) == bool(gas_gwei and simulation.rebalances)


def test_a_swap_that_lands_later_gets_the_price_of_then() -> None:
    table = hourly(BTC=[100.0, 100, 130, 130, 120, 120, 120])
    at_once = simulation_of(table)
    later = simulation_of(table, latency_bars=2)
    assert [rebalance.bar for rebalance in at_once.rebalances] == [2]
    assert later.rebalances[0].bar == 4
    with SimulationRun(halves(), table, replace(DEEP, latency_bars=2)) as going:
        while going.evaluate_next_bar():
            if going.outcome is not None and going.outcome.transactions:
                break
        swap = next(intent for intent in going.context.store.journal.intents(limit=100) if intent.kind is IntentKind.SWAP)
        plan = going.context.store.journal.grant(swap.id).plan
        predicted = plan.legs[0].amount_out_raw
        out_raw = next(transfer.raw for transfer in swap.receipt.transfers if transfer.recipient == WALLET)
        assert out_raw == pytest.approx(predicted * 120 / 130, rel=1e-6)


def test_a_swap_that_the_data_end_before_is_told_and_not_counted() -> None:
    simulation = simulation_of(hourly(BTC=[100.0, 100, 130]), latency_bars=3)
    assert simulation.rebalances == ()
    assert mentions(simulation.notes[-1], "1 transaction")
    assert simulation.final_value == simulation.hold_value


def test_gas__is_paid_beside_the_portfolio_and_lowers_its_worth() -> None:
    spec = make_spec({"ETH": 5_000, "USD": 5_000}, BAND, "USD", native="ETH")
    free = simulation_of(hourly(ETH=CROSSING), spec)
    paid = simulation_of(hourly(ETH=CROSSING), spec, gas_price_wei=20 * 10**9)
    assert paid.gas > 0 == free.gas
    assert paid.final_value + paid.gas == pytest.approx(float(free.final_value), rel=1e-4)
    per_bar = simulation_of(hourly(ETH=CROSSING), spec, gas_price_wei=(0, 0, 20 * 10**9, 0, 0))
    assert per_bar.gas == paid.rebalances[0].gas
    assert per_bar.rebalances[1].gas == 0


@pytest.mark.parametrize(
    ("dear_bars", "swaps"),
    [(0, [(4, True)]), (1, [(5, True)]), (2, [(6, False), (9, True)]), (9, [])],
    ids=["calm", "within its deadline", "beyond its deadline", "to the end"],
)
def test_transaction_below_the_gas_price__waits_for_a_cheaper_bar(dear_bars: int, swaps: list[tuple[int, bool]]) -> None:
    """It is sent at bar 2 at 20 gwei and due at bar 4, from which on gas costs 900 gwei for some bars."""
    spec = make_spec({"ETH": 5_000, "USD": 5_000}, BAND, "USD", native="ETH")
    gwei = 10**9
    gas_prices_wei = [20 * gwei] * 4 + [900 * gwei] * dear_bars + [20 * gwei] * (9 - dear_bars)
    simulation = simulation_of(hourly(ETH=[100.0, 100, *[130] * 11]), spec, latency_bars=2, gas_price_wei=tuple(gas_prices_wei))
    assert [(swap.bar, swap.succeeded) for swap in simulation.rebalances] == swaps
    assert simulation.gas < Fraction(COIN), "no gas at 900 gwei, of which a swap would cost 17"
    assert mentions(simulation.notes, "pending at the end of the data: 1 transaction") is not bool(swaps)


def test_a_schedule_acts_when_it_is_due() -> None:
    simulation = simulation_of(random_table(3, 13, ["BTC"]), halves(Every(4 * HOUR_S)))
    times = [rebalance.time_s - START_S for rebalance in simulation.rebalances]
    assert all(later - before >= 4 * HOUR_S for before, later in pairwise(times))
    assert len(times) == 3


def test_portfolio_without_money__trades_through_a_hub() -> None:
    simulation = simulation_of(hourly(BTC=CROSSING, ETH=[10.0] * 5), make_spec({"BTC": 5_000, "ETH": 5_000}, BAND, "USD"))
    assert [rebalance.bar for rebalance in simulation.rebalances] == [2, 4]
    assert dict(simulation.balances)[halves().portfolio.numeraire.address] == 0
    assert simulation.weights[-1].tolist() == pytest.approx([0.5, 0.5], abs=1e-6)


def test_a_numeraire_with_prices_of_its_own_divides_all_others() -> None:
    dear = [2.0, 2.0, 2.0, 2.0, 2.0]
    plain = simulation_of(hourly(BTC=CROSSING))
    divided = simulation_of(hourly(BTC=[2 * close for close in CROSSING], USD=dear))
    assert divided.final_value == plain.final_value
    assert divided.rebalances == plain.rebalances


def test_the_same_again_gives_the_same_to_the_last_digit() -> None:
    table = random_table(9, 12)
    first_run = simulation_of(table, seed=4)
    other = simulation_of(table, seed=4)
    assert same(first_run, other)
    assert first_run.seed == 4
    assert {"trimtab", "numpy"} <= {name for name, _ in first_run.versions}
    assert simulation_of(table, fee_pips=500).config_hash != first_run.config_hash


def test_limited_plan__is_counted_and_not_done() -> None:
    spec = halves()
    spec = replace(spec, limits=replace(spec.limits, max_live_value=Fraction(5_000 * COIN)))
    simulation = simulation_of(hourly(BTC=CROSSING), spec)
    assert simulation.rebalances == ()
    assert simulation.refusal_counts == (("max_live_value", 2),)
    assert simulation.final_value == simulation.hold_value


@pytest.mark.parametrize(
    ("cap", "reason"),
    [(5_000, "is below the start value of 10000, so every"), (10_500, "refused rebalances 3 times, while the portfolio was worth more:")],
)
def test_refusing_cap__is_noted_with_what_to_do(cap: int, reason: str) -> None:
    capped = replace(halves(), limits=replace(halves().limits, max_live_value=Fraction(cap * COIN)))
    simulation = simulation_of(hourly(BTC=[100, 100, 200, 200, 200]), capped)
    assert simulation.refusal_counts[0][0] == "max_live_value"
    assert f"portfolio.max_live_value of {cap} USD {reason}" in simulation.notes[-1]
    assert "raise it in a copy of the config" in simulation.notes[-1]
    uncapped = replace(capped, limits=replace(capped.limits, max_live_value=Fraction(50_000 * COIN)))
    assert not simulation_of(hourly(BTC=CROSSING), uncapped).notes


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"pool_kind": "v4"}, "--market pool"),
        ({"fee_pips": -1}, "--market fee"),
        ({"depth": Fraction(0)}, "--market depth"),
        ({"latency_bars": -1}, "--market latency"),
    ],
)
def test_a_market_that_cannot_be_is_named(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        replace(DEEP, **changes)  # type: ignore[arg-type]  # field names, checked by replace


def test_targets_that_are_not_all_of_it_are_refused() -> None:
    with raises_field("--target", "sums to 90 %"):
        make_spec(HALVES | {"USD": 4_000}, BAND, "USD")
    with raises_field("--native"):
        make_spec(HALVES, BAND, "USD", native="ETH")


@pytest.mark.parametrize(("rise", "growth"), [(1.0, 0.0), (1.2, 1_000 / 13_000)], ids=["flat", "half rises"])
def test_return__counts_a_reserve_at_the_start_too(rise: float, growth: float) -> None:
    spec = with_reserve(halves(Threshold(4_999, None)), "USD", 3_000)
    result = simulation_of(hourly(BTC=[100.0, 100, 100 * rise]), spec)
    assert result.start_value == 13_000 * COIN
    assert (result.twr, result.hold_twr) == pytest.approx((growth, growth))
    assert growth_series(result).unit_growth[-1] == pytest.approx(1 + growth)


# --- notes on the weights that a live agent's owner would have to accept

WEIGHTS_BPS = tuple((token(symbol).address, bps) for symbol, bps in PLAIN.items())


@pytest.mark.parametrize(
    ("markets", "name"), [((SignalMarket("ETH", "0xa", "WETH"),), "ETH"), ((), "0xa")], ids=["of the signal", "of another allocator"]
)
def test_largest_change_of_a_futures_market_is_named(markets: tuple[SignalMarket, ...], name: str) -> None:
    log = ChoiceLog(signal_step(replace(SIGNAL, markets=markets)).portfolio, 2_000)
    for at_s, market_bps in ((0, 5_000), (86_400, -5_000)):
        log.add(Allocation(at_s, AllocationMethod.SIGNAL, WEIGHTS_BPS, "", "", "", market_bps=(("0xa", market_bps),)))
    (note,) = log.notes()
    assert f"most {name} from 50 % to -50 % at 1970-01-02" in note


def test_largest_change_of_an_asset_is_named() -> None:
    log = ChoiceLog(signal_step().portfolio, 2_000)
    in_cash = (*((address, 0) for address, _ in WEIGHTS_BPS[:-1]), (WEIGHTS_BPS[-1][0], 10_000))
    for weights_bps in (WEIGHTS_BPS, in_cash):
        log.add(Allocation(0, AllocationMethod.SIGNAL, weights_bps, "", "", ""))
    (note,) = log.notes()
    assert "1 choice of weights moved" in note
    assert "most USDC from 20 % to 100 %" in note


# --- notes on signals that gave no answer


class FakeRunner:
    """Answers each request with the next of these reasons."""

    def __init__(self, *reasons: str) -> None:
        self._reasons = iter(reasons)

    def answers(self, requests: Sequence[SignalRequest]) -> tuple[SignalAnswer, ...]:
        return tuple(SignalAnswer(request.settings.name, "", why=next(self._reasons)) for request in requests)


def asked_at(*days: int, why: str = "", is_trigger: bool = False) -> list[SignalRequest]:
    return [SignalRequest(SIGNAL, "", replace(view(WETH=[1.0]), now_s=day * 86_400), (), why, is_trigger) for day in days]


def test_signal_without_an_answer_is_noted_with_its_first_bar() -> None:
    log = AnswerLog(FakeRunner("", "it raised KeyError: 'A'", "it raised KeyError: 'A'", "it gave no answer within 2 s"))
    for request in asked_at(0, 1, 2, 3):
        log.answers([request])
    assert log.notes() == (
        "signal mine: it raised KeyError: 'A', at 2 bars, first 1970-01-02 00:00:00 UTC",
        "signal mine: it gave no answer within 2 s, at 1 bar, 1970-01-04 00:00:00 UTC",
    )


def test_a_bar_that_is_asked_twice_counts_once() -> None:
    log = AnswerLog(FakeRunner("it raised", "it raised"))
    log.answers(asked_at(1, 1))
    assert log.notes() == ("signal mine: it raised, at 1 bar, 1970-01-02 00:00:00 UTC",)


def test_signal_that_waits_for_prices_is_not_noted() -> None:
    log = AnswerLog(FakeRunner("WETH has 1 prices", ""))
    log.answers([*asked_at(1, why="WETH has 1 prices"), *asked_at(2, is_trigger=True)])
    assert log.notes() == ()


def test_backtest_notes_a_signal_that_raises() -> None:
    spec = make_spec({"BTC": 5_000, "USD": 5_000}, BAND, "USD")
    table = hourly(BTC=[100.0] * 12)
    allocator = research.signal(lambda _: {}).allocator(table)
    reasons = ["it raised ZeroDivisionError: division by zero"] * 40
    result = simulation_of(table, replace(spec, portfolio=replace(spec.portfolio, allocator=allocator), signal_runner=FakeRunner(*reasons)))
    (note,) = [note for note in result.notes if note.startswith("signal ")]
    assert note.startswith("signal function: it raised ZeroDivisionError: division by zero, at ")
