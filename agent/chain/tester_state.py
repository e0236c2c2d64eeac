"""What a node answers and eth-tester does not, or slowly: calls from addresses without a key, storage at a block, events."""

from __future__ import annotations

from typing import Any

CALL_GAS = 25_000_000


def storage_at(tester: Any, address: str, slot: str, number: int) -> bytes:
    """The 32 bytes at a storage slot (0x-hex) after that block; `tester` is an EthereumTester."""
    state = _vm(tester, number).state
    return int(state.get_storage(_raw(address), int(slot, 16))).to_bytes(32, "big")


def call_as(tester: Any, tx: dict[str, Any], number: int) -> bytes:
    """Output of a call to a contract as whoever `tx["from"]` names, after that block. Raises eth-tester's TransactionFailed."""
    from eth_tester.exceptions import TransactionFailed

    vm = _vm(tester, number)
    sender, to = _raw(tx["from"]), _raw(tx["to"])
    data = bytes.fromhex(str(tx.get("data", "0x"))[2:])
    done = vm.execute_bytecode(
        origin=sender, gas_price=0, gas=CALL_GAS, to=to, sender=sender, value=0, data=data, code=vm.state.get_code(to), code_address=to
    )
    if done.is_error:
        raise TransactionFailed(repr(bytes(done.output)))
    return bytes(done.output)


def _vm(tester: Any, number: int) -> Any:
    chain = tester.backend.chain
    return chain.get_vm(at_header=chain.get_canonical_block_header_by_number(number))


def _raw(address: str) -> bytes:
    return bytes.fromhex(address[2:])


def logs(tester: Any, wanted: dict[str, Any], first: int, last: int) -> list[dict[str, Any]]:
    """Events of `wanted["address"]` with its topics (None: any) in those blocks: eth-tester looks through every receipt instead."""
    from eth_bloom.bloom import BloomFilter

    chain, address = tester.backend.chain, _raw(wanted["address"])
    topics = [None if topic is None else int(topic, 16) for topic in wanted.get("topics", ())]
    found = []
    for number in range(first, last + 1):
        block = chain.get_canonical_block_by_number(number)
        if address not in BloomFilter(block.header.bloom):
            continue
        found += [
            {
                "address": wanted["address"],
                "blockNumber": number,
                "data": bytes(entry.data),
                "topics": [topic.to_bytes(32, "big") for topic in entry.topics],
            }
            for receipt in block.get_receipts(chain.chaindb)
            for entry in receipt.logs
            if entry.address == address and _fits(entry.topics, topics)
        ]
    return found


def _fits(topics: tuple[int, ...], wanted: list[int | None]) -> bool:
    return len(topics) >= len(wanted) and all(want in (None, topic) for topic, want in zip(topics, wanted, strict=False))
