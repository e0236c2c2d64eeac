"""The wallet's real history, read from the node block by block without the agent's code, and each swap compared with the limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

from eth_utils.crypto import keccak
from hypothesis import strategies as st

from agent import codec
from agent.accounting import entries
from agent.accounting.entries import EntryPrices, SettledTransaction, quantize
from agent.execution import settlement
from agent.localchain import LocalChain
from agent.localchain.nodes import AnvilNode
from agent.model import Entry, ExternalTransfer, ExternalTransferKind, Holding, IntentState, LedgerOpening, StepInput, Transfer
from agent.policy.cash_flows import balance_changes
from agent.store import Store
from agent.units import NATIVE
from tests.support import builders
from tests.support.agents import off_target
from tests.support.builders import address
from tests.support.constants import HOUR_S
from tests.support.searchers import PLAN_COST, SLIPPAGE
from tests.support.transactions import GWEI, OTHER, WALLET, grant, receipt, record_sent, tx

# --- Random histories of a wallet for tests of the ledger: movements in any order, with the resulting balances.


WETH = address("token WETH")
WBTC = address("token WBTC")
USDC = address("token USDC")
TOKENS = (WETH, WBTC, USDC, NATIVE)
COUNTED = frozenset(TOKENS)
START = {WETH: 10**19, WBTC: 10**8, USDC: 10**10, NATIVE: 10**18}
POSITION = "uniswap_v3 #1"


class Wallet:
    """Holdings of a wallet, and its ledger entries."""

    def __init__(self) -> None:
        self.held = dict(START)
        self.lp: dict[str, int] = {}
        self.entries: list[Entry] = []
        self.usd = {WETH: Fraction(2_000), WBTC: Fraction(60_000)}
        for token, raw in START.items():
            value = quantize(raw * (self.prices().of(token) or 0))
            self.entries.append(entries.opening_entry(LedgerOpening("", token, raw, value, 1, self.now_s)))

    @property
    def now_s(self) -> int:
        return 1_700_000_000 + HOUR_S * (0 if not hasattr(self, "entries") else len(self.entries))

    def prices(self) -> EntryPrices:
        return EntryPrices(
            {WETH: self.usd[WETH] * 10**6 / 10**18, WBTC: self.usd[WBTC] * 10**6 / 10**8, USDC: Fraction(1)},
            WETH,
        )

    def change(self, moved: dict[str, int], gas_wei: int) -> SettledTransaction:
        gas_wei = min(gas_wei, self.held[NATIVE] + min(0, moved.get(NATIVE, 0)))
        for token, raw in (*moved.items(), (NATIVE, -gas_wei)):
            self.held[token] += raw
        number = len(self.entries)
        return SettledTransaction(f"i{number}", number, self.now_s, f"0x{number:064x}", "", moved, gas_wei, number % 3 == 0)

    def swap(self, give: str, get: str, share: int, cost_bps: int) -> None:
        given_raw = self.held[give] * share // 100
        prices = self.prices()
        worth = given_raw * (prices.of(give) or Fraction(0)) * (10_000 - cost_bps) / 10_000
        bought_raw = int(worth / (prices.of(get) or Fraction(1)))
        if give == get or given_raw == 0:
            return
        change = self.change({give: -given_raw, get: bought_raw}, 10**14)
        self.entries.append(entries.trade_entry(change, prices, COUNTED, {give: given_raw * 3 // 1_000}))

    def flow(self, token: str, share: int, kind: ExternalTransferKind | None) -> None:
        raw = max(1, self.held[token] * abs(share) // 100) * (1 if share >= 0 else -1)
        if self.held[token] + raw < 0:
            return
        self.held[token] += raw
        value = raw * (self.prices().of(token) or 0)
        number = len(self.entries)
        self.entries.append(entries.transfer_entry(ExternalTransfer(number, token, raw, value, number, number, self.now_s, False, kind)))

    def provide(self, share: int) -> None:
        moved = {token: -(self.held[token] * share // 100) for token in (WETH, USDC)}
        for token, raw in moved.items():
            self.lp[token] = self.lp.get(token, 0) - raw
        self.entries.append(entries.provision_entry(self.change(moved, 10**14), self.prices(), COUNTED, POSITION))

    def take_out(self, share: int, skew: int) -> None:
        part = Fraction(share, 100)
        back = {token: int(raw * part) for token, raw in self.lp.items()}
        moved = {WETH: back.get(WETH, 0) * (100 + skew) // 100, USDC: back.get(USDC, 0) * (100 - skew) // 100}
        fees = {WETH: moved[WETH] // 1_000, USDC: moved[USDC] // 1_000}
        change = self.change(moved, 10**14)
        self.entries.append(entries.withdrawal_entry(change, self.prices(), COUNTED, POSITION, dict(self.lp), part, fees))
        for token, raw in back.items():
            self.lp[token] -= raw

    def worth(self) -> Fraction:
        """Return the value of everything in the ledger, positions at the amounts provided."""
        prices = self.prices()
        raws = {token: raw + self.lp.get(token, 0) for token, raw in self.held.items()}
        return sum((raw * (prices.of(token) or Fraction(0)) for token, raw in raws.items()), Fraction(0))


Act = Callable[[Wallet], None]
_rises = st.sampled_from(
    [ExternalTransferKind.DEPOSIT, ExternalTransferKind.GIFT, ExternalTransferKind.REBASE, ExternalTransferKind.GAS_MONEY, None]
)
_falls = st.sampled_from([ExternalTransferKind.WITHDRAWAL, ExternalTransferKind.LOSS, ExternalTransferKind.REBASE, None])
_tokens = st.sampled_from((WETH, WBTC, USDC))


def _priced(token: str, percent: int) -> Act:
    def act(wallet: Wallet) -> None:
        wallet.usd[token] = max(Fraction(1), wallet.usd[token] * (100 + percent) / 100)

    return act


ACTS: st.SearchStrategy[Act] = st.one_of(
    st.builds(lambda a, b, n, c: lambda w: w.swap(a, b, n, c), _tokens, _tokens, st.integers(1, 100), st.integers(-20, 300)),
    st.builds(lambda t, n, k: lambda w: w.flow(t, n, k), st.sampled_from(TOKENS), st.integers(0, 300), _rises),
    st.builds(lambda t, n, k: lambda w: w.flow(t, -n, k), st.sampled_from(TOKENS), st.integers(1, 100), _falls),
    st.builds(lambda n: lambda w: w.provide(n), st.integers(1, 100)),
    st.builds(lambda n, s: lambda w: w.take_out(n, s), st.integers(1, 100), st.integers(-60, 60)),
    st.builds(_priced, st.sampled_from((WETH, WBTC)), st.integers(-70, 200)),
    st.just(lambda w: w.entries.append(entries.trade_entry(w.change({}, 10**14), w.prices(), COUNTED, {}))),
    st.builds(lambda n: lambda w: _wrap(w, n), st.integers(1, 100)),
)


def _wrap(wallet: Wallet, share: int) -> None:
    raw = wallet.held[NATIVE] * share // 200
    wallet.entries.append(entries.trade_entry(wallet.change({NATIVE: -raw, WETH: raw}, 0), wallet.prices(), COUNTED, {}))


def histories(most: int = 25) -> st.SearchStrategy[Wallet]:
    """Draw a wallet after at most `most` movements."""

    def lived(acts: list[Act]) -> Wallet:
        wallet = Wallet()
        for act in acts:
            act(wallet)
        return wallet

    return st.lists(ACTS, max_size=most).map(lived)


# --- Cycles of an agent that compare balances over a real store, without a chain.


LEDGER_WETH = builders.token("WETH")
LEDGER_USDC = builders.token("USDC")
COIN = 10**18
DOLLAR = 10**6
DAY_S = 86_400
PRICE = 2_000 * DOLLAR


def at(block: int = 1_000, weth: str = "10", usdc: int = 20_000, native: int = COIN, later_s: int = 0, **changes: object) -> StepInput:
    """Return a portfolio of 40,000 at a block."""
    step = builders.step_input()
    raw_by_token = {LEDGER_WETH.address: builders.raw(weth, LEDGER_WETH), LEDGER_USDC.address: usdc * DOLLAR}
    holdings = tuple(Holding(holding.token, raw_by_token[holding.token]) for holding in step.snapshot.holdings)
    feeds = tuple(replace(f, started_at_s=f.started_at_s + later_s, updated_at_s=f.updated_at_s + later_s) for f in step.snapshot.feeds)
    old = step.snapshot.head
    head = replace(old, number=block, timestamp_s=old.timestamp_s + later_s)
    read = replace(step.snapshot, owner=WALLET, holdings=holdings, native_wei=native, head=head, feeds=feeds, now_s=head.timestamp_s)
    return replace(step, snapshot=replace(read, **changes))  # type: ignore[arg-type]  # keywords are field names, checked by replace


def looked(store: Store, step: StepInput) -> StepInput:
    """Run one cycle: update the expected balances, then return the step from which the agent decides."""
    settlement.record_balance_changes(store.balances, step.snapshot, lambda: step)
    return remembered(store, step)


def remembered(store: Store, step: StepInput) -> StepInput:
    """Return the step with the store's history and the unexplained balance changes."""
    return balance_changes.apply_balance_changes(
        replace(step, history=store.budgets.history(step.snapshot.head.timestamp_s)), store.balances.expected()
    )


