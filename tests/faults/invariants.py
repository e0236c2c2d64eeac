"""What must hold after every fault, told by the chain itself and not by the agent: each violation in words."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from typing import Any

from agent.model import Intent, IntentKind, IntentState
from agent.signing.calldata import Approve, Multicall, RebalanceCall, decode
from agent.store import Store, open_store
from agent.units import BPS, NATIVE
from tests.faults import futures_invariants
from tests.faults.scene import Scene
from tests.support.agents import off_target, purse
from tests.support.movements import movements

COST_BPS = 80
"""plan_cost and slippage of the scenes' config: what a unit moved may cost together."""
GAS_WEI_PER_DAY = 5 * 10**16
MOST_FEE_WEI = 60 * 10**9
NEAR_BPS = 15
"""How near its target a token is when a rebalance is done."""
LONGEST_S = 90 + 30
"""Deadline of the config, and how far ahead of the block a head may be."""
ENDS = {IntentState.FINAL, IntentState.CANCELLED, IntentState.REPLACED, IntentState.REVERTED}


def violations(scene: Scene, swaps: int | None = None) -> list[str]:
    """Everything that is not as it must be once healthy steps have run; `swaps` is how many trades the rebalance takes, of the scene if
    None.
    """
    store = open_store(scene.loaded.store_url, scene.chain.chain_id, scene.chain.wallet.address)
    try:
        sent = transactions(scene)
        return [
            *nonces(store),
            *known(scene, store, sent),
            *policy(scene, sent),
            *value(scene),
            *ledger(scene, store, sent),
            *finished(scene, store, scene.swaps if swaps is None else swaps),
            *secrets(scene, sent),
            *(futures_invariants.violations(scene.futures, store.journal.intents(limit=1_000), sent) if scene.futures else []),
        ]
    finally:
        store.close()


def transactions(scene: Scene) -> list[Any]:
    """Transactions of the wallet in all blocks since the scene began, as the node tells them."""
    wallet = scene.chain.wallet.address.lower()
    sent_transactions = []
    for number in range(scene.first_block + 1, int(scene.chain.w3.eth.block_number) + 1):
        block: Any = scene.rpc("eth_getBlockByNumber", hex(number), True)
        sent_transactions += [transaction for transaction in block["transactions"] if transaction["from"].lower() == wallet]
    return sent_transactions


def nonces(store: Store) -> list[str]:
    """No nonce carries two intents that both succeeded."""
    done = Counter(intent.tx.nonce for intent in store.journal.intents(limit=1_000) if intent.succeeded)
    return [f"nonce {nonce} carries {times} intents that succeeded" for nonce, times in done.items() if times > 1]


def known(scene: Scene, store: Store, sent: list[Any]) -> list[str]:
    """Every sent transaction is in the journal, and as what it is."""
    journal = {intent.tx_hash: intent for intent in store.journal.intents(limit=1_000) if intent.tx_hash is not None}
    problems = []
    for transaction in sent:
        intent = journal.get(transaction["hash"])
        if intent is None:
            if transaction["hash"] not in scene.foreign:
                problems.append(f"{transaction['hash']} at nonce {int(transaction['nonce'], 16)} is in no journal")
        elif intent.state not in (IntentState.FINAL, IntentState.REVERTED, IntentState.MINED):
            problems.append(f"{transaction['hash']} is in a block, the journal says {intent.state.value}")
    mined = {transaction["hash"] for transaction in sent}
    problems += [
        f"the journal has {intent.tx_hash} as {intent.state.value}, no block has it"
        for intent in journal.values()
        if intent.state in (IntentState.FINAL, IntentState.REVERTED, IntentState.MINED) and intent.tx_hash not in mined
    ]
    return problems


def policy(scene: Scene, sent: list[Any]) -> list[str]:
    """What was signed stays inside the signer's policy: our router and tokens, our wallet, short deadlines, capped fees."""
    at = scene.chain.addresses
    addresses = []
    wallet = scene.chain.wallet.address
    tokens = {token.address for token in scene.chain.tokens.values()}
    for transaction in sent:
        if transaction["hash"] in scene.foreign:
            continue
        to = scene.chain.w3.to_checksum_address(transaction["to"])
        data = transaction["input"]
        if int(transaction.get("maxFeePerGas") or transaction["gasPrice"], 16) > MOST_FEE_WEI:
            addresses.append(f"{transaction['hash']} pays more than limits.gas_price")
        if to == wallet and data == "0x" and int(transaction["value"], 16) == 0:
            continue
        block: Any = scene.rpc("eth_getBlockByNumber", transaction["blockNumber"], False)
        if scene.futures is not None and to in (scene.futures.perps.addresses.clearing_house, scene.futures.spender):
            addresses += futures_invariants.beyond_policy(scene.futures, transaction, wallet, int(block["timestamp"], 16) + LONGEST_S)
            continue
        call = decode(data)
        match call:
            case Approve(spender, _):
                good = to in tokens and spender in spenders(scene)
            case Multicall(deadline_s, inner):
                late = deadline_s > int(block["timestamp"], 16) + LONGEST_S
                others = [part for part in inner if getattr(part, "recipient", wallet) not in (wallet, at.swap_router_02, _SELF, _CALLER)]
                good = to == scene.router and not late and not others
            case RebalanceCall():
                good = to == scene.router and call.deadline_s <= int(block["timestamp"], 16) + LONGEST_S
            case _:
                good = False
        if not good:
            addresses.append(f"{transaction['hash']} to {to} is outside the policy: {type(call).__name__}")
    return addresses


