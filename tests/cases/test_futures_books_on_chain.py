"""The margin account in status, ledger and reports, with the deployed contracts and the real signer."""

from __future__ import annotations

import csv
import io
from fractions import Fraction
from pathlib import Path

import pytest

from agent import app as api
from agent.accounting.futures import futures_changes, sum_changes
from agent.app.alerting import RunFacts, cycle_alerts
from agent.app.documents import futures as documents
from agent.app.documents.status import status_document
from agent.execution.step_context import OutcomeKind
from agent.layers.futures.requests import MarginAccountRequest
from agent.localchain.perpetuals import LocalPerps
from agent.model import EntryKind
from agent.model.futures import MarginDeposit, MarginWithdrawal
from tests.support import agents
from tests.support.futures import EVEN, futures_config_changes
from tests.support.perpetuals.chain_orders import crash, open_by_hand
from tests.support.perps import WAD, advance_time

TWO = {"WETH": "60%", "WBTC": "-40%"}
E12 = 10**12


@pytest.fixture
def perps(perps_chain: LocalPerps) -> LocalPerps:
    """A wallet on its spot targets, with 10,000 of margin."""
    agents.fund(perps_chain.chain, {"WETH": 50_000, "USDC": 50_000})
    perps_chain.deposit(perps_chain.chain.wallet.address, 10_000 * 10**6)
    return perps_chain


def account_value(perps: LocalPerps) -> int:
    """Of the contracts, base units of the collateral."""
    raw = perps.clearing_house.functions.getAccountValue(perps.chain.wallet.address).call()
    return int(raw) // E12


def test_fees_funding_and_price_sum_to_the_change_of_the_account(perps: LocalPerps, tmp_path: Path) -> None:
    chain = perps.chain
    wallet = perps.chain.wallet.address
    with agents.agent_on(chain, tmp_path, futures_config_changes(perps, TWO), EVEN) as agent:
        api.refresh_ledger(agent)
        assert agent.rebalance(send=True, confirm=agents.yes).kind is OutcomeKind.DONE
        for _ in range(3):
            advance_time(perps, 3_600)
            api.refresh_ledger(agent)
        status = agent.status()
        store = agent.context.store
        newest = store.valuations.newest(1)[0]
        assert newest.collateral is not None
        assert newest.collateral.margin_raw == account_value(perps)
        assert sum(drift.value for drift in status.decision_result.drifts) == newest.managed_value, "one value everywhere"
        owed = sum(
            int(perps.exchange.functions.getPendingFundingPayment(wallet, market.base_token).call()) for market in perps.markets.values()
        )
        funding_document = documents.funding_document(*api.futures_funding(agent, 7))
    today = [Fraction(day["paid"]) for day in funding_document["recorded"] if day["day"] == funding_document["recorded"][-1]["day"]]
    assert abs(Fraction(funding_document["today"]) - sum(today)) <= len(today) * Fraction(1, 10**6), "each figure is rounded by itself"
    paid = sum(Fraction(day["paid"]) for day in funding_document["recorded"])
    assert abs(paid - Fraction(owed, 10**18)) < Fraction(1, 10**5), "nothing is settled yet: all of it is pending"

    lower = futures_config_changes(perps, TWO, leverage="1x", max_leverage="1x", stress_move="off") | {
        "tax": {"method": "fifo", "year_limit": "off"}
    }
    with agents.agent_on(chain, tmp_path, lower, EVEN) as agent:
        assert agent.rebalance(send=True, confirm=agents.yes).kind is OutcomeKind.DONE
        advance_time(perps, 600)
        api.refresh_ledger(agent)
        store = agent.context.store
        entries = store.ledger.entries()
        valuations = store.valuations.between()
        futures = [entry.futures for entry in entries if entry.kind is EntryKind.FUTURES]
        assert len(futures) >= 4
        assert all(change is not None and len(change.fills) == 1 for change in futures)
        result = sum_changes(futures_changes(entries, valuations))
        first = valuations[0].collateral
        last = valuations[-1].collateral
        assert first is not None
        assert last is not None
        assert last.margin_raw == account_value(perps)
        assert last.margin_raw - first.margin_raw == result.price_result - result.fees - result.funding
        assert result.transferred_value == 0 < result.fees
        cash = last.margin.cash_raw - first.margin.cash_raw if first.margin and last.margin else 0
        realised = sum(fill.realised_raw for change in futures if change for fill in change.fills)
        settled = sum(payment.paid_raw for entry in futures if entry for payment in entry.funding)
        assert cash == realised - settled
        assert realised
        assert settled, "every base unit of realised profit has its event"
    document = api.pnl(tmp_path / "trimtab.toml")
    period = document["periods"][-1]
    lines = period["futures"]
    assert Fraction(lines["profit"]) == Fraction(lines["price"]) - Fraction(lines["fees"]) - Fraction(lines["funding"])
    spot = Fraction(period["profit"]) - Fraction(lines["profit"])
    gas = Fraction(period["costs"]["gas"])
    assert gas > 0
    assert abs(spot + gas) <= Fraction(2, 10**6), "spot paid the gas, and no price moved"
    steps = api.history(tmp_path / "trimtab.toml", 10)["steps"]
    assert any(Fraction(step["futures"]["fees"]) > 0 for step in steps if "futures" in step)
    api.export(tmp_path / "trimtab.toml", "csv", tmp_path / "out")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "futures.csv").read_text())))
    events = {row["event"] for row in rows}
    assert events == {"trading fee", "realised profit", "funding"}
    tax = document["tax"]
    assert tax is not None
    [year] = tax["futures"].values()
    listed_value = sum(Fraction(row["value"]) for row in rows if row["event"] != "trading fee")
    assert abs(Fraction(year) - listed_value) <= len(rows) * Fraction(1, 10**6), "the year's figure is the sum of the export's rows"
    listed = [change for entry in api.list_entries(tmp_path / "trimtab.toml", 50)["entries"] for change in entry.get("futures", [])]
    assert {change["event"] for change in listed} == events
    assert len(listed) == len(rows)
    values = list(csv.DictReader(io.StringIO((tmp_path / "out" / "values.csv").read_text())))
    assert {row["token"] for row in values if row["in_margin"] != "0"} == {"USDC"}
    fees = sum(Fraction(row["value"]) for row in rows if row["event"] == "trading fee")
    assert abs(fees + Fraction(lines["fees"])) < Fraction(1, 100)