def opened(store: Store, step: StepInput) -> list[tuple[str, int, bool]]:
    return [(flow.token, flow.delta_raw, flow.exceeds_jump_limit) for flow in looked(store, step).history.cash_flows.unexplained_transfers]


def finalise(store: Store) -> None:
    """Make what was mined final."""
    for intent in store.journal.open_intents():
        store.journal.advance(intent.id, IntentState.FINAL, 1)


def moved(store: Store, nonce: int, block: int, *transfers: Transfer, value_wei: int = 0, to: str = OTHER, **more: object) -> None:
    """Record one of the agent's transactions as mined."""
    if store.steps.get("s") is None:
        store.steps.begin("s", 1, codec.dumps(at()))
    intent = store.journal.add_intent("s", replace(tx(nonce), value_wei=value_wei, to=to), grant(), "swap", 1, None)
    tx_hash = f"0x{nonce:064x}"
    tx_receipt = replace(receipt(tx_hash, block, f"0x{block:064x}"), transfers=transfers, **more)  # type: ignore[arg-type]  # field names
    record_sent(store.journal, intent, tx_hash, 1, receipt=tx_receipt)


GAS_WEI = 50_000 * 2 * GWEI


TRANSFER = "0x" + bytes(keccak(text="Transfer(address,address,uint256)")).hex()
MOST_GAS_PRICE_WEI = 60 * 10**9
"""The template's limits.gas_price."""

