"""Chain of paper trading: real blocks and exact pools, and a paper wallet. Nothing is sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from agent.backtest import router
from agent.backtest.router import (
    FAILED_SWAP_GAS,
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
    Plan,
    Pool,
    Receipt,
    SignedTx,
    Snapshot,
    StepInput,
    UnsignedTx,
)
from agent.paper.venue import PaperPerpetualProtocol, PaperVenueEffects
from agent.policy import minimum
from agent.policy.cash_flows.balance_changes import balances_of
from agent.ports import EvidenceSource, Reader, ReaderLayer, Simulation, TransactionStatus
from agent.reference import reference_prices
from agent.store.store import PaperStore
from agent.units import BPS, floor_int
from agent.venues.perpetual_protocol import decode_venue_call

NO_ACCOUNT_ANSWER = "paper trading began without a margin account"
MAX_RECEIPTS = 16
MAX_BLOCKS = 256
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
        store: PaperStore,
        reader: Reader,
        read_head: Callable[[], Head],
        addresses: RouterAddresses,
        venue: PaperPerpetualProtocol | None = None,
    ) -> None:
        """Set the sources: `reader` reads the real chain, `read_head` its newest header; neither
        can send. `venue` fills futures orders.
        """
        self._venue = venue
        self._store = store
        self._reader = reader
        self._read_head = read_head
        self._addresses = addresses
        self._newest_snapshot: Snapshot | None = None

    # reading
    def wallet(self) -> PaperWallet:
        """Return the current wallet. Raises OperatorNeeded before it was created."""
        return self._store.begun_wallet()

    def snapshot(self) -> Snapshot:
        """Return a snapshot of the real chain with the real wallet."""
        self._newest_snapshot = self._reader.snapshot()
        return self._newest_snapshot

    def real_snapshot_at(self, block_hash: str) -> Snapshot | None:
        """Return the newest real snapshot if it was read at this block; else None."""
        if self._newest_snapshot is not None and self._newest_snapshot.head.hash == block_hash:
            return self._newest_snapshot
        return None

    def with_paper_margin(self, snapshot: Snapshot) -> Snapshot:
        """Return a snapshot with the paper margin account, or the reason why there is none, in
        place of the real one.
        """
        paper_margin = self.wallet().margin
        reading = snapshot.layer(FuturesReading)
        if self._venue is None or reading.account is None:
            return snapshot
        if paper_margin is None:
            return snapshot.with_layer(
                replace(reading, account=None, unknown_reason=NO_ACCOUNT_ANSWER)
            )
        paper_account = self._venue.account(reading.account, paper_margin, snapshot.head)
        return snapshot.with_layer(replace(reading, account=paper_account))

    def opening_margin(self, snapshot: Snapshot, deposit_raw: int | None) -> PaperMargin | None:
        """Return the first margin account (see PaperPerpetualProtocol); None without futures."""
        if self._venue is None:
            return None
        return self._venue.opening_margin(
            snapshot.layer(FuturesReading).account, snapshot.head, deposit_raw
        )

    # ports.Sender
    def head(self) -> Head:
        """See ports.Sender."""
        head = self._read_head()
        self._catch_up(head)
        return head

    def block_hash(self, number: int) -> str | None:
        """See ports.Sender. Known only for blocks with a paper transaction; else None."""
        return dict(self.wallet().hash_by_block).get(number)

    def tagged_height(self, _tag: str) -> int:
        """See ports.Sender. Paper transactions are not undone."""
        return self.head().number

    def nonces(self, _owner: str) -> tuple[int, int]:
        """See ports.Sender."""
        self._catch_up(None)
        wallet = self.wallet()
        return wallet.nonce, wallet.nonce + len(wallet.pending_txs)

    def simulate(self, tx: UnsignedTx, _sender: str) -> Simulation:
        """See ports.Sender. Simulates at the pools of the newest block."""
        head = self._read_head()
        self._catch_up(head)
        snapshot = self._newest_snapshot
        if snapshot is None or snapshot.head.number < head.number:
            snapshot = self.snapshot()
        try:
            effects = self._effects_at(snapshot, tx)
        except TransactionReverted as error:
            return Simulation(False, str(error), 0, snapshot.head, reverted=True)
        return Simulation(True, "", effects.gas_units, snapshot.head)

    def _effects_at(
        self, snapshot: Snapshot, tx: UnsignedTx
    ) -> TransactionEffects | PaperVenueEffects:
        """Return the effects of a transaction, on more ticks if a swap needs them."""
        wallet = self.wallet()
        try:
            return self._execute(tx, wallet, _pools_by_address(snapshot), snapshot.head)
        except TicksExhausted:
            pools = _pools_by_address(self._with_more_ticks(snapshot))
            return self._execute(tx, wallet, pools, snapshot.head)

    def send(self, signed: SignedTx) -> None:
        """See ports.Sender. Replaces a pending transaction at the same nonce, as a mempool does.
        Raises OperatorNeeded for a used nonce.
        """
        wallet = self.wallet()
        tx = decode_unsigned(signed)
        if any(paper_tx.hash == signed.hash for paper_tx in wallet.pending_txs) or any(
            receipt.tx_hash == signed.hash for receipt in wallet.receipts
        ):
            return
        if tx.nonce < wallet.nonce:
            raise OperatorNeeded(
                f"nonce {tx.nonce} of the paper wallet is used",
                "remove the paper store to start over",
                code=ErrorCode.NONCE_USED,
            )
        sent_block = self._read_head().number
        if self._newest_snapshot is not None:
            sent_block = max(sent_block, self._newest_snapshot.head.number)
        other_pending_txs = tuple(
            paper_tx for paper_tx in wallet.pending_txs if paper_tx.tx.nonce != tx.nonce
        )
        pending_txs = tuple(
            sorted(
                (*other_pending_txs, PaperTx(signed.hash, tx, sent_block)),
                key=lambda paper_tx: paper_tx.tx.nonce,
            )
        )
        self._store.save(replace(wallet, pending_txs=pending_txs))

    def status_of(self, tx_hash: str) -> TransactionStatus:
        """See ports.Sender."""
        self._catch_up(None)
        wallet = self.wallet()
        for receipt in wallet.receipts:
            if receipt.tx_hash == tx_hash:
                return TransactionStatus("mined", receipt)
        is_pending = any(paper_tx.hash == tx_hash for paper_tx in wallet.pending_txs)
        return TransactionStatus("pending" if is_pending else "unknown", None)

    # filling
    def _catch_up(self, head: Head | None) -> None:
        """Execute pending transactions, once a later block exists."""
        wallet = self.wallet()
        if not wallet.pending_txs:
            return
        sent_block = wallet.pending_txs[0].sent_block
        head = head or self._read_head()
        if head.number <= sent_block:
            return
        snapshot = self.snapshot()
        if snapshot.head.number > sent_block:
            self._execute_block(wallet, snapshot)

    def _execute_block(self, wallet: PaperWallet, snapshot: Snapshot) -> None:
        """Execute the next nonces in one block, up to a transaction that was sent too late for it
        or pays too little.
        """
        try:
            wallet_after, pending_txs = self._execute_pending(
                wallet, _pools_by_address(snapshot), snapshot, may_read_ticks=True
            )
        except TicksExhausted:
            wallet_after, pending_txs = self._execute_pending(
                wallet,
                _pools_by_address(self._with_more_ticks(snapshot)),
                snapshot,
                may_read_ticks=False,
            )
        if len(pending_txs) < len(wallet.pending_txs):
            block_hashes = (*wallet.hash_by_block, (snapshot.head.number, snapshot.head.hash))[
                -MAX_BLOCKS:
            ]
            self._store.save(
                replace(
                    wallet_after,
                    pending_txs=tuple(pending_txs),
                    block=snapshot.head.number,
                    hash_by_block=block_hashes,
                )
            )

    def _execute_pending(
        self,
        wallet: PaperWallet,
        pools: dict[str, Pool],
        snapshot: Snapshot,
        *,
        may_read_ticks: bool,
    ) -> tuple[PaperWallet, list[PaperTx]]:
        """Return the wallet after the executed transactions, and those still pending. Raises
        TicksExhausted if a swap needs more ticks and `may_read_ticks` allows to read them.
        """
        pending_txs = list(wallet.pending_txs)
        while (
            pending_txs
            and pending_txs[0].tx.nonce == wallet.nonce
            and pending_txs[0].sent_block < snapshot.head.number
        ):
            gas_price_wei = _gas_price_wei(pending_txs[0].tx, snapshot.head)
            if gas_price_wei is None:
                break
            wallet, pools = self._apply(
                wallet, pending_txs.pop(0), pools, snapshot, gas_price_wei, may_read_ticks
            )
        return wallet, pending_txs

    def _with_more_ticks(self, snapshot: Snapshot) -> Snapshot:
        """Return the snapshot with more ticks of its V3 pools."""
        return self._reader.with_more_ticks(
            snapshot, [pool.address for pool in snapshot.pools if pool.tick_state is not None]
        )

    def _apply(
        self,
        wallet: PaperWallet,
        paper_tx: PaperTx,
        pools: dict[str, Pool],
        snapshot: Snapshot,
        gas_price_wei: int,
        may_read_ticks: bool,
    ) -> tuple[PaperWallet, dict[str, Pool]]:
        """Return the wallet and the pools after a transaction, which may have reverted."""
        effects: TransactionEffects | PaperVenueEffects | None
        head = snapshot.head
        data_bytes = len(paper_tx.tx.data) // 2 - 1
        try:
            effects = self._execute(paper_tx.tx, wallet, pools, head)
        except TransactionReverted as error:
            if may_read_ticks and isinstance(error, TicksExhausted):
                raise
            effects = None
        gas_units = min(paper_tx.tx.gas, FAILED_SWAP_GAS) if effects is None else effects.gas_units
        native_wei = (
            effects.native_wei if isinstance(effects, TransactionEffects) else wallet.native_wei
        )
        gas_cost_wei = gas_units * gas_price_wei + snapshot.max_fee_beyond_gas_wei(
            gas_units, data_bytes
        )
        if effects is not None and (gas_units > paper_tx.tx.gas or native_wei < gas_cost_wei):
            effects = None
            gas_units = paper_tx.tx.gas
            native_wei = wallet.native_wei
        receipt = Receipt(
            tx_hash=paper_tx.hash,
            status=0,
            block_number=head.number,
            block_hash=head.hash,
            gas_used=gas_units,
            effective_gas_price_wei=gas_price_wei,
            transfers=(),
            data_fee_wei=snapshot.expected_fee_beyond_gas_wei(
                gas_units, _planned_bytes(effects, data_bytes)
            ),
            block_time_s=head.timestamp_s,
        )
        if effects is not None:
            receipt = replace(receipt, status=1, transfers=tuple(effects.transfers))
        if isinstance(effects, TransactionEffects):
            receipt = replace(receipt, wrap_transfers=tuple(effects.wrap_transfers))
        elif effects is not None:
            receipt = replace(receipt, fills=effects.fills, funding=effects.funding)
        wallet = replace(
            wallet,
            nonce=wallet.nonce + 1,
            native_wei=max(0, native_wei - receipt.gas_cost_wei),
            receipts=(*wallet.receipts, receipt)[-MAX_RECEIPTS:],
        )
        if effects is None:
            return wallet, pools
        spender = self._addresses.router
        if isinstance(effects, PaperVenueEffects) and self._venue is not None:
            spender = self._venue.contracts.vault
            wallet = replace(wallet, margin=effects.margin)
            pools_after = pools
        elif isinstance(effects, TransactionEffects):
            pools_after = effects.pools
        holdings = tuple(Holding(token, raw) for token, raw in sorted(effects.balances.items()))
        allowances = (
            *(allowance for allowance in wallet.allowances if allowance.spender != spender),
            *(Allowance(token, spender, raw) for token, raw in sorted(effects.allowances.items())),
        )
        return replace(wallet, balances=holdings, allowances=allowances), pools_after

    def _execute(
        self, tx: UnsignedTx, wallet: PaperWallet, pools: Mapping[str, Pool], head: Head
    ) -> TransactionEffects | PaperVenueEffects:
        balances_raw = {holding.token: holding.raw for holding in wallet.balances}
        if (
            self._venue is not None
            and (call := decode_venue_call(tx, self._venue.contracts)) is not None
        ):
            snapshot = self._newest_snapshot
            real_account = None if snapshot is None else snapshot.layer(FuturesReading).account
            if wallet.margin is None or real_account is None:
                raise TransactionReverted("the margin account is unknown")
            vault = self._venue.contracts.vault
            return self._venue.execute(
                tx,
                call,
                balances_raw,
                {
                    vault_allowance.token: vault_allowance.raw
                    for vault_allowance in wallet.allowances
                    if vault_allowance.spender == vault
                },
                self._venue.account(real_account, wallet.margin, head),
                wallet.margin,
                head,
            )
        return router.execute_transaction(
            tx,
            balances_raw,
            {
                allowance.token: allowance.raw
                for allowance in wallet.allowances
                if allowance.spender == self._addresses.router
            },
            pools,
            head.timestamp_s,
            self._addresses,
            wallet.native_wei,
        )


def _pools_by_address(snapshot: Snapshot) -> dict[str, Pool]:
    return {pool.address: pool for pool in snapshot.pools}


def _planned_bytes(effects: TransactionEffects | PaperVenueEffects | None, data_bytes: int) -> int:
    """Return the calldata that a plan counts for a transaction with these effects, so that its data
    fee is the expected one; `data_bytes`, its own, where plans count no legs.
    """
    if not isinstance(effects, TransactionEffects):
        return data_bytes
    return minimum.LEG_BYTES * (len(effects.swaps) + 1) if effects.swaps else data_bytes


def _gas_price_wei(tx: UnsignedTx, head: Head) -> int | None:
    """Return the gas price of the transaction in a block; None if it pays too little."""
    base_fee_wei = head.base_fee_wei or 0
    if tx.max_fee_wei is None:
        gas_price_wei = tx.gas_price_wei or 0
        return gas_price_wei if gas_price_wei >= base_fee_wei else None
    if tx.max_fee_wei < base_fee_wei:
        return None
    return min(tx.max_fee_wei, base_fee_wei + (tx.max_priority_fee_wei or 0))


class PaperReader(ReaderLayer):
    """ports.Reader of the real chain with the paper wallet. Reading executes no transaction. A plan
    on more ticks is also executed on more ticks of a later snapshot.
    """

    def __init__(self, reader: Reader, chain: PaperChain) -> None:
        """Set the sources: `reader` reads the real chain."""
        self.reader = reader
        self._chain = chain

    def snapshot(self) -> Snapshot:
        """See ports.Reader. Raises Retryable while the endpoints are behind the wallet's last
        trade.
        """
        snapshot = self._chain.snapshot()
        wallet = self._chain.wallet()
        if snapshot.head.number < wallet.block:
            raise Retryable(
                f"the endpoints agree on block {snapshot.head.number} only, which is behind our"
                f" transaction in {wallet.block}",
                "try again; if a local chain began anew, its ledger is of no use here: begin a new"
                " portfolio in a folder of its own",
                code=ErrorCode.LAG,
            )
        snapshot = self._chain.with_paper_margin(snapshot)
        raw_by_token = {holding.token: holding.raw for holding in wallet.balances}
        raw_by_allowance = {
            (allowance.token, allowance.spender): allowance.raw for allowance in wallet.allowances
        }
        return replace(
            snapshot,
            native_wei=wallet.native_wei,
            nonce_latest=wallet.nonce,
            nonce_pending=wallet.nonce + len(wallet.pending_txs),
            holdings=tuple(
                Holding(holding.token, raw_by_token.get(holding.token, 0))
                for holding in snapshot.holdings
            ),
            allowances=tuple(
                Allowance(
                    real_allowance.token,
                    real_allowance.spender,
                    raw_by_allowance.get((real_allowance.token, real_allowance.spender), 0),
                )
                for real_allowance in snapshot.allowances
            ),
            positions=(),
        )


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
        real_snapshot = self._chain.real_snapshot_at(step.snapshot.head.hash)
        snapshot = replace(step.snapshot, holdings=(), allowances=())
        if real_snapshot is not None:
            snapshot = replace(
                snapshot, holdings=real_snapshot.holdings, allowances=real_snapshot.allowances
            )
        return self._source.gather(replace(step, snapshot=snapshot), plan)


def wallet_from_real(snapshot: Snapshot, tokens: Sequence[str]) -> PaperWallet:
    """Return a paper wallet with the real wallet's balances of `tokens`, allowances and native
    coin. Raises ConfigError for an unreadable balance.
    """
    balances_raw = balances_of(snapshot)
    if unread_tokens := [token for token in tokens if token not in balances_raw]:
        raise ConfigError(
            f"the balance of {unread_tokens[0]} cannot be read now",
            "try again, or begin with --start",
        )
    holdings = tuple(Holding(token, balances_raw[token]) for token in sorted(tokens))
    return PaperWallet(
        holdings,
        snapshot.allowances,
        snapshot.native_wei,
        snapshot.nonce_latest,
        snapshot.head.number,
    )


def wallet_from_amounts(
    snapshot: Snapshot, raw_by_token: Mapping[str, int], native_wei: int
) -> PaperWallet:
    """Return a paper wallet with `raw_by_token` base units by token, and `native_wei`."""
    return PaperWallet(
        tuple(Holding(token, raw_by_token[token]) for token in sorted(raw_by_token)),
        (),
        native_wei,
        0,
        snapshot.head.number,
    )


def wallet_from_value(
    step: StepInput, value_coins: Fraction, native_wei: int, margin_raw: int = 0
) -> PaperWallet:
    """Return a paper wallet of `value_coins` whole coins of the numeraire, spread over the targets
    at reference prices and rounded down, plus reserves. With futures.margin_in_weights,
    `margin_raw` of collateral in the margin account counts towards the target of its asset; if it
    exceeds that target, the wallet starts without the asset. Raises ConfigError for an asset
    without a price.
    """
    portfolio = step.portfolio
    references = reference_prices(step)
    wallet_value = value_coins * 10**portfolio.numeraire.decimals
    collateral = collateral_token(futures_policy(step))
    if (policy := futures_policy(step)) is None or not policy.margin_in_weights:
        margin_raw = 0
    target_values = {
        asset.token.address: (wallet_value + margin_raw) * asset.target_bps / BPS
        - (margin_raw if asset.token.address == collateral else 0)
        for asset in portfolio.assets
    }
    target_values = {
        token: max(Fraction(0), target_value) for token, target_value in target_values.items()
    }
    target_scale = wallet_value / sum(target_values.values(), Fraction(0))
    raw_by_token = {}
    for asset in portfolio.assets:
        reference_price = references.reference_by_token.get(asset.token.address)
        if reference_price is None and asset.target_bps:
            raise ConfigError(
                f"--value: {asset.token.label} has no reference price now",
                "try again, or begin with --start",
            )
        raw_by_token[asset.token.address] = asset.reserve_raw
        if reference_price is not None:
            raw_by_token[asset.token.address] += floor_int(
                target_values[asset.token.address] * target_scale / reference_price.price
            )
    return wallet_from_amounts(step.snapshot, raw_by_token, native_wei)
