"""Every transaction that the signer may sign, by name, with the grant and the rules that allow it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from eth_utils.crypto import keccak

from agent.chain.tokens import encode_approve
from agent.errors import Refused
from agent.model import IntentKind, Payout, UnsignedTx
from agent.planning.approval_gas import swap_spend
from agent.planning.gas import build_unwrap_leg
from agent.ports import Grant, Signer
from agent.signing import deployment_rules, oracle_rules, payout_rules
from agent.signing.batches import BATCH_CONTRACT, BatchedCall, encode_batch
from agent.signing.rules import SigningRules
from agent.units import NATIVE
from agent.venues.calldata import encode_multicall, wrapped_native_wei
from tests.support import signing
from tests.support.builders import address
from tests.support.records.native_legs import ONLY, PLANS
from tests.support.signing import DEADLINE_S, MAX_GAS_WEI, NOW_S, ROUTER, RULES, WALLET, WETH, plan_of, tx

POOL = address("v3 pool")
HOME = address("home")
INIT_CODE = bytes.fromhex("600a600c600039600a6000f3602a60005260206000f3")
"""Creation code of a contract that returns 42."""
INIT_CODE_HASH = "0x" + keccak(INIT_CODE).hex()


@dataclass(frozen=True)
class Signable:
    """An allowed transaction."""

    tx: UnsignedTx
    grant: Grant
    rules: SigningRules


NATIVE_RULES = replace(RULES, wrapped_native=WETH)


def _batch(trade: UnsignedTx, grant: Grant, rules: SigningRules) -> Signable:
    """A trade of a Safe, after the approvals of what its plan spends."""
    assert grant.plan is not None
    spent = swap_spend(grant.plan.legs)
    calls = [BatchedCall(token, bytes.fromhex(encode_approve(trade.to, raw)[2:])) for token, raw in spent.items()]
    data = encode_batch([*calls, BatchedCall(trade.to, bytes.fromhex(trade.data[2:]))])
    return Signable(replace(trade, to=BATCH_CONTRACT, data=data), grant, replace(rules, batch_contract=BATCH_CONTRACT))


def _native() -> dict[str, Signable]:
    signables = {}
    for name, plan in PLANS.items():
        grant = Grant(IntentKind.SWAP, NOW_S, NOW_S + 90, MAX_GAS_WEI, plan, tuple(leg.min_out_raw for leg in plan.legs))
        multicall = tx(ROUTER, encode_multicall(plan, WALLET, DEADLINE_S), value_wei=wrapped_native_wei(plan))
        signables[name] = Signable(multicall, grant, NATIVE_RULES)
    alone = plan_of(build_unwrap_leg(WETH, 5 * 10**16))
    assert alone == ONLY
    data = "0x2e1a7d4d" + (5 * 10**16).to_bytes(32, "big").hex()
    signables["unwrap"] = Signable(tx(WETH, data), Grant(IntentKind.UNWRAP, NOW_S, NOW_S + 90, MAX_GAS_WEI, alone), NATIVE_RULES)
    return signables


def _legacy(signable: Signable) -> Signable:
    price = signable.tx.max_fee_wei
    return replace(signable, tx=replace(signable.tx, max_fee_wei=None, max_priority_fee_wei=None, gas_price_wei=price))


SIGNABLES: dict[str, Signable] = {
    **{name: Signable(*pair, RULES) for name, pair in signing.ALLOWED.items()},
    **{f"rebalancer, {name}": Signable(*pair, signing.REBALANCER_RULES) for name, pair in signing.REBALANCES.items()},
    **{name: Signable(*pair, signing.LP_RULES) for name, pair in signing.PROVIDING_ALLOWED.items()},
    **{name: Signable(*pair, signing.FUTURES_RULES) for name, pair in signing.FUTURES_ALLOWED.items()},
    "futures: buy as delegate": Signable(signing.DELEGATE_BUY, signing.futures_grant(signing.BUY), signing.DELEGATE_RULES),
    **_native(),
    "batch": _batch(*signing.ALLOWED["swap"], RULES),
    "batch, rebalancer": _batch(*signing.REBALANCES["hub"], signing.REBALANCER_RULES),
    "memory of a pool": Signable(
        tx(POOL, oracle_rules.encode_observations(120)),
        Grant(IntentKind.ORACLE, NOW_S, NOW_S + 90, MAX_GAS_WEI, oracle_growth=(POOL, 120)),
        replace(RULES, oracle_pools=(POOL,)),
    ),
    "deployment": Signable(
        tx(deployment_rules.CREATE2_DEPLOYER, deployment_rules.encode_deployment(INIT_CODE)),
        Grant(IntentKind.DEPLOY, NOW_S, NOW_S + 90, MAX_GAS_WEI, init_code_hash=INIT_CODE_HASH),
        replace(RULES, init_code_hash=INIT_CODE_HASH),
    ),
    "payout": Signable(
        tx(WETH, payout_rules.encode_payout(HOME, 10**18)),
        Grant(IntentKind.PAYOUT, NOW_S, NOW_S + 90, MAX_GAS_WEI, payout=Payout(WETH, HOME, 10**18, 2 * 10**18, 1)),
        replace(RULES, payout_addresses=(HOME,)),
    ),
    "payout of native coin": Signable(
        tx(HOME, "0x", value_wei=10**17),
        Grant(IntentKind.PAYOUT, NOW_S, NOW_S + 90, MAX_GAS_WEI, payout=Payout(NATIVE, HOME, 10**17, 10**18, 1)),
        replace(RULES, payout_addresses=(HOME,)),
    ),
}
SIGNABLES |= {f"{name}, legacy fees": _legacy(SIGNABLES[name]) for name in ("swap", "approve", "cancel")}


# --- Small mutations of calldata, all of which a signer must refuse whatever it was given first.


WORD = 32


def signs(signer: Signer, transaction: UnsignedTx, grant: Grant) -> bool:
    """Return whether the signer signs; any error other than a refusal fails the test."""
    try:
        signer.sign(transaction, grant)
    except Refused as refusal:
        assert refusal.verdicts
        assert refusal.verdicts[0].guard.startswith("signer.")
        return False
    return True


def calldata(transaction: UnsignedTx) -> bytes:
    """Return the calldata of a transaction."""
    return bytes.fromhex(transaction.data[2:])


def with_bytes(transaction: UnsignedTx, data: bytes) -> UnsignedTx:
    """Return the transaction with other calldata."""
    return replace(transaction, data="0x" + data.hex())


def flipped_bits(transaction: UnsignedTx) -> Iterator[UnsignedTx]:
    """Yield the transaction with each single bit of its calldata flipped."""
    data = calldata(transaction)
    for at in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[at] ^= 1 << bit
            yield with_bytes(transaction, bytes(flipped))
