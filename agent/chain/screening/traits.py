"""Traits of tokens whose balances change without transfers, or that call others: functions of
share-based and ERC-777 tokens, and the wallet's balance over the last blocks.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent.chain.lens import (
    CallItem,
    CallStatus,
    LensAnswer,
    LensPages,
    address_call,
    address_word,
    answer_uint,
    decode_page,
    uint_word,
)
from agent.chain.rpc import RpcCall, RpcFault, Transport, hex_data, parse_bytes, topics_of
from agent.chain.screening.answers import ScreenResult
from agent.errors import Retryable
from agent.model import Snapshot, TokenFinding

BLOCKS_BACK = 64
"""Number of blocks back to the balance that transfers have to explain. Nodes keep 128 states."""
TRANSFER_TOPIC = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
_SHARE_VIEWS = {
    "sharesOf": bytes.fromhex("f5eb42dc"),
    "scaledBalanceOf": bytes.fromhex("1da24f3e"),
    "gonsForBalance": bytes.fromhex("1bd39674"),
}
_GRANULARITY_SELECTOR = bytes.fromhex("556f0dc7")


TRAIT_COUNT = len(_SHARE_VIEWS) + 1
"""Number of calls of `trait_items`."""


def trait_items(snapshot: Snapshot, token: str) -> list[CallItem]:
    """Return calls of functions that only share-based or ERC-777 tokens have."""
    owner = snapshot.owner
    trait_calldata = (
        address_call(_SHARE_VIEWS["sharesOf"], owner),
        address_call(_SHARE_VIEWS["scaledBalanceOf"], owner),
        _SHARE_VIEWS["gonsForBalance"] + uint_word(10**6),
        _GRANULARITY_SELECTOR,
    )
    return [CallItem(token, calldata) for calldata in trait_calldata]


def judge_traits(answers: Sequence[LensAnswer]) -> ScreenResult | None:
    """Return the finding of the answers to `trait_items`, in their order; None for an ordinary token."""
    *share_answers, granularity = answers
    for view_name, answer in zip(_SHARE_VIEWS, share_answers, strict=True):
        if isinstance(answer_uint(answer), int):
            return TokenFinding.REBASING, f"its balances are shares: {view_name}()"
    if isinstance(answer_uint(granularity), int):
        return TokenFinding.CALLBACK, "it is an ERC-777 token: granularity()"
    return None


def earlier_block(snapshot: Snapshot) -> int:
    """Return the height of the balance that later transfers have to explain."""
    return max(0, snapshot.head.number - BLOCKS_BACK)


def earlier_balances(pages: LensPages, answers: Sequence[object]) -> list[int | None]:
    """Return balances at an earlier block; None without an answer."""
    balances_raw: list[int | None] = []
    for page_items, page_answer in zip(pages.pages, answers, strict=True):
        if isinstance(page_answer, RpcFault):
            balances_raw += [None] * len(page_items)
            continue
        page_balances_raw = map(
            answer_uint, decode_page(page_items, parse_bytes(page_answer, "earlier balances"))
        )
        balances_raw += [
            None if isinstance(balance_raw, CallStatus) else balance_raw
            for balance_raw in page_balances_raw
        ]
    return balances_raw


def _word(answer: object) -> int | None:
    """Parse an answer of one word; None for any other answer."""
    try:
        return int.from_bytes(parse_bytes(answer, "a word", 32), "big")
    except Retryable:
        return None


def transferred_raw(logs: object) -> int | None:
    """Return the total of Transfer events, base units; None if the node returned no usable logs."""
    if not isinstance(logs, list):
        return None
    total_raw = 0
    for log in logs:
        if not isinstance(log, dict) or topics_of(log, TRANSFER_TOPIC, 3) is None:
            return None
        transfer_raw = _word(log.get("data"))
        if transfer_raw is None:
            return None
        total_raw += transfer_raw
    return total_raw


def find_rebasing(
    transport: Transport, snapshot: Snapshot, token: str, earlier_balance_raw: int | None
) -> ScreenResult | None:
    """Return REBASING if the wallet's balance changed over the last blocks without transfers,
    else None, also if the node lacks that state or the logs.

    The check can exclude a token but never clear it.
    """
    current_balance_raw = next(
        (holding.raw for holding in snapshot.holdings if holding.token == token), None
    )
    if (
        current_balance_raw is None
        or earlier_balance_raw is None
        or earlier_balance_raw == current_balance_raw
    ):
        return None
    wallet_topic = hex_data(address_word(snapshot.owner))
    log_filter = {
        "address": token,
        "fromBlock": hex(earlier_block(snapshot) + 1),
        "toBlock": hex(snapshot.head.number),
    }
    calls: list[RpcCall] = [
        ("eth_getLogs", [{**log_filter, "topics": topics}])
        for topics in ([TRANSFER_TOPIC, None, wallet_topic], [TRANSFER_TOPIC, wallet_topic])
    ]
    received_raw, sent_raw = (transferred_raw(logs) for logs in transport.batch(calls))
    if (
        received_raw is None
        or sent_raw is None
        or earlier_balance_raw + received_raw - sent_raw == current_balance_raw
    ):
        return None
    return (
        TokenFinding.REBASING,
        f"since block {earlier_block(snapshot)} the wallet's balance changed by"
        f" {current_balance_raw - earlier_balance_raw - received_raw + sent_raw} base units without a transfer",
    )
