"""What alerts and the status say of both layers: exposure, leverage, utilisation, liquidation, and what would be closed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction

import pytest

from agent.app.alerting import RunFacts, cycle_alerts
from agent.app.documents.futures import action_text, optional_futures_summary
from agent.app.positions.futures_alerts import (
    account_alerts,
    agent_key_alerts,
    futures_alerts,
    futures_plan_of,
    net_exposure_alerts,
    stale_read_alerts,
    unnamed_market_alerts,
)
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.layers.futures.state import futures_policy, with_policy
from agent.margin import account as margin
from agent.margin.account import nearest_liquidation
from agent.model import Alert, AlertKind, Halt, Snapshot, StepInput
from agent.model.futures import (
    FuturesPlan,
    FuturesReading,
    Hedge,
    MarginAccount,
    MarginDeposit,
    PerpOrder,
    PerpOrderKind,
    StaleRead,
    StaleReadKind,
    StopOrder,
)
from agent.planning.proposals import propose_rebalance
from agent.policy.decide import current_drifts, decide
from tests.support.builders import NOW_S, token, with_history, with_snapshot
from tests.support.perpetuals.accounts import E18
from tests.support.perpetuals.steps import EMPTY, OVER, book
from tests.support.perpetuals.values import step_with_margin


def outcome(step: StepInput, kind: OutcomeKind) -> StepOutcome:
    proposal = propose_rebalance(step)
    return StepOutcome("0123456789ab", kind, proposal.decision_result.decision.reason, step, proposal.decision_result, proposal.plan)


def alerts(step: StepInput, kind: OutcomeKind = OutcomeKind.PLANNED) -> list[Alert]:
    return [alert for alert in cycle_alerts(outcome(step, kind), RunFacts(False, "", None)) if alert.key.startswith("futures:")]


def test_an_alert_carries_what_a_broken_limit_would_close() -> None:
    step = step_with_margin(OVER, {"WETH": 12_500, "USDC": 2_500})
    [alert] = alerts(step)
    assert alert.key == "futures:leverage"
    assert alert.is_lasting
    assert "leverage 4.00x of at most 3x" in alert.text
    assert "liquidation of ETH 20 % away" in alert.text
    assert "net exposure ETH 160 %" in alert.text, "40,000 of 25,000"
    assert "It would close " in alert.text
    assert " of 20 ETH (long)" in alert.text
    kinds = [alert.kind for alert in cycle_alerts(outcome(step, OutcomeKind.PLANNED), RunFacts(False, "", None))]
    assert len(kinds) == 1, "a reduction that is planned is told once"
    assert alerts(step, OutcomeKind.DONE) == []
    assert [alert.key for alert in alerts(step_with_margin(EMPTY))] == ["futures:net_exposure"], "no reduction"


def test_net_exposure__is_judged_after_what_was_done_once_read() -> None:
    off_target = step_with_margin(EMPTY)
    done = outcome(step_with_margin(EMPTY), OutcomeKind.DONE)
    assert list(net_exposure_alerts(done)) == [], "not read since"
    [alert] = net_exposure_alerts(replace(done, input_after=off_target))
    assert (alert.key, alert.is_lasting) == ("futures:net_exposure", True)
    assert [alert.key for alert in net_exposure_alerts(outcome(off_target, OutcomeKind.HOLD))] == [alert.key]


def test_net_exposure__is_not_told_beside_the_plan_that_corrects_it() -> None:
    step = step_with_margin(OVER, {"WETH": 12_500, "USDC": 2_500})
    keys = {kind: [alert.key for alert in net_exposure_alerts(outcome(step, kind))] for kind in (OutcomeKind.PLANNED, OutcomeKind.HOLD)}
    assert keys == {OutcomeKind.PLANNED: [], OutcomeKind.HOLD: ["futures:net_exposure"]}


SOLD = PerpOrder("ETH", -5 * E18, PerpOrderKind.MARKET, 1, is_reduce_only=False)
SHORT_HEDGE = Hedge("ETH", token("WETH").address, -5 * E18, NOW_S, Fraction(1))


@pytest.mark.parametrize(
    ("account", "futures_plan", "is_told"),
    [
        pytest.param(OVER, FuturesPlan((SOLD,)), False, id="nearer"),
        pytest.param(OVER, FuturesPlan((replace(SOLD, size_raw=5 * E18),)), True, id="farther"),
        pytest.param(OVER, FuturesPlan(resting_actions=(StopOrder("ETH", -E18, 1, 1),)), True, id="stops"),
        pytest.param(OVER, FuturesPlan(account_actions=(MarginDeposit(10**9),)), True, id="deposit"),
        pytest.param(OVER, FuturesPlan((SOLD,), hedges=(SHORT_HEDGE,)), True, id="hedge beside too long a position"),
        pytest.param(EMPTY, FuturesPlan((SOLD,), hedges=(SHORT_HEDGE,)), True, id="hedge without a position"),
    ],
)
def test_net_exposure__is_told_unless_the_shown_plan_corrects_it(account: MarginAccount, futures_plan: FuturesPlan, is_told: bool) -> None:
    planned_outcome = outcome(step_with_margin(account, {"WETH": 12_500, "USDC": 2_500}), OutcomeKind.PLANNED)
    assert planned_outcome.plan is not None
    planned_outcome = replace(planned_outcome, plan=planned_outcome.plan.with_layer(futures_plan))
    assert futures_plan_of(planned_outcome) == futures_plan
    assert [alert.key for alert in net_exposure_alerts(planned_outcome)] == (["futures:net_exposure"] if is_told else [])


@pytest.mark.parametrize("kind", [OutcomeKind.HOLD, OutcomeKind.PLANNED, OutcomeKind.DECLINED])
def test_net_exposure__is_told_beside_a_plan_of_spot_alone(kind: OutcomeKind) -> None:
    spot_plan = outcome(step_with_margin(EMPTY, {"WETH": 7_000, "USDC": 3_000}), kind)
    assert futures_plan_of(spot_plan) is None
    assert [alert.key for alert in net_exposure_alerts(spot_plan)] == ["futures:net_exposure"]


def test_an_alert_about_a_band_names_the_net_exposure() -> None:
    margin_account = book(2_000, E18)
    named = replace(margin_account, markets=tuple(replace(market, asset=token("WETH").address) for market in margin_account.markets))
    step = step_with_margin(named, {"WETH": 9_000, "USDC": 1_000})
    alerts = cycle_alerts(outcome(step, OutcomeKind.PLANNED), RunFacts(False, "", None))
    [text] = [alert.text for alert in alerts if alert.key.startswith("price:")]
    assert "WETH is above its band: 75 % of the portfolio" in text
    assert "net exposure 91.67 %" in text


def test_a_refused_reduction_and_a_sent_one_name_their_orders() -> None:
    refused = outcome(step_with_margin(OVER), OutcomeKind.REFUSED)
    texts = [alert.text for alert in cycle_alerts(refused, RunFacts(False, "", None)) if alert.key.startswith("refusal")]
    assert len(texts) == 1
    assert "It would close " in texts[0]


def test_summary__names_utilisation_and_nearest_liquidation() -> None:
    step = step_with_margin(OVER)
    assert futures_policy(step) is not None
    limits = replace(futures_policy(step).limits, top_up_per_day_bps=None)
    step = with_policy(step, replace(futures_policy(step), limits=limits))
    futures = optional_futures_summary(step, current_drifts(step))["futures"]
    assert (futures["leverage"], futures["max_leverage"], futures["max_utilisation"]) == ("4", "3", "0.9")
    assert futures["utilisation"] is not None
    assert futures["broken"]
    assert (futures["target_leverage"], futures["target_note"]) == ("2", "not restored: leverage_band is off")
    banded_step = with_policy(step, replace(futures_policy(step), leverage_band_bps=2_000))
    assert optional_futures_summary(banded_step, current_drifts(banded_step))["futures"]["target_note"] == ""
    near = futures["liquidation"]
    assert near is not None
    assert near["symbol"] == "ETH"
    assert abs(Fraction(near["distance"]) + Fraction(1, 5)) < Fraction(1, 1_000)
    assert len(futures["actions"]) == 1
    assert futures["actions"][0].startswith("deposit ")
    assert futures["actions"][0].endswith(" USDC")
    alone = step_with_margin(OVER, {"WETH": 10_000, "USDC": 0})
    assert optional_futures_summary(alone, current_drifts(alone))["futures"]["actions"] == ["close 5.75 of 20 ETH (long)"]
    exposures = {exposure["symbol"]: exposure for exposure in futures["exposures"]}
    assert Fraction(exposures["USDC"]["spot"]) == 15_000, "the margin is part of its collateral"
    empty = step_with_margin(EMPTY)
    assert optional_futures_summary(empty, current_drifts(empty))["futures"]["liquidation"] is None


def test_actions_read_as_they_are_done() -> None:
    changed_book = replace(book(10_000, -3 * E18), collateral_unit_raw=10**12)
    closing = PerpOrder("ETH", E18, PerpOrderKind.MARKET, 1, is_reduce_only=True)
    opening = replace(closing, size_raw=-(10**15), is_reduce_only=False)
    deposit = MarginDeposit(500 * 10**6)
    usdc = token("USDC")
    assert [action_text(changed_book, action, usdc) for action in (closing, opening, deposit)] == [
        "close 1 of 3 ETH (short)",
        "sell 0.001 ETH",
        "deposit 500 USDC",
    ]
    assert [action_text(changed_book, action, usdc, is_done=True) for action in (closing, opening, deposit)] == [
        "closed 1 of 3 ETH (short)",
        "sold 0.001 ETH",
        "deposited 500 USDC",
    ]


def test_the_nearest_liquidation_is_the_smallest_move() -> None:
    margin_account = book(10_000, 20 * E18)
    liquidation = nearest_liquidation(margin_account)
    assert liquidation is not None
    assert liquidation[1] == margin.liquidation_distance(margin_account, "ETH")
    assert nearest_liquidation(book(10_000)) is None


def funding_alerts(daily_bps: int) -> list[str]:
    """Return the texts of alerts of funding for a long of 20,000 on 10,000 of margin, which pays more than 1 % of it in a day from
    0.5 % of notional on.
    """
    step = step_with_margin(book(10_000, 10 * E18, funding_daily=Fraction(daily_bps, 10_000)))
    outcome = StepOutcome("step", OutcomeKind.HOLD, "a reason", step, decide(step), None)
    return [alert.text for alert in cycle_alerts(outcome, RunFacts(False, "", None)) if alert.key == "futures:funding"]


@pytest.mark.parametrize(("daily_bps", "usd", "share"), [(51, "102", "1.02"), (200, "400", "4")])
def test_funding_above_a_share_of_the_account__is_an_alert(daily_bps: int, usd: str, share: str) -> None:
    assert funding_alerts(daily_bps) == [
        f"Futures: at the newest rates the account pays {usd} USD of funding in 24 h, {share} % of its value (futures.funding_horizon is"
        " off). See trimtab funding"
    ]


@pytest.mark.parametrize("daily_bps", [5, 50, -200])
def test_funding_up_to_a_share_of_the_account__is_no_alert(daily_bps: int) -> None:
    assert funding_alerts(daily_bps) == []


@pytest.mark.parametrize(
    ("kind", "is_told"),
    [
        (OutcomeKind.HOLD, True),
        (OutcomeKind.HALT, True),
        (OutcomeKind.PLANNED, True),
        (OutcomeKind.DECLINED, True),
        (OutcomeKind.REFUSED, True),
        (OutcomeKind.DONE, False),
        (OutcomeKind.FAILED, False),
    ],
)
def test_reduction__is_an_alert_while_it_is_not_sent(kind: OutcomeKind, is_told: bool) -> None:
    assert [alert.key for alert in futures_alerts(outcome(step_with_margin(OVER), kind))] == (["futures:leverage"] if is_told else [])


@pytest.mark.parametrize("cause", ["stop_reason", "ledger_mismatch"])
@pytest.mark.parametrize(
    ("account", "headline"),
    [(OVER, "leverage is above its limit"), (book(10_000, 62 * E18), "liquidation is near; close positions before it")],
    ids=["limit", "liquidation"],
)
def test_reduction_that_a_halt_holds_back__is_an_alert_beside_it(account: MarginAccount, headline: str, cause: str) -> None:
    step = with_history(step_with_margin(account, {"WETH": 12_500, "USDC": 2_500}), **{cause: "a cause"})
    halted = outcome(step, OutcomeKind.HALT)
    assert isinstance(halted.decision, Halt)
    texts = [alert.text for alert in cycle_alerts(halted, RunFacts(False, "", None))]
    assert len(texts) == 2
    assert texts[0].startswith(f"Futures: {headline}")
    assert "It would close " in texts[0]
    assert texts[1].startswith("Nothing is traded: ")


def with_missing_stops(step: StepInput) -> StepInput:
    account = step.snapshot.layer(FuturesReading).account
    assert account is not None
    policy = futures_policy(step)
    step = with_policy(step, replace(policy, limits=replace(policy.limits, resting_stop_bps=200)))
    return with_snapshot(step, futures=replace(account, is_on_chain=False))


def manual(step: StepInput) -> StepInput:
    return with_policy(step, replace(futures_policy(step), leverage_band_bps=500, manual_triggers=("drift", "leverage_drift")))


ON_TARGET = step_with_margin(book(10_000, 10 * E18))
LOPSIDED = step_with_margin(book(10_000, 5 * E18))


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        pytest.param(step_with_margin(book(10_000, 62 * E18)), AlertKind.HALT, id="liquidation"),
        pytest.param(step_with_margin(OVER), AlertKind.HALT, id="limit"),
        pytest.param(manual(step_with_margin(OVER)), AlertKind.HALT, id="limit and trigger"),
        pytest.param(with_missing_stops(ON_TARGET), AlertKind.REVIEW, id="resting stops"),
        pytest.param(manual(step_with_margin(EMPTY)), AlertKind.REVIEW, id="trigger"),
    ],
)
def test_reduction_that_cannot_wait_for_the_morning__is_urgent(step: StepInput, kind: AlertKind) -> None:
    """Quiet hours of docs/alerts.md let errors and halts pass."""
    [alert] = futures_alerts(outcome(step, OutcomeKind.HOLD))
    assert alert.kind is kind


@pytest.mark.parametrize(
    ("kind", "after", "bought"),
    [
        pytest.param(OutcomeKind.HOLD, None, "buy 10 ETH", id="not sent"),
        pytest.param(OutcomeKind.DONE, None, "", id="not read since"),
        pytest.param(OutcomeKind.DONE, ON_TARGET, "", id="on target"),
        pytest.param(OutcomeKind.DONE, LOPSIDED, "buy 5 ETH", id="in part"),
        pytest.param(OutcomeKind.FAILED, LOPSIDED, "buy 5 ETH", id="failed in part"),
    ],
)
def test_waiting_trigger__is_judged_after_what_was_done(kind: OutcomeKind, after: StepInput | None, bought: str) -> None:
    before = step_with_margin(EMPTY)
    done = replace(outcome(before, kind), step_input=manual(before), input_after=None if after is None else manual(after))
    texts = [alert.text for alert in futures_alerts(done)]
    assert bool(texts) is bool(bought)
    assert all(f"It would {bought}. Run: trimtab rebalance --send" in text for text in texts)


def test_waiting_trigger__does_not_hide_that_liquidation_is_near() -> None:
    """The key is that of the reduction, so that an alert of the waiting trigger does not keep it back."""
    step = manual(step_with_margin(book(2_200, 20 * E18), {"WETH": 12_500, "USDC": 2_500}))
    [alert] = alerts(step)
    assert alert.key == "futures:liquidation"
    assert alert.text.startswith("Futures: liquidation is near; close positions before it; ")
    assert alert.text.endswith("Futures actions await confirmation (leverage_drift): trimtab rebalance --send")


@pytest.mark.parametrize("kind", [OutcomeKind.HOLD, OutcomeKind.PLANNED, OutcomeKind.REFUSED])
def test_missing_stops__are_the_reason_of_their_alert(kind: OutcomeKind) -> None:
    """Beside the plan of a spot exit too."""
    [alert] = futures_alerts(replace(outcome(with_missing_stops(ON_TARGET), kind), plan=None))
    assert alert.key == "futures:resting_stop"
    assert alert.text.startswith("Futures: resting stops do not match the positions; ")
    assert "kept" not in alert.text


def reading(**fields: object) -> Snapshot:
    return step_with_margin(EMPTY).snapshot.with_layer(FuturesReading(**fields))  # type: ignore[arg-type]  # field names, checked by the class


HELD = book(10_000, E18)
NAMED_KEYS = {
    "calm": (account_alerts, {"account": HELD}, []),
    "unknown": (account_alerts, {}, []),
    "uncertain profit": (account_alerts, {"account": replace(HELD, unknown_row_kinds=("newKind",))}, [("futures:books", AlertKind.REVIEW)]),
    "isolated": (account_alerts, {"account": replace(EMPTY, isolated_markets=("ETH",))}, [("futures:isolated", AlertKind.HALT)]),
    "named": (unnamed_market_alerts, {"account": HELD}, []),
    "unnamed": (unnamed_market_alerts, {"account": book(10_000, E18, is_configured=False)}, [("futures:unnamed", AlertKind.HALT)]),
    "unnamed, empty": (unnamed_market_alerts, {"account": book(10_000, is_configured=False)}, []),
    "all read": (stale_read_alerts, {"account": HELD}, []),
    "old part": (
        stale_read_alerts,
        {"account": HELD, "stale_reads": (StaleRead(StaleReadKind.FEES, "HTTP 503"),)},
        [("futures:stale", AlertKind.REVIEW)],
    ),
    "approved": (agent_key_alerts, {"account": HELD}, []),
    "blocked": (
        agent_key_alerts,
        {"account": HELD, "blocked_reason": "no agent", "key_approval_expires_s": NOW_S},
        [("futures:agent", AlertKind.HALT)],
    ),
    "ends soon": (agent_key_alerts, {"account": HELD, "key_approval_expires_s": NOW_S}, [("futures:agent_ends", AlertKind.HALT)]),
}


@pytest.mark.parametrize(("alerts_of", "fields", "keys"), NAMED_KEYS.values(), ids=NAMED_KEYS)
def test_account__that_needs_a_look_is_an_alert(
    alerts_of: Callable[[Snapshot], Iterator[Alert]], fields: dict[str, object], keys: list[tuple[str, AlertKind]]
) -> None:
    alerts = list(alerts_of(reading(**fields)))
    assert [(alert.key, alert.kind) for alert in alerts] == keys
    assert all(alert.is_lasting for alert in alerts)


@pytest.mark.parametrize(("size_raw", "text"), [(E18, "1 ETH"), (-3 * E18 // 2, "-1.5 ETH"), (0, "ETH (isolated)")])
def test_unnamed_position__is_shown_with_its_size(size_raw: int, text: str) -> None:
    account = replace(book(10_000, size_raw, is_configured=False), isolated_markets=("ETH",))
    (alert,) = unnamed_market_alerts(reading(account=account))
    assert alert.key == "futures:unnamed"
    assert f"does not name: {text}." in alert.text


@pytest.mark.parametrize(
    ("is_on_chain", "commands"),
    [
        pytest.param(True, ["trimtab delegate --end --send", "trimtab deleverage --market SYMBOL --send"], id="on chain"),
        pytest.param(
            False,
            ["trimtab delegate --send", "trimtab deleverage --market SYMBOL --send; isolated ones on the venue's site"],
            id="off chain",
        ),
    ],
)
def test_unnamed_position__names_commands_that_its_venue_has(is_on_chain: bool, commands: list[str]) -> None:
    account = replace(book(10_000, E18, is_configured=False), is_on_chain=is_on_chain)
    (alert,) = unnamed_market_alerts(reading(account=account))
    assert re.findall(r"\((trimtab [^)]*)\)", alert.text) == commands
