"""Receipts of swaps of V4's pools of the native coin: what the PoolManager takes is nobody's native coin, whatever stands between."""

from __future__ import annotations

from typing import Any

import pytest
from eth_utils.address import to_checksum_address

from agent.chain.receipts import DEPOSIT_TOPIC, MANAGED_SWAP_TOPIC, TRANSFER_TOPIC, WITHDRAWAL_TOPIC, parse_receipt
from agent.units import NATIVE

WALLET, REBALANCER, MANAGER, WETH, USDC, HOOK = ("0x" + byte * 20 for byte in ("11", "22", "33", "44", "55", "66"))
TX_HASH = "0x" + "ab" * 32
SOLD = 10 * 10**18
BOUGHT = 30_000 * 10**6


def word(number: int) -> str:
    return f"{number % 2**256:064x}"


def log(address: str, topics: list[str], *numbers: int) -> dict[str, Any]:
    data = "0x" + "".join(map(word, numbers))
    return {"address": address, "topics": topics, "data": data, "logIndex": "0x0", "transactionHash": TX_HASH, "removed": False}


def topic(address: str) -> str:
    return "0x" + word(int(address, 16))


def receipt(*between: dict[str, Any], taken: int = SOLD) -> Any:
    logs = [
        log(WETH, [TRANSFER_TOPIC, topic(WALLET), topic(REBALANCER)], SOLD),
        log(WETH, [WITHDRAWAL_TOPIC, topic(REBALANCER)], SOLD),
        *between,
        log(MANAGER, [MANAGED_SWAP_TOPIC, "0x" + "cd" * 32, topic(REBALANCER)], -taken, BOUGHT, 1, 1, 0, 3000),
        log(USDC, [TRANSFER_TOPIC, topic(MANAGER), topic(WALLET)], BOUGHT),
    ]
    document = {"transactionHash": TX_HASH, "status": "0x1", "blockNumber": "0x1", "blockHash": "0x" + "01" * 32}
    return parse_receipt({**document, "gasUsed": "0x5208", "effectiveGasPrice": "0x1", "logs": logs}, TX_HASH)


@pytest.mark.parametrize("between", [[], [log(HOOK, ["0x" + "ee" * 32], 1)]], ids=["nothing", "a log of a hook"])
@pytest.mark.parametrize("transfers", [0, 1, SOLD // 100])
def test_unwrapped_coin_that_a_swap_takes_is_nobodys(between: list[dict[str, Any]], transfers: int) -> None:
    assert receipt(*between, taken=SOLD + transfers).wrap_transfers == ()


@pytest.mark.parametrize("taken", [SOLD - 1, SOLD + SOLD // 100 + 1])
def test_unwrapped_coin_that_no_swap_takes_stays_with_its_holder(taken: int) -> None:
    assert [transfer.raw for transfer in receipt(taken=taken).wrap_transfers] == [SOLD]


def test_each_swap_takes_the_coin_of_one_unwrapping() -> None:
    again = log(WETH, [WITHDRAWAL_TOPIC, topic(REBALANCER)], SOLD)
    assert [transfer.raw for transfer in receipt(again).wrap_transfers] == [SOLD]


def wraps_of(*logs: dict[str, Any]) -> list[tuple[str, str, int]]:
    """Return sender, recipient and amount of each wrap and unwrap of a receipt with these logs."""
    document = {"transactionHash": TX_HASH, "status": "0x1", "blockNumber": "0x1", "blockHash": "0x" + "01" * 32}
    read = parse_receipt({**document, "gasUsed": "0x5208", "effectiveGasPrice": "0x1", "logs": [*logs]}, TX_HASH)
    return [(wrap.sender, wrap.recipient, wrap.raw) for wrap in read.wrap_transfers]


DEPOSIT = log(WETH, [DEPOSIT_TOPIC, topic(WALLET)], SOLD)
WITHDRAWAL = log(WETH, [WITHDRAWAL_TOPIC, topic(WALLET)], SOLD)
SWAP = log(MANAGER, [MANAGED_SWAP_TOPIC, "0x" + "cd" * 32, topic(REBALANCER)], -SOLD, BOUGHT, 1, 1, 0, 3000)
SHORT_SWAP = log(MANAGER, [MANAGED_SWAP_TOPIC, "0x" + "cd" * 32, topic(REBALANCER)], -SOLD, BOUGHT)
WRAPPED = (NATIVE, to_checksum_address(WALLET), SOLD)
UNWRAPPED = (to_checksum_address(WALLET), NATIVE, SOLD)


@pytest.mark.parametrize(
    ("logs", "wraps"),
    [
        ([DEPOSIT, WITHDRAWAL], [WRAPPED, UNWRAPPED]),
        ([DEPOSIT, SWAP], [WRAPPED]),
        ([SWAP, WITHDRAWAL], [UNWRAPPED]),
        ([WITHDRAWAL, SHORT_SWAP], [UNWRAPPED]),
        ([WITHDRAWAL, SWAP, WITHDRAWAL, SWAP], []),
    ],
    ids=["no swap", "wrapped before a swap", "unwrapped after the swap", "an event of another contract", "two swaps"],
)
def test_wrap_transfers__have_no_partner_but_a_later_swap(logs: list[dict[str, Any]], wraps: list[tuple[str, str, int]]) -> None:
    assert wraps_of(*logs) == wraps
