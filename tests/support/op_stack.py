"""The fee contracts of the OP Stack as deployed (@eth-optimism/contracts-bedrock 0.17.3, Fjord), on a local chain, and transactions
like ours for them.
"""

from __future__ import annotations

from agent.artifacts import own_artifact
from agent.chain.fees.data_fees import GAS_PRICE_ORACLE
from agent.chain.lens import uint_word
from agent.chain.rpc import Transport, hex_data
from agent.localchain.op_stack import BASE_FEE_SCALAR, BLOB_FEE_SCALAR, L1_BLOCK, ORACLE_IMPLEMENTATION, oracle_proxy_code
from agent.signing.calldata import selector
from tests.support.constants import GWEI

DEPOSITOR = "0xDeaDDEaDDeAdDeAdDEAdDEaddeAddEAdDEAd0001"
CONTRACTS = ("op_stack/GasPriceOracle", "op_stack/L1Block")
PRICES = ((GWEI, 1), (10 * GWEI, GWEI), (50 * GWEI, 30 * GWEI), (GWEI // 10, GWEI // 100))
"""Base fee and blob base fee of the base chain, in wei: quiet, busy, a spike, very quiet."""
OPERATOR_FEE_CONSTANT = 7_000


def install(line: Transport) -> None:
    """Put the contracts at their predeploys, with Fjord active."""
    oracle, block = (own_artifact(name).runtime_code for name in CONTRACTS)
    for address, code in (
        (ORACLE_IMPLEMENTATION, oracle),
        (GAS_PRICE_ORACLE, oracle_proxy_code(OPERATOR_FEE_CONSTANT)),
        (L1_BLOCK, block),
    ):
        line.call("anvil_setCode", [address, code])
    line.call("anvil_setBalance", [DEPOSITOR, hex(10**20)])
    for function in ("setEcotone()", "setFjord()"):
        _run(line, GAS_PRICE_ORACLE, selector(function))


def set_prices(line: Transport, base_fee_wei: int, blob_fee_wei: int) -> None:
    """Tell the chain these prices of the base chain, under Base's scalars of Fjord (L1Block.setL1BlockValuesEcotone)."""
    data = selector("setL1BlockValuesEcotone()") + BASE_FEE_SCALAR.to_bytes(4, "big") + BLOB_FEE_SCALAR.to_bytes(4, "big")
    data += bytes(7) + b"\1" + (1_700_000_000).to_bytes(8, "big") + (20_000_000).to_bytes(8, "big")
    data += uint_word(base_fee_wei) + uint_word(blob_fee_wei) + b"\1" * 32 + bytes(32)
    _run(line, L1_BLOCK, data)


def _run(line: Transport, to: str, data: bytes) -> None:
    line.call("anvil_impersonateAccount", [DEPOSITOR])
    line.call("eth_sendTransaction", [{"from": DEPOSITOR, "to": to, "data": hex_data(data), "gas": hex(1_000_000)}])
    line.call("evm_mine", [])
