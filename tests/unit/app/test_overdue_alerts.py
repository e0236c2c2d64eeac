"""What the journal gives a run to alert of: futures orders without an outcome, and trades that brought less than their minimum."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from agent.app import alert_channels
from agent.app.alert_channels import unreported_shortfalls, unsettled_orders
from agent.app.alerting import shortfall_key
from agent.model import IntentState

NOW_S = 1_700_000_000
OVERDUE_S = NOW_S - 181
SNAPSHOT: Any = SimpleNamespace()


def order(*, is_venue_order: bool = True, **changes: Any) -> Any:
    """An order at the venue that has been overdue for a second."""
    fields = {"state": IntentState.BROADCAST, "deadline_s": OVERDUE_S, "is_resting": False, "tx_hash": "cloid", "note": "sell ETH"}
    return SimpleNamespace(tx=SimpleNamespace(is_venue_order=is_venue_order), **fields | changes)


@pytest.mark.parametrize(
    ("intent", "resting_cloids", "is_reported"),
    [
        pytest.param(order(), (), True, id="overdue"),
        pytest.param(order(deadline_s=OVERDUE_S + 1), (), False, id="in its last second"),
        pytest.param(order(deadline_s=None), (), True, id="without a deadline"),
        pytest.param(order(is_venue_order=False), (), False, id="a transaction"),
        pytest.param(order(state=IntentState.PLANNED), (), False, id="not sent"),
        pytest.param(order(is_resting=True), (), True, id="resting, and not listed"),
        pytest.param(order(is_resting=True), ("cloid",), False, id="resting and listed"),
        pytest.param(order(is_resting=True), None, False, id="resting, and the venue was not read"),
        pytest.param(order(), ("cloid",), True, id="listed, and not meant to rest"),
        pytest.param(order(), None, True, id="overdue, and the venue was not read"),
    ],
)
def test_futures_order__without_an_outcome__is_reported_in_time(
    monkeypatch: pytest.MonkeyPatch, intent: Any, resting_cloids: Sequence[str] | None, is_reported: bool
) -> None:
    account = SimpleNamespace(resting_orders=[SimpleNamespace(cloid=cloid) for cloid in resting_cloids or ()])
    monkeypatch.setattr(alert_channels, "margin_account", lambda _: account)
    store: Any = SimpleNamespace(journal=SimpleNamespace(open_intents=lambda: [intent]))
    reported = unsettled_orders(store, None if resting_cloids is None else SNAPSHOT, NOW_S)
    assert reported == ((("cloid", "sell ETH"),) if is_reported else ())


OLDEST_S = NOW_S - 30 * 86_400


@pytest.mark.parametrize(
    ("created_s", "short_tokens", "reported_keys", "is_reported"),
    [
        pytest.param(OLDEST_S, ("0xa",), (), True, id="of thirty days"),
        pytest.param(OLDEST_S - 1, ("0xa",), (), False, id="older"),
        pytest.param(NOW_S, (), (), False, id="brought its minimum"),
        pytest.param(NOW_S, ("0xa",), (shortfall_key("s"),), False, id="reported before"),
        pytest.param(NOW_S, ("0xa",), (shortfall_key("t"),), True, id="another was reported"),
    ],
)
def test_shortfall__is_reported_once_and_while_it_is_recent(
    monkeypatch: pytest.MonkeyPatch, created_s: int, short_tokens: tuple[str, ...], reported_keys: tuple[str, ...], is_reported: bool
) -> None:
    intent = SimpleNamespace(step_id="s", created_s=created_s)
    step = SimpleNamespace(portfolio=SimpleNamespace(token=lambda token: SimpleNamespace(label=f"label of {token}")))
    monkeypatch.setattr(alert_channels, "shortfall_by_receipt", lambda *_: short_tokens)
    monkeypatch.setattr(alert_channels, "originating_step", lambda *_: step)
    store: Any = SimpleNamespace(
        journal=SimpleNamespace(successful_trades=lambda outcome: [intent] if outcome == "failed" else []), steps=None
    )
    alert_store: Any = SimpleNamespace(states=lambda: [SimpleNamespace(key=key) for key in reported_keys])
    expected = ((("s", ("label of 0xa",))),) if is_reported else ()
    assert unreported_shortfalls(store, alert_store, NOW_S) == expected
