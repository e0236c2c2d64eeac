"""Tests of agent/wiring/waiting_proposals.py: the command that goes on after a proposal."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent import codec
from agent.model import IntentKind, Payment, Payout, RaiseForWithdrawal, RequestKind, RequestState, StepRequest, Swap, Unwrap
from agent.store import open_memory_store
from agent.wiring.waiting_proposals import next_command, renewing_command
from tests.support.tokens import LINK, USDC, WETH
from tests.support.transactions import CHAIN_ID, OTHER, START_S, WALLET, grant, tx

WITHDRAWALS = (
    (Payment(USDC.address, 5),),
    (Payment(WETH.address, 5, native=True),),
    (Payment(USDC.address, 7), Payment(WETH.address, 7)),
    (Payment(WETH.address, 9),),
)


@pytest.mark.parametrize(
    ("request_of_step", "command"),
    [
        pytest.param(RaiseForWithdrawal(USDC.address), "trimtab withdraw --resume 3 --send", id="newest that has not sent the coin"),
        pytest.param(RaiseForWithdrawal(WETH.address), "trimtab withdraw --resume 4 --send", id="newest of all"),
        pytest.param(Unwrap(5), "trimtab withdraw --resume 2 --send", id="unwrapped to pay natively"),
        pytest.param(RaiseForWithdrawal(LINK.address), "trimtab rebalance --send", id="no withdrawal of the coin"),
        pytest.param(Swap(USDC.address, WETH.address, 5), "trimtab rebalance --send", id="for no withdrawal"),
    ],
)
def test_sale__names_the_withdrawal_that_it_pays(request_of_step: StepRequest, command: str) -> None:
    with closing(open_memory_store(CHAIN_ID, WALLET)) as store:
        for payments in WITHDRAWALS:
            store.requests.record(RequestKind.WITHDRAW, payments, OTHER, False, START_S)
        store.requests.record(RequestKind.WITHDRAW, (Payment(USDC.address, 8),), OTHER, False, START_S)
        store.steps.begin("payment", START_S, "{}")
        sent = replace(grant(IntentKind.PAYOUT), payout=Payout(USDC.address, OTHER, 8, 0, 5))
        store.journal.add_intent("payment", tx(1), sent, "", START_S, None)
        store.steps.begin("sale", START_S, "{}", codec.dumps(request_of_step), "cycle")
        intent = store.journal.add_intent("sale", tx(0), grant(), "", START_S, None)
        context = cast(Any, SimpleNamespace(store=store))

        assert renewing_command(context, intent) == command


@pytest.mark.parametrize(
    ("is_released", "commands"),
    [
        pytest.param(False, ("trimtab withdraw --resume 1", "trimtab withdraw --resume 1 --send"), id="open"),
        pytest.param(True, ("trimtab rebalance --send", "trimtab rebalance --send"), id="released"),
    ],
)
def test_payment__names_its_withdrawal_until_that_is_released(is_released: bool, commands: tuple[str, str]) -> None:
    with closing(open_memory_store(CHAIN_ID, WALLET)) as store:
        store.requests.record(RequestKind.WITHDRAW, (Payment(USDC.address, 8),), OTHER, False, START_S)
        store.steps.begin("payment", START_S, "{}")
        sent = replace(grant(IntentKind.PAYOUT), payout=Payout(USDC.address, OTHER, 8, 0, 1))
        intent = store.journal.add_intent("payment", tx(0), sent, "", START_S, None)
        if is_released:
            store.requests.end(1, RequestState.RELEASED, START_S)
        switch = SimpleNamespace(is_paused=lambda: False)
        context = cast(Any, SimpleNamespace(store=store, kill_switch=switch))

        assert (next_command(context, intent), renewing_command(context, intent)) == commands
