"""Quoting, signing and sending on an embedded chain with the real signer and sender, so that tests state only their trades."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from typing import Any

from eth_account import Account
from web3.contract import Contract

from agent.artifacts import npm_artifact
from agent.chain.sender import NodeSender
from agent.chain.tokens import encode_approve, needed_approvals
from agent.execution.submission.settings import SubmissionSettings
from agent.execution.submission.signable_nonces import max_tip_by_nonce
from agent.localchain import LocalChain, safe
from agent.localchain.world import WALLET_INDEX, dev_accounts
from agent.model import Allowance, IntentKind, Leg, LegPlace, Plan, PoolMaker, Receipt, SwapStyle, UnsignedTx
from agent.ports import Grant, Simulation
from agent.signing.keys import TestAccountKey, load_key
from agent.signing.rules import LocalSigner, SigningRules
from agent.store import Store
from agent.units import NATIVE, floor_int
from agent.venues.calldata import RebalancerTerms, encode_multicall, encode_rebalance, min_balance_changes, wrapped_native_wei
from agent.venues.calldata import wrapped_native_wei as rebalancer_native_wei
from agent.venues.gas_fees import gas_fees
from agent.venues.kinds.uniswap_v2 import UniswapV2
from agent.venues.kinds.uniswap_v3 import UniswapV3
from tests.support import builders
from tests.support.constants import GWEI
from tests.support.signing import plan_of

LIMIT_WEI = 200 * GWEI
MAX_GAS_WEI = 10**18
DEADLINE_S = 90
QUOTER_V2 = "@uniswap/v3-periphery/artifacts/contracts/lens/QuoterV2.sol/QuoterV2.json"
ROUTER_V2 = "@uniswap/v2-periphery/build/UniswapV2Router02.json"
W = LegPlace.WALLET
R = LegPlace.ROUTER


class Desk:
    """A working wallet on one embedded chain."""

    def __init__(self, chain: LocalChain) -> None:
        self.chain = chain
        self.router = chain.addresses.swap_router_02
        self.wallet = chain.wallet.address
        self.sender = NodeSender(chain.transport)
        tokens = tuple(token.address for token in chain.tokens.values())
        self.rules = SigningRules(chain.chain_id, self.wallet, (self.router,), tokens, DEADLINE_S, LIMIT_WEI, (), self.at("WETH"))
        self.key = load_key(TestAccountKey(WALLET_INDEX), chain.chain_id, ask=None)

    @property
    def signer(self) -> LocalSigner:
        """Signer without a journal, for the chain's next nonce and all used ones."""
        return LocalSigner(self.key, self.rules, lambda: dict.fromkeys(range(self.sender.nonces(self.wallet)[0] + 1)))

    def signer_of(self, store: Store, settings: SubmissionSettings) -> LocalSigner:
        """Return the signer of an agent with this store and fee ceiling."""
        return LocalSigner(self.key, replace(self.rules, max_fee_wei=settings.max_fee_wei), partial(max_tip_by_nonce, store.journal))

    def at(self, symbol: str) -> str:
        """Return the address of a token."""
        return self.chain.tokens[symbol].address

    def leg(self, pool: str, token_in: str, amount_in_raw: int, source: LegPlace = W, sink: LegPlace = W) -> Leg:
        """Return a leg whose output is the deployed quoters' present quote, and whose minimum equals it."""
        info = self.chain.deployed_world.pool_by_name[pool]
        start = self.at(token_in)
        end = info.token1.address if info.token0.address == start else info.token0.address
        if info.version == 2:
            router = self.chain.contract(self.chain.addresses.v2_router, npm_artifact(ROUTER_V2))
            out = int(router.functions.getAmountsOut(amount_in_raw, [start, end]).call()[-1])
        else:
            quoter = self.chain.contract(self.chain.addresses.quoter_v2, npm_artifact(QUOTER_V2))
            out = int(quoter.functions.quoteExactInputSingle((start, end, amount_in_raw, info.fee_pips, 0)).call()[0])
        fee_raw = amount_in_raw * info.fee_pips // 10**6
        return Leg(info.address, f"uniswap_v{info.version}", start, end, info.fee_pips, amount_in_raw, out, out, fee_raw, 0, source, sink)

    def tx(self, to: str, data: str, legacy: bool = False, **changes: object) -> UnsignedTx:
        """Return a transaction at the next nonce with fees from the head; with gas 0 the node estimates it."""
        head = self.sender.head()
        if legacy:
            head = replace(head, base_fee_wei=None)
        paid = gas_fees(head, GWEI, 10 * GWEI, limit_wei=LIMIT_WEI, priority_cap_wei=2 * GWEI)
        nonce = self.sender.nonces(self.wallet)[0]
        plain = UnsignedTx(self.chain.chain_id, nonce, to, 0, data, 0, paid.max_fee_wei, paid.max_priority_fee_wei, paid.gas_price_wei)
        return replace(plain, **changes)  # type: ignore[arg-type]

    def simulate(self, tx: UnsignedTx) -> Simulation:
        """Simulate a transaction by the node."""
        return self.sender.simulate(tx, self.wallet)

    def run(self, tx: UnsignedTx, grant: Grant) -> Receipt:
        """Simulate, sign and send; return the receipt."""
        if tx.gas == 0:
            simulated = self.simulate(tx)
            assert simulated.ok, simulated.reason
            tx = replace(tx, gas=simulated.gas * 5 // 4)
        signed = self.signer.sign(tx, grant)
        self.sender.send(signed)
        return self.mined(signed.hash)

    def mined(self, tx_hash: str) -> Receipt:
        """Wait for the receipt, since anvil mines only after its answer."""
        for _ in range(500):
            status = self.sender.status_of(tx_hash)
            if status.receipt is not None:
                return status.receipt
            time.sleep(0.01)
        raise AssertionError(f"{tx_hash} is {status.state} after 5 s")

    def grant(self, kind: IntentKind, **changes: object) -> Grant:
        """Return a grant at the chain's time."""
        now_s = self.sender.head().timestamp_s
        return replace(Grant(kind, now_s, now_s + DEADLINE_S, MAX_GAS_WEI), **changes)  # type: ignore[arg-type]

    def allowance(self, symbol: str) -> int:
        """Return the router's allowance of the wallet's token."""
        return int(self.chain.token_contract(symbol).functions.allowance(self.wallet, self.router).call())

    def approvals_needed(self, plan: Plan) -> Sequence[tuple[str, int]]:
        """Return the approvals that a plan lacks at the present allowances."""
        allowances = tuple(Allowance(self.at(symbol), self.router, self.allowance(symbol)) for symbol in self.chain.tokens)
        return needed_approvals(plan, builders.snapshot(allowances=allowances), self.router)

    def approve(self, token: str, raw: int, legacy: bool = False) -> Receipt:
        """Send one approval."""
        grant = self.grant(IntentKind.APPROVE, approval_terms=(token, self.router, raw))
        return self.run(self.tx(token, encode_approve(self.router, raw), legacy), grant)

    def approve_for(self, plan: Plan) -> None:
        """Send every approval that the plan lacks."""
        for token, raw in self.approvals_needed(plan):
            assert self.approve(token, raw).status == 1

    def swap_tx(self, plan: Plan, legacy: bool = False, **changes: object) -> UnsignedTx:
        """Return the plan as one transaction."""
        data = encode_multicall(plan, self.wallet, self.sender.head().timestamp_s + DEADLINE_S)
        return self.tx(self.router, data, legacy, **{"value_wei": wrapped_native_wei(plan)} | changes)

    def swap(self, plan: Plan, legacy: bool = False, **changes: object) -> Receipt:
        """Send the plan with its minimums as floors."""
        floors = tuple(leg.min_out_raw for leg in plan.legs)
        return self.run(self.swap_tx(plan, legacy, **changes), self.grant(IntentKind.SWAP, plan=plan, floors_raw=floors))

    def balances(self) -> dict[str, int]:
        """Return the wallet's balances by symbol."""
        return {symbol: self.chain.balance(symbol) for symbol in self.chain.tokens}


def three_way_plan(desk: Desk) -> Plan:
    """Return a plan with WETH to USDC over V3 and V2, and USDT over the hub USDC to LINK, all in different pools."""
    hub = desk.leg("v3 USDC/USDT 100", "USDT", 400 * 10**6, sink=R)
    return plan_of(
        desk.leg("v3 WETH/USDC 500", "WETH", 3 * 10**17),
        desk.leg("v2 WETH/USDC", "WETH", 10**17),
        hub,
        desk.leg("v3 LINK/USDC 10000", "USDC", hub.amount_out_raw, source=R),
    )


def router_balances(desk: Desk) -> dict[str, int]:
    """Return the balances left in the router."""
    return {symbol: desk.chain.balance(symbol, desk.router) for symbol in desk.chain.tokens}


def native_of(chain: LocalChain, owner: str) -> int:
    """Return the native coin of an account in wei."""
    balance: Any = chain.w3.eth.get_balance(owner)
    return int(balance)


# --- A wallet that trades through the Rebalancer of an embedded chain.


class AtomicDesk(Desk):
    """A Desk with the Rebalancer as router. Its conditions come from the legs' minimums."""

    def __init__(self, chain: LocalChain) -> None:
        super().__init__(chain)
        self.router = chain.addresses.rebalancer
        weth = self.at("WETH")
        tokens = tuple(token.address for token in chain.tokens.values())
        self.makers = {
            "uniswap_v2": UniswapV2("uniswap_v2", chain.addresses.v2_factory).maker,
            "uniswap_v3": UniswapV3("uniswap_v3", chain.addresses.v3_factory).maker,
            "wrapped_native": PoolMaker(SwapStyle.NATIVE, weth),
        }
        makers = tuple(self.makers.items())
        self.rules = SigningRules(chain.chain_id, self.wallet, (), tokens, DEADLINE_S, LIMIT_WEI, (self.router,), weth, makers)

    @property
    def prices(self) -> dict[str, Fraction]:
        """USDC base units per base unit of each token, at the chain's prices."""
        usd = self.chain.deployed_world.prices_usd
        price_by_token = {token.address: usd[symbol] * 10**6 / 10**token.decimals for symbol, token in self.chain.tokens.items()}
        return price_by_token | {NATIVE: price_by_token[self.at("WETH")]}

    def terms(self, legs: Sequence[Leg]) -> RebalancerTerms:
        """Return prices, and the value of the minimums."""
        least = min_balance_changes(legs)
        prices = self.prices
        return RebalancerTerms(prices, floor_int(sum((raw * prices[token] for token, raw in least.items()), Fraction(0))) - 1)

    def swap_tx(self, plan: Plan, legacy: bool = False, terms: RebalancerTerms | None = None, **changes: object) -> UnsignedTx:
        """Return the plan as one call."""
        data = encode_rebalance(plan, self.sender.head().timestamp_s + DEADLINE_S, terms or self.terms(plan.legs), self.makers, {})
        return self.tx(self.router, data, legacy, **{"value_wei": rebalancer_native_wei(plan)} | changes)

    def swap(self, plan: Plan, legacy: bool = False, **changes: object) -> Receipt:
        """Send the plan with its minimums as floors."""
        terms = self.terms(plan.legs)
        floors = tuple(leg.min_out_raw for leg in plan.legs)
        prices = tuple((token, terms.prices[token]) for token in min_balance_changes(plan.legs))
        grant = self.grant(IntentKind.SWAP, plan=plan, floors_raw=floors, prices=prices, min_value_change_raw=terms.min_value_change_raw)
        return self.run(self.swap_tx(plan, legacy, **changes), grant)

    def would(self, data: str, sender: str | None = None, to: str | None = None, value_wei: int = 0) -> Simulation:
        """Simulate a call of the Rebalancer (or `to`) by the wallet (or `sender`)."""
        tx = self.tx(to or self.router, data, value_wei=value_wei)
        return self.sender.simulate(tx, sender or self.wallet)


# --- A real Safe on an embedded chain, with owners who sign the typed data that they are shown.


@dataclass(frozen=True)
class SafeWallet:
    """A Safe owned by some of the test accounts; `threshold` of them must sign."""

    chain: LocalChain
    contract: Contract
    owners: tuple[Any, ...]
    threshold: int

    @property
    def address(self) -> str:
        return str(self.contract.address)

    def signatures(self, typed_data: Mapping[str, Any]) -> bytes:
        """Return the owners' signatures of this typed data, in the order that the Safe requires."""
        signing = sorted(self.owners, key=lambda owner: int(owner.address, 16))[: self.threshold]
        return b"".join(bytes(Account.sign_typed_data(owner.private_key, full_message=dict(typed_data)).signature) for owner in signing)

    def execute(self, document: Mapping[str, Any]) -> str:
        """Execute the signed transaction from an account that is not an owner; return its hash."""
        call = document["safe_tx"]
        executor = dev_accounts()[9].address
        fields = [call["to"], int(call["value"]), call["data"], call["operation"], 0, 0, 0, call["gasToken"], call["refundReceiver"]]
        signed = self.contract.functions.execTransaction(*fields, self.signatures(document["typed_data"]))
        return self.chain.send(signed, executor)

    def nonce(self) -> int:
        return int(self.contract.functions.nonce().call())


def deploy_safe(chain: LocalChain, owners: Sequence[int] = (5, 6, 7), threshold: int = 2, *, makes_batches: bool = False) -> SafeWallet:
    """Deploy a proxy of the real singleton, owned by these test accounts."""
    accounts = tuple(dev_accounts()[index] for index in owners)
    contract = chain.contract(safe.deploy_safe(chain, owners, threshold, makes_batches=makes_batches), npm_artifact(safe.SAFE_ARTIFACT))
    return SafeWallet(chain, contract, accounts, threshold)
