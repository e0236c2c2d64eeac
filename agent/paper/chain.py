"""Chain of paper trading: real blocks and exact pools, and a paper wallet. Nothing is sent."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from agent.backtest import router
from agent.backtest.router import (
    FAILED_UNITS,
    RouterAddresses,
    TicksExhausted,
    TransactionEffects,
    TransactionReverted,
    decode_unsigned,
)
from agent.errors import ConfigError, ErrorCode, OperatorNeeded, Retryable
from agent.layers.futures.state import collateral_token, futures_policy
from agent.model import (
    Allowance,
    Evidence,
    FuturesReading,
    Head,
    Holding,
    PaperMargin,
    PaperTx,
    PaperWallet,
    PastPrices,
    Plan,
    Pool,
    Receipt,
    SignedTx,
    Snapshot,
    StepInput,
    UnsignedTx,
)
from agent.paper.venue import PaperVenue, PaperVenueEffects
from agent.policy.cash_flows.balance_changes import balances_of
from agent.ports import EvidenceSource, Reader, Simulation, TransactionStatus
from agent.reference import reference_prices
from agent.store.store import PaperStore
from agent.units import BPS, floor_int

RECEIPTS, BLOCKS = 16, 256
"""Number of newest receipts and blocks kept for the journal's checks of transactions that are not
final.
"""


class PaperChain:
    """ports.Sender with simulated transactions.

    A transaction is executed at the pools of the first snapshot of a later block, so that no fill
    uses a price seen before sending. Its effect on pools ends with its block: the next snapshot has
    the real pools. Gas follows the planner's gas model at the header's fees. There are no reorgs.
    """

    def __init__(
        self,
        book: PaperStore,
        reader: Reader,
        heads: Callable[[], Head],
        place: RouterAddresses,
        venue: PaperVenue | None = None,
    ) -> None:
        """Set the sources: `reader` reads the real chain, `heads` its newest header; neither can
        send. `venue` fills futures orders.
        """
        self._venue = venue
        self._book = book
        self._reader = reader
        self._heads = heads
        self._place = place
        self._seen: Snapshot | None = None

    # reading
    def state(self) -> PaperWallet:
        """Return the current wallet. Raises OperatorNeeded before it was created."""
        wallet = self._book.wallet()
        if wallet is None:
            raise OperatorNeeded("there is no paper wallet yet", "run trimtab paper to create one")
        return wallet

    def snapshot(self) -> Snapshot:
        """Return a snapshot of the real chain with the real wallet."""
        self._seen = self._reader.snapshot()
        return self._seen

    def real(self, block_hash: str) -> Snapshot | None:
        """Return the newest real snapshot if it was read at this block; else None."""
        if self._seen is not None and self._seen.head.hash == block_hash:
            return self._seen
        return None

    def margin(self, snapshot: Snapshot) -> Snapshot:
        """Return a snapshot with the paper margin account in place of the real one."""
        margin = self.state().margin
        account = snapshot.layer(FuturesReading).account
        if self._venue is None or margin is None or account is None:
            return snapshot
        paper = self._venue.account(account, margin, snapshot.head)
        return snapshot.with_layer(replace(snapshot.layer(FuturesReading), account=paper))

    def begin_margin(self, snapshot: Snapshot, deposit_raw: int | None) -> PaperMargin | None:
        """Return the first margin account (see PaperVenue.begin); None without futures."""
        if self._venue is None:
            return None
        return self._venue.begin(snapshot.layer(FuturesReading).account, snapshot.head, deposit_raw)

    # ports.Sender
    def head(self) -> Head:
        """See ports.Sender."""
        head = self._heads()
        self._catch_up(head)
        return head

    def block_hash(self, number: int) -> str | None:
        """See ports.Sender. Known only for blocks with a paper transaction; else None."""
        return dict(self.state().blocks).get(number)

    def nonces(self, _owner: str) -> tuple[int, int]:
        """See ports.Sender."""
        self._catch_up(None)
        state = self.state()
        return state.nonce, state.nonce + len(state.waiting)

    def simulate(self, tx: UnsignedTx, _sender: str) -> Simulation:
        """See ports.Sender. Simulates at the pools of the newest block."""
        head = self._heads()
        self._catch_up(head)
        seen = self._seen
        if seen is None or seen.head.number < head.number:
            seen = self.snapshot()
        done: TransactionEffects | PaperVenueEffects
        try:
            try:
                done = self._run(tx, self.state(), _pools(seen), seen.head)
            except TicksExhausted:
                done = self._run(tx, self.state(), _pools(self._deeper(seen)), seen.head)
        except TransactionReverted as error:
            return Simulation(False, str(error), 0, seen.head, reverted=True)
        return Simulation(True, "", done.gas, seen.head)

    def send(self, signed: SignedTx) -> None:
        """See ports.Sender. Replaces a pending transaction at the same nonce, as a mempool does.
        Raises OperatorNeeded for a used nonce.
        """
        state, tx = self.state(), decode_unsigned(signed)
        if any(other.hash == signed.hash for other in state.waiting) or any(
            receipt.tx_hash == signed.hash for receipt in state.receipts
        ):
            return
        if tx.nonce < state.nonce:
            raise OperatorNeeded(
                f"nonce {tx.nonce} of the paper wallet is used",
                "remove the paper store to start over",
                code=ErrorCode.NONCE_USED,
            )
        sent_block = self._heads().number
        if self._seen is not None:
            sent_block = max(sent_block, self._seen.head.number)
        others = tuple(paper_tx for paper_tx in state.waiting if paper_tx.tx.nonce != tx.nonce)
        waiting = tuple(
            sorted(
                (*others, PaperTx(signed.hash, tx, sent_block)), key=lambda other: other.tx.nonce
            )
        )
        self._book.save(replace(state, waiting=waiting))

    def status_of(self, tx_hash: str) -> TransactionStatus:
        """See ports.Sender."""
        self._catch_up(None)
        state = self.state()
        for receipt in state.receipts:
            if receipt.tx_hash == tx_hash:
                return TransactionStatus("mined", receipt)
        pending = any(paper_tx.hash == tx_hash for paper_tx in state.waiting)
        return TransactionStatus("pending" if pending else "unknown", None)

    # filling
    def _catch_up(self, head: Head | None) -> None:
        """Execute pending transactions, once a later block exists."""
        state = self.state()
        if not state.waiting:
            return
        since, head = state.waiting[0].sent_block, head or self._heads()
        if head.number <= since:
            return
        seen = self.snapshot()
        if seen.head.number > since:
            self._fill(state, seen)

    def _fill(self, state: PaperWallet, seen: Snapshot) -> None:
        """Execute the next nonces in one block, up to a transaction that was sent too late for it
        or pays too little.
        """
        try:
            filled, left = self._filled(state, _pools(seen), seen, further=True)
        except TicksExhausted:
            filled, left = self._filled(state, _pools(self._deeper(seen)), seen, further=False)
        if len(left) < len(state.waiting):
            blocks = (*state.blocks, (seen.head.number, seen.head.hash))[-BLOCKS:]
            self._book.save(
                replace(filled, waiting=tuple(left), block=seen.head.number, blocks=blocks)
            )

    def _filled(
        self, state: PaperWallet, pools: dict[str, Pool], seen: Snapshot, *, further: bool
    ) -> tuple[PaperWallet, list[PaperTx]]:
        """Return the wallet after the executed transactions, and those still pending. Raises
        TicksExhausted if a swap needs more ticks and `further` ticks may exist.
        """
        left = list(state.waiting)
        while left and left[0].tx.nonce == state.nonce and left[0].sent_block < seen.head.number:
            price_wei = _price_wei(left[0].tx, seen.head)
            if price_wei is None:
                break
            state, pools = self._applied(state, left.pop(0), pools, seen, price_wei, further)
        return state, left

    def _deeper(self, seen: Snapshot) -> Snapshot:
        """Return the snapshot with more ticks of its V3 pools."""
        return self._reader.with_more_ticks(
            seen, [pool.address for pool in seen.pools if pool.tick_state is not None]
        )

    def _applied(
        self,
        state: PaperWallet,
        paper_tx: PaperTx,
        pools: dict[str, Pool],
        seen: Snapshot,
        price_wei: int,
        further: bool,
    ) -> tuple[PaperWallet, dict[str, Pool]]:
        """Return the wallet and the pools after a transaction, which may have reverted."""
        done: TransactionEffects | PaperVenueEffects | None
        head, size = seen.head, len(paper_tx.tx.data) // 2 - 1
        try:
            done = self._run(paper_tx.tx, state, pools, head)
        except TransactionReverted as error:
            if further and isinstance(error, TicksExhausted):
                raise
            done = None
        units = min(paper_tx.tx.gas, FAILED_UNITS) if done is None else done.gas
        native_wei = done.native_wei if isinstance(done, TransactionEffects) else state.native_wei
        paid_wei = units * price_wei + seen.data_fee_wei(units, size)
        if done is not None and (units > paper_tx.tx.gas or native_wei < paid_wei):
            done, units, native_wei = None, paper_tx.tx.gas, state.native_wei
        receipt = Receipt(
            tx_hash=paper_tx.hash,
            status=0,
            block_number=head.number,
            block_hash=head.hash,
            gas_used=units,
            effective_gas_price_wei=price_wei,
            transfers=(),
            data_fee_wei=seen.data_fee_wei(units, size),
        )
        if done is not None:
            receipt = replace(receipt, status=1, transfers=tuple(done.transfers))
        if isinstance(done, TransactionEffects):
            receipt = replace(receipt, wrapped=tuple(done.wrapped))
        elif done is not None:
            receipt = replace(receipt, fills=done.fills, funding=done.funding)
        state = replace(
            state,
            nonce=state.nonce + 1,
            native_wei=max(0, native_wei - receipt.gas_cost_wei),
            receipts=(*state.receipts, receipt)[-RECEIPTS:],
        )
        if done is None:
            return state, pools
        spender = self._place.router
        if isinstance(done, PaperVenueEffects) and self._venue is not None:
            spender = self._venue.contracts.vault
            state, after = replace(state, margin=done.margin), pools
        elif isinstance(done, TransactionEffects):
            after = done.pools
        balances = tuple(Holding(token, raw) for token, raw in sorted(done.balances.items()))
        allowances = (
            *(allowance for allowance in state.allowances if allowance.spender != spender),
            *(Allowance(token, spender, raw) for token, raw in sorted(done.allowances.items())),
        )
        return replace(state, balances=balances, allowances=allowances), after

    def _run(
        self, tx: UnsignedTx, state: PaperWallet, pools: Mapping[str, Pool], head: Head
    ) -> TransactionEffects | PaperVenueEffects:
        balances = {balance.token: balance.raw for balance in state.balances}
        if self._venue is not None and (call := self._venue.call_of(tx)) is not None:
            seen = self._seen
            account = None if seen is None else seen.layer(FuturesReading).account
            if state.margin is None or account is None:
                raise TransactionReverted("the margin account is unknown")
            vault = self._venue.contracts.vault
            return self._venue.execute(
                tx,
                call,
                balances,
                {
                    approval.token: approval.raw
                    for approval in state.allowances
                    if approval.spender == vault
                },
                self._venue.account(account, state.margin, head),
                state.margin,
                head,
            )
        return router.execute(
            tx.to,
            tx.data,
            balances,
            {
                allowance.token: allowance.raw
                for allowance in state.allowances
                if allowance.spender == self._place.router
            },
            pools,
            head.timestamp_s,
            self._place,
            tx.value_wei,
            state.native_wei,
        )


def _pools(seen: Snapshot) -> dict[str, Pool]:
    return {pool.address: pool for pool in seen.pools}


def _price_wei(tx: UnsignedTx, head: Head) -> int | None:
    """Return the gas price of the transaction in a block; None if it pays too little."""
    base_wei = head.base_fee_wei or 0
    if tx.max_fee_wei is None:
        price_wei = tx.gas_price_wei or 0
        return price_wei if price_wei >= base_wei else None
    if tx.max_fee_wei < base_wei:
        return None
    return min(tx.max_fee_wei, base_wei + (tx.max_priority_fee_wei or 0))


class PaperReader:
    """ports.Reader of the real chain with the paper wallet. Reading executes no transaction."""

    def __init__(self, reader: Reader, chain: PaperChain) -> None:
        """Set the sources: `reader` reads the real chain."""
        self._reader = reader
        self._chain = chain

    def snapshot(self) -> Snapshot:
        """See ports.Reader. Raises Retryable while the endpoints are behind the wallet's last
        trade.
        """
        snapshot, state = self._chain.snapshot(), self._chain.state()
        if snapshot.head.number < state.block:
            raise Retryable(
                f"the endpoints agree on block {snapshot.head.number} only, which is behind our"
                f" transaction in {state.block}",
                code=ErrorCode.LAG,
            )
        snapshot = self._chain.margin(snapshot)
        amounts = {holding.token: holding.raw for holding in state.balances}
        allowed = {
            (allowance.token, allowance.spender): allowance.raw for allowance in state.allowances
        }
        return replace(
            snapshot,
            native_wei=state.native_wei,
            nonce_latest=state.nonce,
            nonce_pending=state.nonce + len(state.waiting),
            holdings=tuple(
                Holding(holding.token, amounts.get(holding.token, 0))
                for holding in snapshot.holdings
            ),
            allowances=tuple(
                Allowance(read.token, read.spender, allowed.get((read.token, read.spender), 0))
                for read in snapshot.allowances
            ),
            positions=(),
        )

    def past(self, head: Head, blocks: int) -> tuple[PastPrices, ...]:
        """See ports.Reader."""
        return self._reader.past(head, blocks)

    def with_more_ticks(self, snapshot: Snapshot, pools: Collection[str]) -> Snapshot:
        """See ports.Reader. A plan on these ticks is also executed on more ticks of a later
        snapshot.
        """
        return self._reader.with_more_ticks(snapshot, pools)


class PaperEvidence:
    """ports.EvidenceSource that screens tokens with the balances and allowances of the real wallet,
    since the paper wallet is not on the chain.
    """

    def __init__(self, source: EvidenceSource, chain: PaperChain) -> None:
        """Set the sources: `source` reads the real chain."""
        self._source = source
        self._chain = chain

    def gather(self, step: StepInput, plan: Plan) -> Evidence:
        """See ports.EvidenceSource."""
        real = self._chain.real(step.snapshot.head.hash)
        snapshot = replace(step.snapshot, holdings=(), allowances=())
        if real is not None:
            snapshot = replace(snapshot, holdings=real.holdings, allowances=real.allowances)
        return self._source.gather(replace(step, snapshot=snapshot), plan)


def paper_from_wallet(snapshot: Snapshot, tokens: Sequence[str]) -> PaperWallet:
    """Return a paper wallet with the real wallet's balances of `tokens`, allowances and native
    coin. Raises ConfigError for an unreadable balance.
    """
    raw = balances_of(snapshot)
    if unread := [token for token in tokens if token not in raw]:
        raise ConfigError(
            f"the balance of {unread[0]} cannot be read now", "try again, or begin with --start"
        )
    balances = tuple(Holding(token, raw[token]) for token in sorted(tokens))
    return PaperWallet(
        balances,
        snapshot.allowances,
        snapshot.native_wei,
        snapshot.nonce_latest,
        snapshot.head.number,
    )


def paper_from_amounts(snapshot: Snapshot, raw: Mapping[str, int], native_wei: int) -> PaperWallet:
    """Return a paper wallet with `raw` base units by token, and `native_wei`."""
    return PaperWallet(
        tuple(Holding(token, raw[token]) for token in sorted(raw)),
        (),
        native_wei,
        0,
        snapshot.head.number,
    )


def paper_from_value(
    step: StepInput, value: Fraction, native_wei: int, margin_raw: int = 0
) -> PaperWallet:
    """Return a paper wallet of `value` whole coins of the numeraire, spread over the targets at
    reference prices and rounded down, plus reserves. With futures.margin_in_weights, `margin_raw`
    of collateral in the margin account counts towards the target of its asset; if it exceeds that
    target, the wallet starts without the asset. Raises ConfigError for an asset without a price.
    """
    portfolio, references = step.portfolio, reference_prices(step)
    whole = value * 10**portfolio.numeraire.decimals
    collateral = collateral_token(futures_policy(step))
    if (policy := futures_policy(step)) is None or not policy.margin_in_weights:
        margin_raw = 0
    values = {
        asset.token.address: (whole + margin_raw) * asset.target_bps / BPS
        - (margin_raw if asset.token.address == collateral else 0)
        for asset in portfolio.assets
    }
    values = {token: max(Fraction(0), part) for token, part in values.items()}
    scale = whole / sum(values.values(), Fraction(0))
    raw = {}
    for asset in portfolio.assets:
        price = references.prices.get(asset.token.address)
        if price is None and asset.target_bps:
            raise ConfigError(
                f"--value: {asset.token.label} has no reference price now",
                "try again, or begin with --start",
            )
        raw[asset.token.address] = asset.reserve_raw
        if price is not None:
            raw[asset.token.address] += floor_int(values[asset.token.address] * scale / price.price)
    return paper_from_amounts(step.snapshot, raw, native_wei)