def test_margin_from_outside__is_no_profit(perps: LocalPerps, tmp_path: Path) -> None:
    with agents.agent_on(perps.chain, tmp_path, futures_config_changes(perps, TWO), EVEN) as agent:
        api.refresh_ledger(agent)
        perps.chain.node.mine_at(perps.chain.now_s() + 60)
        perps.deposit(perps.chain.wallet.address, 700 * 10**6)
        api.refresh_ledger(agent)
    period = api.pnl(tmp_path / "trimtab.toml")["periods"][-1]
    assert period["futures"]["transferred"] == "700" == period["deposits"]
    assert period["futures"]["profit"] == "0"
    assert -1 < Fraction(period["profit"]) < 0, "gas of the deposit by hand"


def test_margin_moved_by_the_agent__is_no_flow_or_result(perps: LocalPerps, tmp_path: Path) -> None:
    with agents.agent_on(perps.chain, tmp_path, futures_config_changes(perps, TWO), EVEN) as agent:
        api.refresh_ledger(agent)
        before = agent.status().decision_result.drifts
        for action in (MarginDeposit(900 * 10**6), MarginWithdrawal(400 * 10**6)):
            outcome = agent.adjust_futures(MarginAccountRequest(action), send=True, confirm=agents.yes)
            assert outcome.kind is OutcomeKind.DONE, outcome.reason
        perps.chain.node.mine_at(perps.chain.now_s() + 60)
        api.refresh_ledger(agent)
        after = agent.status().decision_result.drifts
        assert [position.share for position in before] == [position.share for position in after], "no weight has moved"
        kinds = [entry.kind for entry in agent.context.store.ledger.entries()]
        assert kinds.count(EntryKind.MARGIN) == 2
    period = api.pnl(tmp_path / "trimtab.toml")["periods"][-1]
    assert (period["deposits"], period["withdrawals"], period["futures"]["transferred"]) == ("0", "0", "0")
    assert period["futures"]["profit"] == "0"
    assert period["rebalances"] == 0
    assert Fraction(period["profit"]) == -Fraction(period["costs"]["gas"]) < 0
    api.export(tmp_path / "trimtab.toml", "csv", tmp_path / "out")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "futures.csv").read_text())))
    assert [(row["event"], row["amount"]) for row in rows] == [("margin deposit", "900"), ("margin withdrawal", "-400")]
    assert api.check_books(tmp_path / "trimtab.toml")["sound"]


