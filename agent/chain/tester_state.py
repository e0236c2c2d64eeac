"""What a node answers and eth-tester does not: calls from addresses without a key, and storage at a block."""

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
