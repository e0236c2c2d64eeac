"""Tests of agent/chain/receipts.py: the transfers and positions in a receipt, and answers that are no receipt."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from agent.chain.receipts import INCREASE_LIQUIDITY_TOPIC, TRANSFER_TOPIC, parse_receipt
from agent.errors import Retryable
from agent.model import LiquidityAdded, Receipt, Transfer
from agent.units import NATIVE
from tests.support.constants import GWEI
from tests.support.signing import ROUTER, WALLET
from tests.support.text import raises_code

HASH = "0x" + "ab" * 32
BLOCK = "0x" + "cd" * 32
TOKEN = "0x" + "11" * 20
MANAGER = "0x" + "22" * 20


def address_topic(account: str) -> str:
    return "0x" + bytes(12).hex() + account[2:]


def data_of(*numbers: int) -> str:
    return "0x" + "".join(f"{number:064x}" for number in numbers)


def log_of(contract: str, topics: Sequence[str], *numbers: int) -> dict[str, object]:
    return {"address": contract, "topics": list(topics), "data": data_of(*numbers)}


def receipt_json(**changes: object) -> dict[str, object]:
    """Return a receipt of success without events."""
    plain = {
        "transactionHash": HASH,
        "status": "0x1",
        "blockNumber": "0x10",
        "blockHash": BLOCK,
        "gasUsed": "0x5208",
        "effectiveGasPrice": "0x3b9aca00",
        "logs": [],
    }
    return plain | changes


def parsed(**changes: object) -> Receipt:
    return parse_receipt(receipt_json(**changes), HASH)


def test_receipt_has_block_status_and_gas() -> None:
    receipt = parsed()

    assert (receipt.status, receipt.block_number, receipt.block_hash) == (1, 16, BLOCK)
    assert (receipt.gas_used, receipt.effective_gas_price_wei) == (21_000, GWEI)


TRANSFER = [TRANSFER_TOPIC, address_topic(WALLET), address_topic(ROUTER)]
NO_TRANSFERS: dict[str, dict[str, object]] = {
    "another event": log_of(TOKEN, [BLOCK], 0x1234),
    "ERC-721": log_of(TOKEN, [TRANSFER_TOPIC, BLOCK, BLOCK, BLOCK]),
    "without an amount": log_of(TOKEN, TRANSFER),
    "no addresses": log_of(TOKEN, [TRANSFER_TOPIC, BLOCK, BLOCK]),
}


def test_receipt_has_the_transfers_of_erc20() -> None:
    logs = [*list(NO_TRANSFERS.values())[:2], log_of(TOKEN, TRANSFER, 5), log_of(MANAGER, TRANSFER, 6), *list(NO_TRANSFERS.values())[2:]]

    transfers = parsed(logs=logs).transfers

    assert transfers == (Transfer(TOKEN, WALLET, ROUTER, 5), Transfer(MANAGER, WALLET, ROUTER, 6))


@pytest.mark.parametrize("log", NO_TRANSFERS.values(), ids=NO_TRANSFERS)
def test_receipt_of_another_event_has_no_transfer(log: dict[str, object]) -> None:
    assert parsed(logs=[log]).transfers == ()


def token_topic(token_id: int) -> str:
    return f"0x{token_id:064x}"


def nft_log(sender: str, token_id: int) -> dict[str, object]:
    """Return the transfer of a token of the manager to the wallet; a mint is from the zero address."""
    return log_of(MANAGER, [TRANSFER_TOPIC, address_topic(sender), address_topic(WALLET), token_topic(token_id)])


def increase_log(token_id: int) -> dict[str, object]:
    return log_of(MANAGER, [INCREASE_LIQUIDITY_TOPIC, token_topic(token_id)], 10**20, 5, 6)


@pytest.mark.parametrize(
    ("logs", "minted_to"),
    [
        pytest.param([nft_log(NATIVE, 7), increase_log(7)], WALLET, id="minted"),
        pytest.param([nft_log(ROUTER, 7), increase_log(7)], None, id="moved"),
        pytest.param([nft_log(NATIVE, 8), increase_log(7)], None, id="another was minted"),
        pytest.param([increase_log(7)], None, id="grown"),
    ],
)
def test_receipt_tells_minted_from_grown_positions(logs: list[dict[str, object]], minted_to: str | None) -> None:
    assert parsed(logs=logs).liquidity_added == (LiquidityAdded(MANAGER, 7, 10**20, (5, 6), minted_to),)


def test_receipt_has_each_position_that_grew() -> None:
    odd_log = log_of(MANAGER, [INCREASE_LIQUIDITY_TOPIC, token_topic(9)])

    added = parsed(logs=[nft_log(NATIVE, 7), increase_log(7), increase_log(8), odd_log]).liquidity_added

    assert [(position.token_id, position.minted_to) for position in added] == [(7, WALLET), (8, None)]


@pytest.mark.parametrize(
    "changes",
    [{"transactionHash": BLOCK}, {"logs": None}, {"logs": ["x"]}, {"status": None}, {"gasUsed": "many"}],
    ids=["another hash", "no logs", "a log of text", "no status", "gas as text"],
)
def test_receipt_without_sense_may_be_asked_again(changes: dict[str, object]) -> None:
    with raises_code(Retryable, "answer"):
        parsed(**changes)