def test_the_cap_on_managed_value_counts_the_margin(perps: LocalPerps, tmp_path: Path) -> None:
    for cap, kind in (("109000", OutcomeKind.REFUSED), ("111000", OutcomeKind.PLANNED)):
        changes = futures_config_changes(perps, TWO) | {"portfolio.max_live_value": cap}
        with agents.agent_on(perps.chain, tmp_path / cap, changes, EVEN) as agent:
            outcome = agent.rebalance(send=False)
            assert outcome.kind is kind, outcome.reason
            assert outcome.plan is None or {verdict.guard for verdict in outcome.plan.verdicts if not verdict.passed} <= {"max_live_value"}


def test_an_alert_after_a_crash_carries_what_would_be_closed(perps: LocalPerps, tmp_path: Path) -> None:
    chain = perps.chain
    open_by_hand(perps, {"WETH": int(27_000 / chain.deployed_world.prices_usd["WETH"] * WAD)})
    crash(perps, "WETH", Fraction(12, 100))
    changes = futures_config_changes(perps, {"WETH": "100%"}) | {"policy.trigger": {"kind": "threshold", "absolute": "30%"}}
    with agents.agent_on(chain, tmp_path, changes, EVEN) as agent:
        outcome = agent.rebalance(send=False)
        [alert] = [alert for alert in cycle_alerts(outcome, RunFacts(False, "", None)) if alert.key.startswith("futures:")]
        assert " of at most 3x" in alert.text
        assert "liquidation of WETH" in alert.text
        assert "net exposure WETH" in alert.text
        status = status_document(agent.status())["futures"]
        assert status["broken"]
        assert status["liquidation"] is not None
        assert status["actions"]
        assert "It would close " in alert.text or "It would deposit " in alert.text


def test_value_per_share__follows_futures_and_no_deposit(perps: LocalPerps, tmp_path: Path) -> None:
    chain = perps.chain
    open_by_hand(perps, {"WETH": 8 * WAD})
    changes = futures_config_changes(perps, {"WETH": "100%"}, stress_move="off") | {"portfolio.orders": {"stop_loss": "20%"}}
    with agents.agent_on(chain, tmp_path, changes | {"futures.ask": ["drift"]}, EVEN) as agent:
        assert agent.rebalance(send=False).decision_result.drifts
        worth = Fraction(str(api.standing_orders(agent)["unit_worth"]))
        assert worth == 1
        before = account_value(perps)
        crash(perps, "WETH", Fraction(10, 100))
        lost = before - account_value(perps)
        agent.rebalance(send=False)
        fallen = Fraction(str(api.standing_orders(agent)["unit_worth"]))
        assert lost > 1_000 * 10**6
        assert abs(1 - fallen - Fraction(lost, 110_000 * 10**6)) < Fraction(1, 10_000)
        perps.deposit(chain.wallet.address, 5_000 * 10**6)
        agent.rebalance(send=False)
        deposited = Fraction(str(api.standing_orders(agent)["unit_worth"]))
        assert abs(deposited - fallen) < Fraction(1, 1_000), "only funding has moved"


def test_an_unknown_account_holds_back_rebalances(perps: LocalPerps, tmp_path: Path) -> None:
    agents.fund(perps.chain, {"WETH": 70_000, "USDC": 30_000})
    open_by_hand(perps, {"WETH": WAD // 100})
    with agents.agent_on(perps.chain, tmp_path, futures_config_changes(perps, {"WETH": "100%"}), EVEN) as agent:
        feed = perps.contract(perps.markets["WETH"].base_token, "BaseToken").functions.getPriceFeed().call()
        perps.chain.node.rpc("anvil_setCode", feed, "0xfe")  # type: ignore[attr-defined]  # always anvil here
        outcome = agent.rebalance(send=True, confirm=agents.yes)
        assert (outcome.kind, outcome.transactions) == (OutcomeKind.HALT, ()), outcome.reason
        assert "could not be read" in outcome.reason