def spenders(scene: Scene) -> tuple[str, ...]:
    """Contracts that may ever take tokens of the wallet."""
    return (scene.router,) if scene.futures is None else (scene.router, scene.futures.spender)


_CALLER = "0x0000000000000000000000000000000000000001"
_SELF = "0x0000000000000000000000000000000000000002"
"""SwapRouter02's words for whoever calls it, and for itself."""


def value(scene: Scene) -> list[str]:
    """The wallet lost no more than its limits allow for what it moved, and no more gas money than for a day."""
    now = purse(scene.chain)
    usd = scene.prices_usd
    tokens = scene.chain.tokens
    raws = dict(now.raw)
    if scene.futures is not None:  # what went into margin is not lost
        raws["USDC"] += futures_invariants.deposited_raw(scene.futures)
    changes = [(raws[s] - raw) * usd[s] / 10 ** tokens[s].decimals for s, raw in scene.before.raw.items()]
    moved = sum((abs(change) for change in changes), Fraction(0)) / 2
    lost = -sum(changes, Fraction(0))
    gas_wei = scene.before.native_wei - now.native_wei
    problems = []
    if lost > moved * COST_BPS / BPS:
        problems.append(f"lost {float(lost):.2f} USD on {float(moved):.2f} moved")
    if gas_wei > GAS_WEI_PER_DAY:
        problems.append(f"{gas_wei} wei of gas are more than gas_per_day")
    return problems


def ledger(scene: Scene, store: Store, sent: list[Any]) -> list[str]:
    """What the books say was moved is what the chain says, to the wei; everything mined is booked."""
    now = purse(scene.chain)
    booked = Counter[str]()
    for movement in movements(store):
        booked[movement.token] += movement.delta_raw
    problems = [
        f"the books say {booked[scene.chain.tokens[s].address]} of {s}, the chain {now.raw[s] - raw}"
        for s, raw in scene.before.raw.items()
        if booked[scene.chain.tokens[s].address] != now.raw[s] - raw
    ]
    strangers_wei = sum(_paid_wei(scene, transaction["hash"]) for transaction in sent if transaction["hash"] in scene.foreign)
    if booked[NATIVE] != now.native_wei - scene.before.native_wei + strangers_wei:
        problems.append(f"the books say {booked[NATIVE]} wei, the chain {now.native_wei - scene.before.native_wei + strangers_wei}")
    if store.journal.unbooked_intents():
        problems.append(f"{len(store.journal.unbooked_intents())} mined intents are not booked")
    return problems


def _paid_wei(scene: Scene, tx_hash: str) -> int:
    receipt: Any = scene.rpc("eth_getTransactionReceipt", tx_hash)
    return int(receipt["gasUsed"], 16) * int(receipt["effectiveGasPrice"], 16)


def finished(scene: Scene, store: Store, swaps: int) -> list[str]:
    """The rebalance is done, exactly once: on target, nothing open, nothing left that anybody may take."""
    problems = []
    intents: list[Intent] = list(store.journal.intents(limit=1_000))
    done = [intent for intent in intents if intent.kind is IntentKind.SWAP and intent.succeeded]
    if len(done) != swaps:
        problems.append(f"{len(done)} swaps succeeded, not {swaps}")
    problems += [f"{intent.kind.value} is still {intent.state.value}" for intent in intents if intent.state not in ENDS]
    problems += near(scene)
    for symbol in scene.drawn.targets:
        for spender in spenders(scene):
            allowance_left = scene.chain.token_contract(symbol).functions.allowance(scene.chain.wallet.address, spender).call()
            if allowance_left:
                problems.append(f"{spender} may still take {allowance_left} of {symbol}")
    return problems


def near(scene: Scene) -> list[str]:
    """Every token is at its target, where there was anything to swap."""
    if not scene.swaps:
        return []
    margin_usd = futures_invariants.margin_usd(scene.futures) if scene.futures else Fraction(0)
    away = off_target(scene.chain, scene.drawn.targets, {"USDC": margin_usd})
    far = {s: float(bps) for s, bps in away.items() if bps > NEAR_BPS}
    return [f"off target: {far}"] if far else []


def secrets(scene: Scene, sent: list[Any]) -> list[str]:
    """No file beside the store holds a signature of what was sent (T8)."""
    files = [path for path in scene.store_file.parent.glob(scene.store_file.name + "*") if path.is_file()]
    contents = [(path.name, path.read_bytes()) for path in files]
    return [
        f"{name} holds the signature of {transaction['hash']}" for transaction in sent for name, data in contents if _s(transaction) in data
    ]


def _s(number: Any) -> bytes:
    return int(number["s"], 16).to_bytes(32, "big")
