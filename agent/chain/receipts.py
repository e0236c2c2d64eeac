"""What a node's receipt says of a transaction: its cost, the tokens it moved, the liquidity it added."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from agent.chain.wire import hex_data, octets, quantity
from agent.errors import Retryable
from agent.model import LiquidityAdded, Receipt, Transfer
from agent.units import NATIVE

TRANSFER = hex_data(keccak(text="Transfer(address,address,uint256)"))
INCREASE_LIQUIDITY = hex_data(keccak(text="IncreaseLiquidity(uint256,uint128,uint256,uint256)"))
DEPOSIT = hex_data(keccak(text="Deposit(address,uint256)"))
WITHDRAWAL = hex_data(keccak(text="Withdrawal(address,uint256)"))

Log = Mapping[str, object]


def parse_receipt(raw: Mapping[str, object], tx_hash: str) -> Receipt:
    """The receipt of the model. Raises Retryable when it is another transaction's or makes no sense."""
    if hex_data(octets(raw.get("transactionHash"), "transaction hash", 32)) != tx_hash.lower():
        raise Retryable("the endpoint sent the receipt of another transaction")
    logs = raw.get("logs")
    if not isinstance(logs, list):
        raise Retryable("the endpoint's receipt has no logs")
    if not all(isinstance(log, Mapping) for log in logs):
        raise Retryable("the endpoint's receipt has a log entry that is not an object")
    return Receipt(
        tx_hash=tx_hash,
        status=quantity(raw.get("status"), "receipt status"),
        block_number=quantity(raw.get("blockNumber"), "block number"),
        block_hash=hex_data(octets(raw.get("blockHash"), "block hash", 32)),
        gas_used=quantity(raw.get("gasUsed"), "gas used"),
        effective_gas_price_wei=quantity(raw.get("effectiveGasPrice"), "effective gas price"),
        transfers=tuple(transfer for log in logs if (transfer := _transfer(log)) is not None),
        added=_added(logs),
        wrapped=tuple(made for log in logs if (made := _wrapped(log)) is not None),
    )


def _transfer(log: Log) -> Transfer | None:
    """The ERC-20 Transfer that a log entry is, or None for any other event (an NFT's has four topics and no data)."""
    topics, data = _topics(log, TRANSFER, 3), log.get("data")
    if topics is None:
        return None
    raw = octets(data, "log data")
    if len(raw) != 32:
        return None
    return Transfer(
        token=_emitter(log),
        sender=_address(topics[1]),
        recipient=_address(topics[2]),
        raw=int.from_bytes(raw, "big"),
    )


def _wrapped(log: Log) -> Transfer | None:
    """The Deposit or Withdrawal of WETH9 that a log entry is, as a transfer from or to nobody."""
    for event in (DEPOSIT, WITHDRAWAL):
        topics = _topics(log, event, 2)
        if topics is not None and len(data := octets(log.get("data"), "log data")) == 32:
            holder = _address(topics[1])
            ends = (NATIVE, holder) if event == DEPOSIT else (holder, NATIVE)
            return Transfer(_emitter(log), *ends, int.from_bytes(data, "big"))
    return None


def _added(logs: Sequence[Log]) -> tuple[LiquidityAdded, ...]:
    """IncreaseLiquidity events in order; whom a token was minted to says the ERC-721 Transfer from nobody before it."""
    minted: dict[tuple[str, int], str] = {}
    found = []
    for log in logs:
        made = _topics(log, TRANSFER, 4)
        if made is not None and _address(made[1]) == NATIVE:
            minted[_emitter(log), _number(made[3])] = _address(made[2])
        topics = _topics(log, INCREASE_LIQUIDITY, 2)
        if topics is None:
            continue
        data = octets(log.get("data"), "log data")
        if len(data) != 96:
            continue
        liquidity, amount0, amount1 = (int.from_bytes(data[at : at + 32], "big") for at in (0, 32, 64))
        manager, token_id = _emitter(log), _number(topics[1])
        found.append(LiquidityAdded(manager, token_id, liquidity, (amount0, amount1), minted.get((manager, token_id))))
    return tuple(found)


def _topics(log: Log, event: str, count: int) -> list[object] | None:
    """Topics of a log entry that is this event with so many topics."""
    topics = log.get("topics")
    return topics if isinstance(topics, list) and len(topics) == count and topics[0] == event else None


def _emitter(log: Log) -> str:
    return to_checksum_address(octets(log.get("address"), "log address", 20))


def _address(topic: object) -> str:
    return to_checksum_address(octets(topic, "log topic", 32)[12:])


def _number(topic: object) -> int:
    return int.from_bytes(octets(topic, "log topic", 32), "big")
