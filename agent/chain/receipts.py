"""Receipts and transactions of the wallet sent by others: by nonce, or as a Safe's execution."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from agent.chain.endpoints import EndpointPool
from agent.chain.quorum import confirmed_value
from agent.chain.rpc import Transport, hex_data, parse_bytes, parse_quantity, parse_recipient
from agent.errors import Retryable
from agent.model import LiquidityAdded, Receipt, Transfer
from agent.units import NATIVE

# --- Receipts of a node: cost, token transfers, added liquidity.


TRANSFER = hex_data(keccak(text="Transfer(address,address,uint256)"))
INCREASE_LIQUIDITY = hex_data(keccak(text="IncreaseLiquidity(uint256,uint128,uint256,uint256)"))
DEPOSIT = hex_data(keccak(text="Deposit(address,uint256)"))
WITHDRAWAL = hex_data(keccak(text="Withdrawal(address,uint256)"))

Log = Mapping[str, object]


def parse_receipt(raw: Mapping[str, object], tx_hash: str) -> Receipt:
    """Parse a receipt. Raises Retryable if it belongs to another transaction or is inconsistent."""
    if hex_data(parse_bytes(raw.get("transactionHash"), "transaction hash", 32)) != tx_hash.lower():
        raise Retryable("the endpoint sent the receipt of another transaction")
    logs = raw.get("logs")
    if not isinstance(logs, list):
        raise Retryable("the endpoint's receipt has no logs")
    if not all(isinstance(log, Mapping) for log in logs):
        raise Retryable("the endpoint's receipt has a log entry that is not an object")
    return Receipt(
        tx_hash=tx_hash,
        status=parse_quantity(raw.get("status"), "receipt status"),
        block_number=parse_quantity(raw.get("blockNumber"), "block number"),
        block_hash=hex_data(parse_bytes(raw.get("blockHash"), "block hash", 32)),
        gas_used=parse_quantity(raw.get("gasUsed"), "gas used"),
        effective_gas_price_wei=parse_quantity(raw.get("effectiveGasPrice"), "effective gas price"),
        transfers=tuple(transfer for log in logs if (transfer := _transfer(log)) is not None),
        added=_added(logs),
        wrapped=tuple(made for log in logs if (made := _wrapped(log)) is not None),
    )


def _transfer(log: Log) -> Transfer | None:
    """Return the ERC-20 Transfer of a log entry; None for any other event (an NFT's has four topics
    and no data).
    """
    topics, data = _topics(log, TRANSFER, 3), log.get("data")
    if topics is None:
        return None
    raw = parse_bytes(data, "log data")
    if len(raw) != 32:
        return None
    return Transfer(
        token=_emitter(log),
        sender=_address(topics[1]),
        recipient=_address(topics[2]),
        raw=int.from_bytes(raw, "big"),
    )


def _wrapped(log: Log) -> Transfer | None:
    """Return a log entry's Deposit or Withdrawal of WETH9, as a transfer from or to the zero
    address.
    """
    for event in (DEPOSIT, WITHDRAWAL):
        topics = _topics(log, event, 2)
        if topics is not None and len(data := parse_bytes(log.get("data"), "log data")) == 32:
            holder = _address(topics[1])
            ends = (NATIVE, holder) if event == DEPOSIT else (holder, NATIVE)
            return Transfer(_emitter(log), *ends, int.from_bytes(data, "big"))
    return None


def _added(logs: Sequence[Log]) -> tuple[LiquidityAdded, ...]:
    """Return IncreaseLiquidity events in order; the recipient of a minted token is in the ERC-721
    Transfer from zero before it.
    """
    minted: dict[tuple[str, int], str] = {}
    found = []
    for log in logs:
        made = _topics(log, TRANSFER, 4)
        if made is not None and _address(made[1]) == NATIVE:
            minted[_emitter(log), _number(made[3])] = _address(made[2])
        topics = _topics(log, INCREASE_LIQUIDITY, 2)
        if topics is None:
            continue
        data = parse_bytes(log.get("data"), "log data")
        if len(data) != 96:
            continue
        liquidity, amount0, amount1 = (
            int.from_bytes(data[at : at + 32], "big") for at in (0, 32, 64)
        )
        manager, token_id = _emitter(log), _number(topics[1])
        found.append(
            LiquidityAdded(
                manager, token_id, liquidity, (amount0, amount1), minted.get((manager, token_id))
            )
        )
    return tuple(found)


def _topics(log: Log, event: str, count: int) -> list[object] | None:
    """Return the topics of a log entry if it is this event with that number of topics."""
    topics = log.get("topics")
    return (
        topics if isinstance(topics, list) and len(topics) == count and topics[0] == event else None
    )


def _emitter(log: Log) -> str:
    return to_checksum_address(parse_bytes(log.get("address"), "log address", 20))


def _address(topic: object) -> str:
    return to_checksum_address(parse_bytes(topic, "log topic", 32)[12:])


def _number(topic: object) -> int:
    return int.from_bytes(parse_bytes(topic, "log topic", 32), "big")


LOGS_AT_ONCE = 1_000
"""Blocks per event request; the limit of free endpoints."""
MOST_REQUESTS = 200
RECENT_BLOCKS = 120
"""Number of recent blocks for which every node knows nonces; older ones need an archive node."""
EXECUTION_SUCCESS = hex_data(keccak(text="ExecutionSuccess(bytes32,uint256)"))
"""Execution event of a Safe; the call's hash is its first topic since 1.4, before that the first
word of its data.
"""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class NonceTx:
    """Mined transaction of the wallet: hash, block and calls."""

    tx_hash: str
    block: int
    to: str
    value_wei: int
    data: str


@dataclass(frozen=True, slots=True)
class SafeExecution:
    """Mined transaction in which a Safe executed one call."""

    tx_hash: str
    block: int


def find_tx_by_nonce(
    endpoint_pool: EndpointPool, owner: str, nonce: int, since_block: int, head_block: int
) -> NonceTx | None:
    """Return the transaction of `owner` with `nonce` in a block range, agreed by enough operators;
    None if there is none.
    """
    return _agreed(
        endpoint_pool,
        lambda line: _used(line, owner, nonce, since_block, head_block),
        f"the transaction of nonce {nonce}",
    )


def find_safe_execution(
    endpoint_pool: EndpointPool, safe: str, safe_tx_hash: str, since_block: int, head_block: int
) -> SafeExecution | None:
    """Return the transaction in which `safe` executed the call of that hash, agreed by enough
    operators; None if there is none.
    """
    return _agreed(
        endpoint_pool,
        lambda line: _executed(line, safe, safe_tx_hash, since_block, head_block),
        "what the Safe carried out",
    )


def _agreed(endpoint_pool: EndpointPool, question: Callable[[Transport], T], what: str) -> T:
    poll = endpoint_pool.ask(question)
    endpoint_pool.require(poll)
    return confirmed_value(
        [(line.operator, answer) for line, answer in poll.answers.items()],
        endpoint_pool.min_operators,
        what,
    )


def _used(
    line: Transport, owner: str, nonce: int, since_block: int, head_block: int
) -> NonceTx | None:
    low, high = (
        max(0, since_block - 1),
        head_block,
    )  # unused after the first block, used after the second

    def count(block: int) -> int:
        return parse_quantity(line.call("eth_getTransactionCount", [owner, hex(block)]), "nonce")

    if count(high) <= nonce:
        return None
    if low < high - RECENT_BLOCKS and count(high - RECENT_BLOCKS) <= nonce:
        low = high - RECENT_BLOCKS  # so that a node without old states is not asked for one
    elif low < high and count(low) > nonce:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if count(middle) > nonce else (middle, high)
    block = line.call("eth_getBlockByNumber", [hex(high), True])
    listed = block.get("transactions") if isinstance(block, Mapping) else None
    if not isinstance(listed, list):
        raise Retryable(f"{line.name} does not show block {high}")
    for tx in listed:
        if (
            isinstance(tx, Mapping)
            and str(tx.get("from", "")).lower() == owner.lower()
            and parse_quantity(tx.get("nonce"), "nonce") == nonce
        ):
            return NonceTx(
                hex_data(parse_bytes(tx.get("hash"), "transaction hash", 32)),
                high,
                parse_recipient(tx.get("to")),
                parse_quantity(tx.get("value"), "value"),
                hex_data(parse_bytes(tx.get("input"), "calldata")),
            )
    raise Retryable(
        f"{line.name} says that block {high} used nonce {nonce}, without the transaction"
    )


def _executed(
    line: Transport, safe: str, safe_tx_hash: str, since_block: int, head_block: int
) -> SafeExecution | None:
    if (head_block - since_block) // LOGS_AT_ONCE >= MOST_REQUESTS:
        since_block = (
            head_block - LOGS_AT_ONCE * MOST_REQUESTS
        )  # a proposal that old has long expired
    for start in range(since_block, head_block + 1, LOGS_AT_ONCE):
        end = min(head_block, start + LOGS_AT_ONCE - 1)
        asked = {
            "address": safe,
            "fromBlock": hex(start),
            "toBlock": hex(end),
            "topics": [EXECUTION_SUCCESS],
        }
        logs = line.call("eth_getLogs", [asked])
        if not isinstance(logs, list):
            raise Retryable(f"{line.name} returned events that are not a list")
        for log in logs:
            if isinstance(log, Mapping) and _names(log, safe, safe_tx_hash):
                tx_hash = hex_data(parse_bytes(log.get("transactionHash"), "transaction hash", 32))
                return SafeExecution(
                    tx_hash, parse_quantity(log.get("blockNumber"), "block number")
                )
    return None


def _names(log: Mapping[str, object], safe: str, safe_tx_hash: str) -> bool:
    """True if the event is the Safe's own and of this call: endpoints may return more than
    requested.
    """
    topics = log.get("topics")
    if (
        str(log.get("address", "")).lower() != safe.lower()
        or not isinstance(topics, list)
        or topics[:1] != [EXECUTION_SUCCESS]
    ):
        return False
    named = (
        topics[1] if len(topics) > 1 else hex_data(parse_bytes(log.get("data"), "log data")[:32])
    )
    return str(named).lower() == safe_tx_hash
