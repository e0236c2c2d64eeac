"""What a look is worth telling: alert prices that follow from the bands, ends of steps, low gas, and no word of a stranger (T17)."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.app.alerting import (
    AssetBand,
    RunFacts,
    asset_bands,
    covered_kinds,
    drift_causes,
    price_distance,
    run_ended_alert,
    run_hung_alert,
)
from agent.app.alerting import cycle_alerts as alerts
from agent.app.documents.plans import tax_document
from agent.errors import ConfigError, OperatorNeeded, Refused, Retryable, TrimtabError
from agent.execution.executor import AwaitingExternalSignature
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.guards import FaultKind, ProposalFault
from agent.guards.sandwich import plan_worst_case
from agent.layers.futures.execution.venue_executor import VENUE_ACCEPTANCE
from agent.layers.signals.state import SignalState
from agent.layers.tax.state import TaxState
from agent.model import (
    Alert,
    AlertKind,
    AlertMessage,
    AlertState,
    AssetDrift,
    ConditionalOrder,
    Every,
    ExternalTransfer,
    Intent,
    IntentKind,
    IntentState,
    LotMethod,
    OpenLot,
    OrderKind,
    OrderStage,
    OrderTerms,
    Rebalance,
    Receipt,
    SignalAnswer,
    StepInput,
    TaxInputs,
    UnreadableItem,
    Verdict,
)
from agent.observe.notify import AlertRules, decide_alerts
from agent.planning.planner import plan
from agent.policy.decide import decide, hard_pause_result
from agent.policy.drift import band_edge_prices
from agent.units import NATIVE, decimal_text, value_text
from tests.support.builders import ETHER, step_input, token, unit_price, with_history, with_snapshot
from tests.support.decisions.tracking import balance_changes, tracking_step
from tests.support.foreign_text import CORPUS, MARKS
from tests.support.text import mentions
from tests.support.transactions import tx

CALM = RunFacts(paused=False, heartbeat_fault="", low_gas_wei=None)
STEP = "0123456789ab"


def outcome(step: StepInput, kind: OutcomeKind = OutcomeKind.HOLD, **more: object) -> StepOutcome:
    decided = decide(step)
    return replace(StepOutcome(STEP, kind, decided.decision.reason, step, decided, None), **more)  # type: ignore[arg-type]  # fields of Outcome


def alerts_by_kind(alert_outcome: StepOutcome | TrimtabError, facts: RunFacts = CALM) -> dict[AlertKind, Alert]:
    return {alert.kind: alert for alert in alerts(alert_outcome, facts)}


def sent_intent(kind: IntentKind, status: int = 1, block: int = 7) -> Intent:
    receipt = Receipt("0x" + "ab" * 32, status, block, "0x" + "cd" * 32, 21_000, 1, ())
    return Intent("i", STEP, kind, IntentState.FINAL if status else IntentState.REVERTED, tx(0), "note", 0, None, receipt.tx_hash, receipt)


# alert prices
def test_w8__half_with_a_tenth_s_band_is_left_at_minus_18_plus_22() -> None:
    drifts = decide(step_input({"WETH": 5_000, "USDC": 5_000})).drifts
    weth = asset_bands(drifts, token("USDC").address)[0]
    assert (weth.alert_low_price, weth.alert_high_price) == band_edge_prices(drifts)[weth.drift.token]
    limits = (weth.alert_low_price, weth.alert_high_price)
    assert [round(float(price_distance(weth.drift.price, limit) or 0), 4) for limit in limits] == [-0.1818, 0.2222]
    assert weth.side == "inside"
    usdc = asset_bands(drifts, token("USDC").address)[1]
    assert (usdc.alert_low_price, usdc.alert_high_price) == (None, None)


@pytest.mark.parametrize("targets", [{"WETH": 0, "USDC": 10_000}, {"WETH": 10_000, "USDC": 0}])
def test_an_asset_without_a_band_is_not_inside_one(targets: dict[str, int]) -> None:
    drifts = decide(step_input(targets, {"WETH": 5_000, "USDC": 5_000})).drifts
    sides = {asset_band.drift.target_bps: asset_band.side for asset_band in asset_bands(drifts, token("USDC").address)}
    assert sides[0] == "no band"


def test_a_weight_of_nothing_is_not_inside_the_band_of_a_target_of_nothing() -> None:
    drift = replace(decide(step_input({"WETH": 5_000, "USDC": 5_000})).drifts[0], target_bps=0, share=Fraction(0), band_low_bps=Fraction(0))
    assert asset_bands((drift,), token("USDC").address)[0].side == "no band"


def test_asset_that_the_others_bring_beyond_its_range_is_on_no_side() -> None:
    """The plan sells WETH and keeps WBTC, whose weight is below its target."""
    step = tracking_step(balance_changes(WETH=9_000, WBTC=-400))
    [wbtc] = [band for band in asset_bands(decide(step).drifts, step.portfolio.numeraire.address) if band.drift.symbol == "WBTC"]
    assert wbtc.side == "with the others"
    text = alerts_by_kind(outcome(step))[AlertKind.PRICE].text
    assert mentions(text, "WETH is above its band", "WBTC at 24.2 %, target 25 %: the others have too much that moves with it")


def step_after_move(move: str) -> StepInput:
    """Return a step of halves in WETH and USDC, from 2,000 on, after this relative move of WETH."""
    price = 2_000 * (1 + Fraction(move))
    values = {"WETH": Fraction(5_000) * (1 + Fraction(move)), "USDC": Fraction(5_000)}
    return step_input({"WETH": 5_000, "USDC": 5_000}, values, {"WETH": price})


@pytest.mark.parametrize("move", ["-0.1818", "0.2222"])
def test_price_within_its_alert_prices__is_not_reported(move: str) -> None:
    assert AlertKind.PRICE not in alerts_by_kind(outcome(step_after_move(move)))


@pytest.mark.parametrize(
    ("move", "side", "alert_price"), [("-0.1819", "below", "alert-low 1,636.36"), ("0.2223", "above", "alert-high 2,444.44")]
)
def test_price_beyond_its_alert_price__is_reported(move: str, side: str, alert_price: str) -> None:
    alert = next(alert for alert in alerts(outcome(step_after_move(move)), CALM) if "WETH" in alert.text)
    assert alert.key == f"price:{token('WETH').address}:{side}"
    assert alert.is_lasting
    assert mentions(alert.text, "WETH", side, "band 45-55 %", alert_price)


def test_a_trigger_that_only_knows_time_has_no_band_to_leave() -> None:
    step = step_input({"WETH": 5_000, "USDC": 5_000}, {"WETH": 7_000, "USDC": 3_000}, trigger=Every(3_600))
    assert AlertKind.PRICE not in alerts_by_kind(outcome(step))


# one message a cause
def prices(outcome: StepOutcome) -> list[Alert]:
    return [alert for alert in alerts(outcome, CALM) if alert.kind in (AlertKind.PRICE, AlertKind.REVIEW)]


TWO_THIRDS = {"WETH": 4_000, "WBTC": 3_000, "USDC": 3_000}


def test_one_asset_that_rises_is_one_alert_about_that_asset() -> None:
    """WETH rises by half: WBTC and USDC leave their bands too, without having moved."""
    step = step_input(TWO_THIRDS, {"WETH": 6_000, "WBTC": 3_000, "USDC": 3_000}, {"WETH": 3_000})
    assert sum(asset_band.side != "inside" for asset_band in asset_bands(decide(step).drifts, step.portfolio.numeraire.address)) == 3
    (alert,) = prices(outcome(step))
    assert alert.key == f"price:{token('WETH').address}:above"
    assert alert.is_lasting
    assert "WBTC" not in alert.text
    assert "USDC is" not in alert.text


def band(name: str, weight_bps: int, target_bps: int) -> AssetBand:
    """An asset whose band is its target and a percent of the portfolio on both sides."""
    low = Fraction(target_bps - 100)
    high = Fraction(target_bps + 100)
    share = Fraction(weight_bps, 10_000)
    off_bps = weight_bps - target_bps
    drift = AssetDrift(
        name, name, 1, 1, Fraction(1), share, share, weight_bps, target_bps, off_bps, low, high, not low <= weight_bps <= high
    )
    return AssetBand(drift, None, None)


@pytest.mark.parametrize(
    ("weights_and_targets_bps", "causes"),
    [
        pytest.param({"a": (3_500, 2_500), "b": (2_167, 2_500), "c": (2_167, 2_500), "USDC": (2_166, 2_500)}, ("a",), id="one rose"),
        pytest.param({"a": (2_750, 2_500), "b": (1_900, 2_500)}, ("b", "a"), id="the largest drift first"),
        pytest.param(
            {"a": (2_900, 2_500), "b": (2_800, 2_500), "c": (2_200, 2_500), "USDC": (2_100, 2_500)},
            ("a", "b", "c"),
            id="two rose, two fell",
        ),
        pytest.param({"a": (500, 0), "b": (4_750, 5_000), "USDC": (4_750, 5_000)}, ("a",), id="one without a target came"),
    ],
)
def test_causes_are_the_assets_that_moved_against_the_others(
    weights_and_targets_bps: dict[str, tuple[int, int]], causes: tuple[str, ...]
) -> None:
    bands = [band(name, *weight_and_target_bps) for name, weight_and_target_bps in weights_and_targets_bps.items()]
    assert tuple(cause.drift.token for cause in drift_causes(bands, "USDC")) == causes


def test_nothing_is_said_about_the_numeraire() -> None:
    """A deposit of the numeraire leaves both others below their bands: one alert names them."""
    (alert,) = prices(outcome(step_input(TWO_THIRDS, {"WETH": 4_000, "WBTC": 3_000, "USDC": 9_000})))
    assert mentions(alert.text, "WETH", "below")
    assert mentions(alert.text, "WBTC", "below")
    assert "USDC is" not in alert.text


def planned() -> StepOutcome:
    step = step_input({"WETH": 5_000, "USDC": 5_000}, {"WETH": 7_000, "USDC": 3_000})
    decided = decide(step)
    assert isinstance(decided.decision, Rebalance)
    swap_plan = plan(step, decided.decision)
    return StepOutcome(STEP, OutcomeKind.PLANNED, decided.decision.reason, step, decided, swap_plan)


def test_due_rebalance__says_trades_costs_worst_case_and_how() -> None:
    planned_outcome = planned()
    assert planned_outcome.plan is not None
    (alert,) = prices(planned_outcome)
    sold = sum(leg.amount_in_raw for leg in planned_outcome.plan.legs)
    worst = plan_worst_case(planned_outcome.step_input, planned_outcome.plan)
    assert worst is not None
    cost = value_text(planned_outcome.plan.cost.total, 6, 2)
    assert mentions(alert.text, f"would sell {decimal_text(sold // 10**12, 6)} WETH", f"cost {cost} USDC (", " %)")
    assert mentions(alert.text, f"worst case {value_text(worst, 6, 2)} USDC")
    assert "taxable" not in alert.text
    assert alert.text.endswith("trimtab rebalance --send")


def with_tax(of: StepOutcome, tax: TaxInputs) -> StepOutcome:
    return replace(of, step_input=of.step_input.with_layer(TaxState(tax)))


def test_due_rebalance__says_its_taxable_gain() -> None:
    planned_outcome = planned()
    assert planned_outcome.plan is not None
    lots = tuple(
        OpenLot(token, 10**24, Fraction(10**15), 1)
        for token in (NATIVE, *(holding.token for holding in planned_outcome.step_input.snapshot.holdings))
    )
    tax = TaxInputs(LotMethod.FIFO, "", Fraction(1), lots, Fraction(0), None)
    taxed = with_tax(planned_outcome, tax)
    document = tax_document(taxed.step_input, planned_outcome.plan)
    assert document is not None
    assert document["gain"] is not None
    assert float(document["gain"]) != 0
    assert mentions(prices(taxed)[0].text, f"taxable gain {float(document['gain']):,.2f} USDC")
    assert mentions(prices(with_tax(planned_outcome, replace(tax, lots=())))[0].text, "taxable gain unknown: no tax lots yet")


def test_a_refusal_or_a_rebalance_is_the_only_alert_of_its_cause() -> None:
    refused = replace(planned(), kind=OutcomeKind.REFUSED, refusal_verdicts=(Verdict("price_impact", "143 bps", "100 bps", False),))
    (alert,) = alerts(refused, CALM)
    assert alert.kind is AlertKind.REFUSAL
    assert "would sell" in alert.text
    assert AlertKind.PRICE not in covered_kinds(refused), "the drift is not over"
    done = replace(planned(), kind=OutcomeKind.DONE, transactions=(sent_intent(IntentKind.SWAP),))
    (alert,) = alerts(done, CALM)
    assert alert.kind is AlertKind.REBALANCE
    assert "Planned: sold " in alert.text
    assert "; cost " in alert.text


def test_a_review_that_trades_nothing_is_told_with_its_reason() -> None:
    step = step_input({"WETH": 5_000, "USDC": 5_000}, {"WETH": 5_000, "USDC": 5_000}, trigger=Every(3_600))
    step_outcome = outcome(step)
    assert step_outcome.decision_result.due_schedules
    (alert,) = prices(step_outcome)
    assert (alert.kind, alert.key, alert.is_lasting) == (AlertKind.REVIEW, "review", False)
    assert mentions(alert.text, "Reviewed")


def test_a_rebalance_that_time_asks_for_is_told_while_it_is_due() -> None:
    step = step_input({"WETH": 5_000, "USDC": 5_000}, {"WETH": 7_000, "USDC": 3_000}, trigger=Every(3_600))
    (alert,) = prices(replace(planned(), step_input=step, decision_result=decide(step)))
    assert (alert.kind, alert.key, alert.is_lasting) == (AlertKind.REVIEW, "planned", True)
    assert "would sell" in alert.text


# ends of steps
def test_rebalance__is_reported_with_block_and_step() -> None:
    alert_texts = alerts_by_kind(
        outcome(step_input(), OutcomeKind.DONE, transactions=(sent_intent(IntentKind.APPROVE), sent_intent(IntentKind.SWAP, block=9)))
    )
    assert mentions(alert_texts[AlertKind.REBALANCE].text, "2 transactions", "block 9", f"trimtab explain {STEP}")
    assert not alert_texts[AlertKind.REBALANCE].is_lasting
    both = (sent_intent(IntentKind.SWAP, block=11), sent_intent(IntentKind.LIQUIDITY, block=12))
    assert mentions(alerts_by_kind(outcome(step_input(), OutcomeKind.DONE, transactions=both))[AlertKind.REBALANCE].text, "block 12")


@pytest.mark.parametrize("more", [(), (sent_intent(IntentKind.SWAP, status=0),)], ids=["an approval", "a swap that reverted"])
def test_what_only_tidied_up_is_no_rebalance(more: tuple[Intent, ...]) -> None:
    assert alerts_by_kind(outcome(step_input(), OutcomeKind.DONE, transactions=(sent_intent(IntentKind.APPROVE), *more))) == {}


def alerts_of_order(stage: OrderStage) -> dict[AlertKind, Alert]:
    """Return the alerts of a step with a stop loss of WETH at this stage, whose event was at 1,500."""
    weth = token("WETH")
    terms = OrderTerms(weth.address, OrderKind.STOP_LOSS, share_bps=1_000)
    order = ConditionalOrder(weth.address, OrderKind.STOP_LOSS, stage, terms, 5, event_price=unit_price(weth, 1_500, token("USDC")))
    return alerts_by_kind(outcome(with_history(step_input(), states=(order,))))


@pytest.mark.parametrize("stage", [OrderStage.FIRED, OrderStage.DONE])
def test_order__is_reported_from_its_firing_until_armed_anew(stage: OrderStage) -> None:
    alert = alerts_of_order(stage)[AlertKind.ORDER]
    assert alert.key == f"order:{token('WETH').address}:stop_loss:5"
    assert alert.is_lasting
    assert mentions(alert.text.replace(",", ""), "WETH", "1500")
    assert AlertKind.ORDER in covered_kinds(outcome(step_input()))


@pytest.mark.parametrize("stage", [stage for stage in OrderStage if stage not in (OrderStage.FIRED, OrderStage.DONE)])
def test_order__that_has_not_fired_is_no_alert(stage: OrderStage) -> None:
    assert AlertKind.ORDER not in alerts_of_order(stage)


@pytest.mark.parametrize(
    ("kind", "message_count"),
    [
        (OrderKind.STOP_LOSS, 2),
        (OrderKind.TAKE_PROFIT, 2),
        (OrderKind.TRAILING_STOP, 2),
        pytest.param(OrderKind.ENTRY, 1, id="entry closes and opens by itself"),
    ],
)
def test_exit_armed_and_fired_again__is_a_message_of_its_own(kind: OrderKind, message_count: int) -> None:
    """No cycle sees the order armed: it fires in the cycle after trimtab orders arm."""
    weth = token("WETH")
    terms = OrderTerms(weth.address, kind, share_bps=1_000)
    order = ConditionalOrder(weth.address, kind, OrderStage.FIRED, terms, 5, event_price=unit_price(weth, 1_500, token("USDC")))
    sold_order = replace(order, stage=OrderStage.DONE)
    rules = AlertRules(frozenset(AlertKind), cooldown_s=21_600)
    states: dict[str, AlertState] = {}
    texts = []
    for now_s, seen_order in ((5, order), (17, sold_order), (29, replace(order, since_s=29))):
        cycle_outcome = outcome(with_history(step_input(), states=(seen_order,)))
        order_alerts = [alert for alert in alerts(cycle_outcome, CALM) if alert.kind is AlertKind.ORDER]
        decision = decide_alerts(tuple(states.values()), order_alerts, frozenset(AlertKind), now_s, rules)
        states |= {state.key: state for state in decision.changed_states}
        texts += [state.text for state in decision.to_send]
    assert len(texts) == message_count, texts


def test_refusal__names_its_guards_with_plain_figures() -> None:
    verdicts = (
        Verdict("price_impact", "143 bps", "100 bps", False),
        Verdict("token_screen", "honeypot: EVIL says <b>no</b>", "clean", False),
        Verdict("slippage", "10 bps", "30 bps", True),
    )
    refusal_text = alerts_by_kind(outcome(step_input(), OutcomeKind.REFUSED, refusal_verdicts=verdicts))[AlertKind.REFUSAL]
    assert refusal_text.text.endswith(f"price_impact (1.43 %, limit 1 %), token_screen. trimtab explain {STEP}")
    assert refusal_text.key == "refusal:price_impact,token_screen"
    assert refusal_text.is_lasting


def test_pause__is_reported_as_no_refusal_or_halt() -> None:
    stopped = (Verdict("kill_switch", "paused", "running", False),)
    paused = replace(CALM, paused=True)
    assert set(alerts_by_kind(outcome(step_input(), OutcomeKind.REFUSED, refusal_verdicts=stopped), paused)) == {AlertKind.PAUSED}
    hard = hard_pause_result(step_input(), "hard pause")
    assert set(alerts_by_kind(outcome(step_input(), OutcomeKind.HALT, decision_result=hard), paused)) == {AlertKind.PAUSED}
    both = (*stopped, Verdict("plan_cost", "80 bps", "50 bps", False))
    assert set(alerts_by_kind(outcome(step_input(), OutcomeKind.REFUSED, refusal_verdicts=both), paused)) == {
        AlertKind.PAUSED,
        AlertKind.REFUSAL,
    }


def test_pause__halt_of_the_policy_is_reported() -> None:
    halted = alerts_by_kind(outcome(with_snapshot(step_input(), feeds=(), pools=()), OutcomeKind.HALT), replace(CALM, paused=True))
    assert "reference price" in halted[AlertKind.HALT].text


def test_hard_pause__unexplained_change_and_mute_signal_are_reported() -> None:
    fall = ExternalTransfer(1, token("WETH").address, -ETHER, None, 1, 2, 0, True, None)
    mute = SignalState((SignalAnswer("s", "", why="no answer"),))
    step = with_history(step_input(), unexplained_transfers=(fall,)).with_layer(mute)
    hard = outcome(step, OutcomeKind.HALT, decision_result=hard_pause_result(step, "hard pause"))
    assert [alert.key for alert in alerts(hard, replace(CALM, paused=True))] == ["signal:s", "halt", "paused"]


@pytest.mark.parametrize(
    ("reason", "is_shown"),
    [
        ("Insufficient margin to place order.", True),
        ("Price must be at least 12.5 % (ETH) away", True),
        ("User or API Wallet 0x0123456789abcdef0123456789abcdef01234567 does not exist.", False),
        ("Wallet 0x012345 is closed", False),
        ("claim at www.evil.com/airdrop now", False),
        ("claim at evil.Com", False),
        ("claim at 10.0.0.1/airdrop", False),
        ("<b>claim</b>", False),
    ],
)
def test_reason_of_the_venue__is_shown_if_it_is_a_plain_sentence(reason: str, is_shown: bool) -> None:
    verdict = Verdict("venue", reason, VENUE_ACCEPTANCE, False)
    refused = outcome(step_input(), OutcomeKind.REFUSED, refusal_verdicts=(verdict,))
    order = sent_intent(IntentKind.FUTURES, status=0)
    assert order.receipt is not None
    order = replace(order, receipt=replace(order.receipt, failure_reason=reason))
    rejected = outcome(step_input(), OutcomeKind.FAILED, transactions=(order,))
    texts = [alerts_by_kind(refused)[AlertKind.REFUSAL].text, alerts_by_kind(rejected)[AlertKind.ERROR].text]
    assert [f"The venue: {reason.rstrip('.')}." in text for text in texts] == [is_shown] * 2
    assert [reason.rstrip(".") in text for text in texts] == [is_shown] * 2


def test_a_halt_says_why_in_the_words_of_the_decision() -> None:
    step = with_snapshot(step_input(), feeds=())
    halt_text = alerts_by_kind(outcome(replace(step, snapshot=replace(step.snapshot, pools=())), OutcomeKind.HALT))[AlertKind.HALT]
    assert "reference price" in halt_text.text
    assert halt_text.is_lasting


def test_gas_is_low_below_the_limit_and_not_at_it() -> None:
    step = with_snapshot(step_input(), native_wei=ETHER // 20)
    assert alerts_by_kind(outcome(step), replace(CALM, low_gas_wei=ETHER // 20)) == {}
    gas_text = alerts_by_kind(outcome(step), replace(CALM, low_gas_wei=ETHER // 20 + 1))[AlertKind.LOW_GAS]
    assert mentions(gas_text.text, "0.05")
    assert AlertKind.LOW_GAS not in alerts_by_kind(outcome(step))


def test_gas_is_judged_after_the_trades() -> None:
    rich = with_snapshot(step_input(), native_wei=ETHER)
    poor = with_snapshot(step_input(), native_wei=0)
    facts = replace(CALM, low_gas_wei=1)
    assert AlertKind.LOW_GAS in alerts_by_kind(outcome(rich, input_after=poor), facts)
    assert AlertKind.LOW_GAS not in alerts_by_kind(outcome(poor, input_after=rich), facts)


def test_shortfall__is_reported_once_by_its_or_a_later_cycle() -> None:
    facts = replace(CALM, shortfalls=((STEP, ("WETH",)), ("5e", ("WBTC",))))
    weth = token("WETH").address
    failed = [alert.key for alert in alerts(outcome(step_input(), OutcomeKind.FAILED, shortfall_tokens=(weth,)), facts)]
    assert failed == [f"short:{STEP}", "short:5e"]
    assert [alert.key for alert in alerts(outcome(step_input()), facts)] == [f"short:{STEP}", "short:5e"]


def test_a_declined_plan_leaves_its_drift_told() -> None:
    (alert,) = prices(replace(planned(), kind=OutcomeKind.DECLINED))
    assert alert.kind is AlertKind.PRICE
    assert AlertKind.PRICE in covered_kinds(replace(planned(), kind=OutcomeKind.DECLINED))


def test_hard_pause__allowance_cannot_be_read__is_not_complete_and_names_it() -> None:
    unread = UnreadableItem("allowance of WETH to 0x1", "0x1", "reverted")
    step = with_snapshot(step_input(), unreadable_items=(unread,))
    stopped = outcome(step, OutcomeKind.FAILED, decision_result=hard_pause_result(step, "hard pause"))
    alert = alerts_by_kind(stopped)[AlertKind.ERROR]
    assert alert.text == (
        f"The hard pause is not complete. The allowance of WETH to 0x1 cannot be read, so it may be open. trimtab explain {STEP}"
    )


# looks that failed
def test_a_network_that_fails_once_is_no_news_and_ends_nothing() -> None:
    error = Retryable("endpoint 'a': timed out")
    assert alerts_by_kind(error) == {}
    assert covered_kinds(error) == {AlertKind.PAUSED, AlertKind.HEARTBEAT}
    assert set(alerts_by_kind(error, replace(CALM, heartbeat_fault="no good look for 4000 s"))) == {AlertKind.HEARTBEAT}


def test_proposal_without_a_deadline__is_reported_without_a_time() -> None:
    proposal = {"id": "0a1b", "description": "pay 2 WETH", "expires_s": None}
    waiting = AwaitingExternalSignature("proposed", "have it signed", proposal, "p.json", reverts=True)
    both = alerts(waiting, CALM)
    assert [(alert.is_lasting, alert.repeats) for alert in both] == [(True, False)] * 2
    assert [alert.text for alert in both] == [
        "Proposed: pay 2 WETH (0a1b). Do not sign it, nor execute it, until trimtab status asks for it.",
        "Would fail now, for example because prices left its minimums: pay 2 WETH (0a1b). It stays proposed, and nothing else is sent"
        " meanwhile; trimtab cancel --send withdraws it, or proposes its rejection if enough owners of a Safe have signed"
        " (while paused: trimtab pause --hard --send).",
    ]


@pytest.mark.parametrize(
    ("reverts", "fault", "asks_to_sign"),
    [
        (False, None, True),
        (True, None, False),
        (None, None, False),
        (False, ProposalFault(FaultKind.LOW_MINIMUMS, "fair_floor: too low"), False),
        (False, ProposalFault(FaultKind.UNCHECKED_MINIMUMS, "unknown: no price"), False),
    ],
    ids=["waiting", "failing", "not simulated", "stale", "unchecked"],
)
def test_proposal_alert__asks_to_sign_only_what_may_be_signed(
    reverts: bool | None, fault: ProposalFault | None, asks_to_sign: bool
) -> None:
    proposal = {"id": "0a1b", "description": "pay 2 WETH", "expires_s": None}
    waiting = AwaitingExternalSignature("proposed", "have it signed", proposal, "p.json", reverts=reverts)
    waiting.mark_fault(fault)
    assert any("Have it signed" in alert.text for alert in alerts(waiting, CALM)) is asks_to_sign


@pytest.mark.parametrize(
    ("reverts", "fault", "titles"),
    [
        pytest.param(False, None, ["a proposal waits"], id="waiting"),
        pytest.param(True, None, ["a proposal waits", "a proposal would fail"], id="failing"),
        pytest.param(
            False, ProposalFault(FaultKind.LOW_MINIMUMS, "fair_floor: too low"), ["a proposal waits", "a proposal is stale"], id="stale"
        ),
        pytest.param(
            False,
            ProposalFault(FaultKind.UNCHECKED_MINIMUMS, "unknown: no price"),
            ["a proposal waits", "a proposal could not be checked"],
            id="unchecked",
        ),
    ],
)
def test_title_of_a_proposal_alert__says_its_state(reverts: bool, fault: ProposalFault | None, titles: list[str]) -> None:
    proposal = {"id": "0a1b", "description": "pay 2 WETH", "expires_s": None}
    waiting = AwaitingExternalSignature("proposed", "have it signed", proposal, "p.json", reverts=reverts)
    waiting.mark_fault(fault)
    assert [AlertMessage(1, "phone", alert.kind, alert.text, 0).title for alert in alerts(waiting, CALM)] == titles


@pytest.mark.parametrize("reverts", [True, False, None])
def test_proposal__that_could_not_be_simulated_ends_no_alert(reverts: bool | None) -> None:
    waiting = AwaitingExternalSignature("proposed", "have it signed", {"id": "0a1b"}, "p.json", reverts=reverts)
    assert (AlertKind.PROPOSAL in covered_kinds(waiting)) is (reverts is not None)


def test_an_outcome_without_weights_knows_nothing_of_prices() -> None:
    step = with_snapshot(step_input(), feeds=())
    assert AlertKind.PRICE not in covered_kinds(outcome(replace(step, snapshot=replace(step.snapshot, pools=())), OutcomeKind.HALT))
    calm = outcome(step_input())
    assert AlertKind.PRICE in covered_kinds(calm)
    assert AlertKind.PRICE not in covered_kinds(replace(calm, decision_result=replace(calm.decision_result, drifts=())))


@pytest.mark.parametrize("error", [OperatorNeeded("nonce"), ConfigError("x"), TrimtabError("x"), OperatorNeeded("EVIL <script>")])
def test_an_error_that_ends_the_run_is_told_without_its_words(error: TrimtabError) -> None:
    (alert,) = alerts(error, CALM)
    assert alert == run_ended_alert(error)
    assert "EVIL" not in alert.text
    assert "nonce" not in alert.text
    assert ("is needed" in alert.text) is isinstance(error, OperatorNeeded)
    assert "13" in run_hung_alert().text


def test_a_refusal_that_was_raised_names_its_guards() -> None:
    error = Refused("EVIL", [Verdict("allowlist", "EVIL", "EVIL", False)])
    assert mentions(alerts_by_kind(error)[AlertKind.REFUSAL].text, "by allowlist", "trimtab doctor")
    assert "EVIL" not in alerts_by_kind(error)[AlertKind.REFUSAL].text
    assert AlertKind.REFUSAL in covered_kinds(error)


# T17
@pytest.mark.parametrize("text", CORPUS.values(), ids=CORPUS)
def test_nothing_that_a_stranger_wrote_is_in_any_alert(text: str) -> None:
    """As a token's symbol, an endpoint's words, a guard, a verdict, a step's id, an error."""
    step = step_input({"WETH": 5_000, "USDC": 5_000}, {"WETH": 7_000, "USDC": 3_000})
    named = replace(step.portfolio.assets[0], token=replace(step.portfolio.assets[0].token, symbol=text))
    step = replace(step, portfolio=replace(step.portfolio, assets=(named, *step.portfolio.assets[1:])))
    step = with_snapshot(step, unreadable_items=(UnreadableItem("endpoint", "one", text),), native_wei=0)
    verdicts = (Verdict(text, text, text, False), Verdict("plan_cost", text, text, False))
    facts = replace(CALM, low_gas_wei=1)
    all_alerts: list[Alert] = []
    for kind in (OutcomeKind.REFUSED, OutcomeKind.FAILED, OutcomeKind.HOLD):
        all_alerts += alerts(outcome(step, kind, refusal_verdicts=verdicts, reason=text, step_id=text), facts)
    all_alerts += alerts(outcome(step, OutcomeKind.DONE, step_id=text, transactions=(sent_intent(IntentKind.SWAP),)), facts)
    all_alerts += alerts(outcome(with_snapshot(step, feeds=(), pools=()), OutcomeKind.HALT), facts)
    for error in (Refused(text, verdicts, text), OperatorNeeded(text, text), TrimtabError(text), ConfigError(text)):
        all_alerts += alerts(error, facts)
    assert {alert.kind for alert in all_alerts} >= {AlertKind.PRICE, AlertKind.REFUSAL, AlertKind.HALT, AlertKind.ERROR, AlertKind.LOW_GAS}
    for alert in all_alerts:
        alert_text = alert.text + alert.key
        assert alert_text.isascii()
        assert alert_text.isprintable()
        assert not [mark for mark in MARKS if mark in alert_text], alert_text
        assert not set("<>[]{}`*&\"'@#$|\\~^!\n") & set(alert_text)