BAND = Fraction(1, 10)
"""The template's trigger: 10 % of the target."""
EDGE_BPS = 20
"""Distance from a band's edge within which the decision is not predicted."""


@dataclass(frozen=True, slots=True)
class MinedTransaction:
    """A transaction of the wallet in a block."""

    tx_hash: str
    nonce: int
    block: int
    time_s: int
    gas_wei: int


class LedgerOfChain:
    """Transactions of the wallet since this ledger was made; a reorganisation removes those of its blocks."""

    def __init__(self, chain: LocalChain, node: AnvilNode) -> None:
        self._chain = chain
        self._node = node
        self._wallet = chain.wallet.address.lower()
        height = int(chain.w3.eth.block_number)
        self._blocks = {height: self._hash(height)}
        self._start_nonce = int(node.rpc("eth_getTransactionCount", chain.wallet.address, "latest"), 16)
        self._before_wei = _gas_before(node, self._wallet, height)
        self._done: list[MinedTransaction] = []
        self._by_hand: set[str] = set()
        self._prices = dict(chain.deployed_world.prices_usd)

    def by_hand(self, tx_hash: str) -> None:
        """Mark a transaction as sent manually by the owner."""
        self._by_hand.add(tx_hash)

    def nonce(self) -> int:
        """Return the wallet's next nonce, as counted."""
        return self._start_nonce + len(self._done)

    def hashes(self) -> set[str]:
        """Return the hashes of all transactions except the owner's."""
        return {transaction.tx_hash for transaction in self._done} - self._by_hand

    def count(self) -> int:
        """Return the number of those."""
        return len(self.hashes())

    def gas_wei(self, since_s: int, *, by_hand: bool = False) -> int:
        """Return the gas paid for them since a time; or for the owner's own, and for all transactions before this ledger began."""
        counted = [done for done in self._done if (done.tx_hash in self._by_hand) is by_hand and done.time_s > since_s]
        return sum(done.gas_wei for done in counted) + (self._before_wei if by_hand else 0)

    def read(self) -> None:
        """Read up to the newest block."""
        while self._blocks and self._hash(max(self._blocks)) != self._blocks[max(self._blocks)]:
            gone = max(self._blocks)
            del self._blocks[gone]
            self._done = [transaction for transaction in self._done if transaction.block != gone]
        for number in range(max(self._blocks) + 1, int(self._chain.w3.eth.block_number) + 1):
            block = self._node.rpc("eth_getBlockByNumber", hex(number), True)
            self._blocks[number] = block["hash"]
            for mined in block["transactions"]:
                if mined["from"].lower() == self._wallet:
                    self._book(mined, number, int(block["timestamp"], 16))
        self._prices = dict(self._chain.deployed_world.prices_usd)

    def _hash(self, number: int) -> str | None:
        block = self._node.rpc("eth_getBlockByNumber", hex(number), False)
        return None if block is None else str(block["hash"])

    def _book(self, tx: dict[str, str], number: int, time_s: int) -> None:
        receipt = self._node.rpc("eth_getTransactionReceipt", tx["hash"])
        assert int(tx["nonce"], 16) == self.nonce(), "a nonce is missing or twice"
        price_wei = int(receipt["effectiveGasPrice"], 16)
        assert price_wei <= MOST_GAS_PRICE_WEI
        self._done.append(MinedTransaction(tx["hash"], int(tx["nonce"], 16), number, time_s, int(receipt["gasUsed"], 16) * price_wei))
        moved: dict[str, int] = {}
        for log in receipt["logs"]:
            if log["topics"][0] == TRANSFER and len(log["topics"]) == 3:
                sender, recipient = ("0x" + topic[-40:] for topic in log["topics"][1:])
                sign = (recipient == self._wallet) - (sender == self._wallet)
                moved[log["address"]] = moved.get(log["address"], 0) + sign * int(log["data"], 16)
        # A price may have moved after the cycle that sent this transaction; it then satisfies the limits at one of the two prices.
        assert any(self._kept(moved, prices) for prices in (self._prices, self._chain.deployed_world.prices_usd)), (
            f"{tx['hash']} lost too much"
        )

    def _kept(self, moved: dict[str, int], prices: Mapping[str, Fraction]) -> bool:
        """Return whether the value received covers the value given, less plan_cost and slippage of the turnover."""
        usd = {token.address.lower(): prices[symbol] / 10**token.decimals for symbol, token in self._chain.tokens.items()}
        values = [raw * usd[address.lower()] for address, raw in moved.items()]
        return -sum(values, Fraction(0)) <= (PLAN_COST + SLIPPAGE) * sum(map(abs, values), Fraction(0)) / 2


