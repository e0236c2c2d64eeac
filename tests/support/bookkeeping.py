"""Random histories of a wallet for tests of the books: movements in any order, with the balances that they leave."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from hypothesis import strategies as st

from agent.accounting import entries
from agent.accounting.entries import EntryPrices, SettledTransaction, quantize
from agent.model import Entry, ExternalTransfer, ExternalTransferKind, LedgerOpening
from agent.units import NATIVE
from tests.support.builders import address

WETH, WBTC, USDC = address("token WETH"), address("token WBTC"), address("token USDC")
TOKENS = (WETH, WBTC, USDC, NATIVE)
COUNTED = frozenset(TOKENS)
START = {WETH: 10**19, WBTC: 10**8, USDC: 10**10, NATIVE: 10**18}
POSITION = "uniswap_v3 #1"
HOUR_S = 3_600


class Wallet:
    """What a wallet holds beside what is written down of it."""

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
        given = self.held[give] * share // 100
        prices = self.prices()
        worth = given * (prices.of(give) or Fraction(0)) * (10_000 - cost_bps) / 10_000
        got = int(worth / (prices.of(get) or Fraction(1)))
        if give == get or given == 0:
            return
        change = self.change({give: -given, get: got}, 10**14)
        self.entries.append(entries.trade_entry(change, prices, COUNTED, {give: given * 3 // 1_000}))

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
        """All that the books hold, positions by what was put into them."""
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
    """A wallet after up to so many things happened to it."""

    def lived(acts: list[Act]) -> Wallet:
        wallet = Wallet()
        for act in acts:
            act(wallet)
        return wallet

    return st.lists(ACTS, max_size=most).map(lived)
