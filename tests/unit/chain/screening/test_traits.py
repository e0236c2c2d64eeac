"""Tests of agent/chain/screening/traits.py: views of share-based or calling tokens, and balances that change without transfers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from agent.chain.lens import CallStatus, LensAnswer, uint_word
from agent.chain.rpc import RpcFault
from agent.chain.screening.answers import ScreenResult
from agent.chain.screening.traits import TRANSFER_TOPIC, find_rebasing, judge_traits, trait_items, transferred_raw
from agent.model import TokenFinding
from tests.support.builders import step_input
from tests.support.fakes.transport import ScriptedTransport
from tests.support.tokens import WETH

NO_TRAITS: list[LensAnswer] = [CallStatus.FAILED] * 4


def test_trait_items_ask_by_selector_owner_and_amount() -> None:
    items = trait_items(step_input().snapshot, WETH.address)

    owner_word = step_input().snapshot.owner[2:].lower().rjust(64, "0")
    amount_word = f"{10**6:064x}"
    assert [item.calldata.hex() for item in items] == [
        f"f5eb42dc{owner_word}",
        f"1da24f3e{owner_word}",
        f"1bd39674{amount_word}",
        "556f0dc7",
    ]
    assert {item.target for item in items} == {WETH.address}


def test_token_without_traits_is_ordinary() -> None:
    assert judge_traits(NO_TRAITS) is None


@pytest.mark.parametrize(
    ("number", "answer", "finding", "detail"),
    [
        pytest.param(0, 0, TokenFinding.REBASING, "its balances are shares: sharesOf()", id="sharesOf"),
        pytest.param(1, 0, TokenFinding.REBASING, "its balances are shares: scaledBalanceOf()", id="scaledBalanceOf"),
        pytest.param(2, 0, TokenFinding.REBASING, "its balances are shares: gonsForBalance()", id="gonsForBalance"),
        pytest.param(3, 1, TokenFinding.CALLBACK, "it is an ERC-777 token: granularity()", id="granularity"),
    ],
)
def test_token_with_a_trait_is_named(number: int, answer: int, finding: TokenFinding, detail: str) -> None:
    answers = [uint_word(answer) if place == number else status for place, status in enumerate(NO_TRAITS)]

    assert judge_traits(answers) == (finding, detail)


# --- Transfers


def log_of(raw: int, topic_count: int = 3) -> dict[str, object]:
    return {"topics": [TRANSFER_TOPIC, *["0x"] * (topic_count - 1)], "data": "0x" + uint_word(raw).hex()}


@pytest.mark.parametrize(("logs", "total_raw"), [([], 0), ([log_of(5), log_of(7)], 12)], ids=["none", "two"])
def test_transferred_raw_is_the_sum_of_transfers(logs: list[object], total_raw: int) -> None:
    assert transferred_raw(logs) == total_raw


@pytest.mark.parametrize(
    "logs",
    [
        pytest.param(None, id="null"),
        pytest.param(RpcFault(1, "no"), id="error"),
        pytest.param([log_of(5), 7], id="a number"),
        pytest.param([log_of(5, topic_count=2)], id="two topics"),
        pytest.param([log_of(5, topic_count=4)], id="four topics"),
        pytest.param([log_of(5) | {"topics": None}], id="topics that are null"),
        pytest.param([log_of(5) | {"topics": 3}], id="topics that are a number"),
        pytest.param([log_of(5) | {"topics": "abc"}], id="topics that are a text"),
        pytest.param([log_of(5) | {"topics": ["0x01", "0x02", "0x03"]}], id="another event"),
        pytest.param([log_of(5) | {"data": "0x01"}], id="one byte"),
        pytest.param([{}], id="no fields"),
    ],
)
def test_transferred_raw_of_unusable_logs_is_unknown(logs: object) -> None:
    assert transferred_raw(logs) is None


def logs_of(received_raw: Sequence[int] | None = (5, 7), sent_raw: Sequence[int] | None = (2,)) -> ScriptedTransport:
    """Return a node with Transfer events of these amounts to the wallet and from it; None: it does not say."""
    sides = iter([received_raw, sent_raw])

    def events(_params: list[object]) -> list[dict[str, object]] | None:
        side = next(sides)
        return None if side is None else list(map(log_of, side))

    return ScriptedTransport(eth_getLogs=events)


def rebasing_result(logs: ScriptedTransport, balance_raw: int, earlier_raw: int | None, number: int = 100) -> ScreenResult | None:
    """Return why WETH is a rebasing token, None if nothing shows it, by the balances at block `number` and before."""
    snapshot = step_input().snapshot
    holdings = tuple(replace(holding, raw=balance_raw) if holding.token == WETH.address else holding for holding in snapshot.holdings)
    snapshot = replace(snapshot, holdings=holdings, head=replace(snapshot.head, number=number))
    return find_rebasing(logs, snapshot, WETH.address, earlier_raw)


@pytest.mark.parametrize(
    ("balance_raw", "earlier_raw", "received_raw", "sent_raw", "change_raw"),
    [
        pytest.param(110, 100, (5, 7), (2,), None, id="explained by transfers"),
        pytest.param(111, 100, (5, 7), (2,), 1, id="one base unit more"),
        pytest.param(109, 100, (5, 7), (2,), -1, id="one base unit less"),
        pytest.param(5, 0, (), (), 5, id="from nothing"),
        pytest.param(110, 100, None, (2,), None, id="received unknown"),
        pytest.param(110, 100, (5,), None, None, id="sent unknown"),
    ],
)
def test_rebasing_is_a_change_that_transfers_do_not_explain(
    balance_raw: int, earlier_raw: int, received_raw: Sequence[int] | None, sent_raw: Sequence[int] | None, change_raw: int | None
) -> None:
    result = rebasing_result(logs_of(received_raw, sent_raw), balance_raw, earlier_raw)

    assert (result is None) is (change_raw is None)
    if result is not None:
        assert result[0] is TokenFinding.REBASING
        assert f"changed by {change_raw} base units" in result[1]


@pytest.mark.parametrize("earlier_raw", [100, None], ids=["unchanged", "unread"])
def test_rebasing_of_a_balance_without_a_change_asks_nothing(earlier_raw: int | None) -> None:
    logs = logs_of()

    assert rebasing_result(logs, 100, earlier_raw) is None
    assert logs.calls == []


@pytest.mark.parametrize(("number", "first_block"), [(100, 37), (64, 1), (10, 1)], ids=["64 blocks", "since the first", "young chain"])
def test_rebasing_reads_transfers_after_the_earlier_balance(number: int, first_block: int) -> None:
    logs = logs_of()

    rebasing_result(logs, 110, 100, number)

    wallet_topic = "0x" + step_input().snapshot.owner[2:].lower().rjust(64, "0")
    span = {"address": WETH.address, "fromBlock": hex(first_block), "toBlock": hex(number)}
    assert [params[0] for _, params in logs.calls] == [
        span | {"topics": [TRANSFER_TOPIC, None, wallet_topic]},
        span | {"topics": [TRANSFER_TOPIC, wallet_topic]},
    ]