def outside_band(chain: LocalChain, targets: Mapping[str, str]) -> bool | None:
    """Return whether a token's weight is outside its band, by balances and world prices; None if one is too near to an edge."""
    target_bps = {symbol: Fraction(target.rstrip("%")) * 100 for symbol, target in targets.items()}
    beyond = {symbol: off - BAND * target_bps[symbol] for symbol, off in off_target(chain, targets).items()}
    return None if any(abs(bps) <= EDGE_BPS for bps in beyond.values()) else any(bps > 0 for bps in beyond.values())


_KNOWN: dict[str, int] = {}


def _gas_before(node: AnvilNode, wallet: str, height: int) -> int:
    """Return the gas paid by a wallet on a chain as deployed; read once."""
    key = str(node.url)
    if key not in _KNOWN:
        blocks = [node.rpc("eth_getBlockByNumber", hex(number), True) for number in range(height + 1)]
        sent = [tx["hash"] for block in blocks for tx in block["transactions"] if tx["from"].lower() == wallet]
        paid = [node.rpc("eth_getTransactionReceipt", tx_hash) for tx_hash in sent]
        _KNOWN[key] = sum(int(payment["gasUsed"], 16) * int(payment["effectiveGasPrice"], 16) for payment in paid)
    return _KNOWN[key]
