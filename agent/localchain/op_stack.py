"""Local stand-in of an OP Stack chain: anvil charges the data fee of each transaction as the prices
in the chain's L1Block say, and the agent reads it from GasPriceOracle. Both are the deployed contracts
of Fjord, from @eth-optimism/contracts-bedrock 0.17.3 (abis/op_stack).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from agent.artifacts import own_artifact
from agent.chain.fees.data_fees import GAS_PRICE_ORACLE
from agent.localchain.chain import LocalChain
from agent.localchain.front import serve_front
from agent.localchain.nodes import LocalProvider
from agent.signing.calldata import selector

L1_BLOCK = "0x4200000000000000000000000000000000000015"
L1_FEE_VAULT = "0x420000000000000000000000000000000000001A"
"""Predeploys of the OP Stack (packages/contracts-bedrock/src/libraries/Predeploys.sol). The vault
receives the data fees."""
ORACLE_IMPLEMENTATION = "0xc0d3C0d3C0d3C0D3c0d3C0d3c0D3C0d3c0d3000F"
BASE_FEE_SCALAR = 2_269
BLOB_FEE_SCALAR = 1_055_762
"""Scalars of Base under Fjord."""
L1_BASE_FEE_WEI = 10**10
L1_BLOB_FEE_WEI = 10**9
"""Prices on the base chain: a unit of gas, of blob gas."""
CALLER_WEI = 10**21


def oracle_proxy_code(operator_fee_wei: int = 0) -> str:
    """Return a proxy of ORACLE_IMPLEMENTATION that also answers getOperatorFee(gas), which Isthmus
    added, with a constant of two bytes.
    """
    forward_code = (
        "36600060003760006000366000" + "73" + ORACLE_IMPLEMENTATION[2:] + "5af4" + "3d600060003e"
    )
    selector_code = "60003560e01c63" + selector("getOperatorFee(uint256)").hex() + "14"
    forward_offset = len(selector_code) // 2 + 4
    success_offset = forward_offset + len(forward_code) // 2 + 3 + 4
    revert_code = "3d6000fd"
    success_code = "5b3d6000f3"
    fee_offset = success_offset + 5
    fee_code = f"5b61{operator_fee_wei:04x}60005260206000f3"
    return f"0x{selector_code}61{fee_offset:04x}57{forward_code}60{success_offset:02x}57{revert_code}{success_code}{fee_code}"


def install_predeploys(chain: LocalChain) -> None:
    """Put the contracts at their predeploys on anvil, with Fjord active and the prices above. Slots
    are those of the contracts' storage layout.
    """
    rpc = chain.node.rpc  # type: ignore[attr-defined]  # anvil
    for address, code in (
        (ORACLE_IMPLEMENTATION, own_artifact("op_stack/GasPriceOracle").runtime_code),
        (GAS_PRICE_ORACLE, oracle_proxy_code()),
        (L1_BLOCK, own_artifact("op_stack/L1Block").runtime_code),
    ):
        rpc("anvil_setCode", address, code)
    fee_scalars = BASE_FEE_SCALAR << 96 | BLOB_FEE_SCALAR << 64
    for address, slot, word in (
        (GAS_PRICE_ORACLE, 0, 0x0101),  # isEcotone, isFjord
        (L1_BLOCK, 1, L1_BASE_FEE_WEI),
        (L1_BLOCK, 3, fee_scalars),
        (L1_BLOCK, 7, L1_BLOB_FEE_WEI),
    ):
        rpc("anvil_setStorageAt", address, hex(slot), f"0x{word:064x}")


@contextmanager
def serve_sequencer(node_url: str, priority_fee_wei: int, port: int = 0) -> Iterator[str]:
    """Serve the anvil at `node_url` with the differences between it and a node of Base: `l1Fee` in a
    receipt, the chain's usual priority fee, and no data fee for an eth_call, which anvil demands of the
    caller. Yield the URL. A block must not have more than one transaction. Raises ConfigError if the
    port is taken.
    """
    node = LocalProvider(node_url)

    def ask(method: str, *params: object) -> Any:
        (answer,) = node.batch([(method, list(params))])
        return answer["result"]

    def adapt_answer(method: str, answer: dict[str, Any]) -> dict[str, Any]:
        rpc_result = answer.get("result")
        if method == "eth_maxPriorityFeePerGas":
            return {**answer, "result": hex(priority_fee_wei)}
        if method == "eth_getTransactionReceipt" and rpc_result is not None:
            block_number = int(rpc_result["blockNumber"], 16)
            vault_before_wei, vault_after_wei = (
                int(ask("eth_getBalance", L1_FEE_VAULT, hex(balance_block)), 16)
                for balance_block in (block_number - 1, block_number)
            )
            return {
                **answer,
                "result": {**rpc_result, "l1Fee": hex(vault_after_wei - vault_before_wei)},
            }
        return answer

    with serve_front(node_url, adapt_answer, _funded_call, port) as url:
        yield url


def _funded_call(method: str, params: list[Any]) -> tuple[str, list[Any]]:
    """Return an eth_call as a caller with enough coin; any other call unchanged."""
    caller = params[0].get("from") if method == "eth_call" and len(params) == 2 else None
    if caller is None:
        return method, params
    return method, [*params, {caller: {"balance": hex(CALLER_WEI)}}]
