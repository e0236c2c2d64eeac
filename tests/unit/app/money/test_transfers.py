"""The list of balance changes that the owner confirms: every open one, however many came after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent import wiring
from agent.app.agent import Agent
from agent.app.money import transfers
from agent.app.settings import editing
from agent.errors import ConfigError
from agent.model import ExternalTransferKind, Payment, RequestKind, RequestState
from agent.store import Store
from agent.store.accounts.balances import MAX_RECENT_TRANSFERS
from tests.support.fakes.clock import FakeClock
from tests.support.ledgers import COIN, LEDGER_WETH, at
from tests.support.records.transfers import record_transfers, transfer
from tests.support.stores import store_fixture
from tests.support.text import raises_code

store = store_fixture("memory", begins_step=True)


@pytest.mark.parametrize(
    ("later_kind", "include_classified", "numbers"),
    [
        pytest.param(ExternalTransferKind.UNDONE, False, [1], id="explained ones after it"),
        pytest.param(None, False, [4, 3, 2, 1], id="open ones after it"),
        pytest.param(ExternalTransferKind.UNDONE, True, [4, 3, 1], id="with explained ones"),
    ],
)
def test_list_transfers__shows_every_open_one(
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    later_kind: ExternalTransferKind | None,
    include_classified: bool,
    numbers: list[int],
) -> None:
    record_transfers(store, transfer(-COIN, exceeds_jump_limit=True), *[transfer(1, kind=later_kind)] * 3)
    monkeypatch.setattr(transfers, "settled_step_input", lambda *_: at(1_002))
    readers = SimpleNamespace(reader=SimpleNamespace(snapshot=lambda: None))
    agent = cast(Agent, SimpleNamespace(context=SimpleNamespace(readers=readers, store=store)))
    monkeypatch.setattr(transfers, "LISTED_TRANSFERS", 2)
    document = transfers.list_transfers(agent, include_classified)
    assert [flow["id"] for flow in document["flows"]] == numbers


def test_edit__explains_every_deposit_of_a_removed_asset(store: Store) -> None:
    record_transfers(store, transfer(COIN), transfer(-COIN), *[transfer(1, kind=ExternalTransferKind.UNDONE)] * MAX_RECENT_TRANSFERS)
    configs: list[Any] = [
        SimpleNamespace(config=SimpleNamespace(portfolio=SimpleNamespace(assets=[SimpleNamespace(address=token) for token in tokens])))
        for tokens in ([LEDGER_WETH.address], [])
    ]
    editing._classify_as_gifts(*configs, cast(Any, SimpleNamespace(store=store, clock=FakeClock())))
    assert [open_transfer.delta_raw for open_transfer in store.balances.unexplained_transfers()] == [-COIN]


def test_release__that_another_process_forestalls_is_none(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    request = store.requests.record(RequestKind.WITHDRAW, (Payment(LEDGER_WETH.address, 5),), None, False, 1)

    @contextmanager
    def open_transactor(*_: object, **__: object) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(executor=None)

    def end_after_another(request_id: int, state: RequestState, now_s: int) -> bool:
        store.requests.end(request_id, RequestState.DONE, 2)
        return store.requests.end(request_id, state, now_s)

    monkeypatch.setattr(wiring, "open_transactor", open_transactor)
    requests = SimpleNamespace(
        newest=store.requests.newest,
        end=end_after_another,
        payouts=store.requests.payouts,
        end_paid_withdrawals=store.requests.end_paid_withdrawals,
    )
    context = SimpleNamespace(store=SimpleNamespace(requests=requests), clock=FakeClock())
    with raises_code(ConfigError, "not_open"):
        transfers.release_withdrawal(cast(Agent, SimpleNamespace(context=context)), request.id)
    assert [request.state for request in store.requests.newest()] == [RequestState.DONE]
