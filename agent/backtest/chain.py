"""The simulated chain that transactions go to: a sender, and what each one did."""

from __future__ import annotations

from fractions import Fraction

from agent.backtest import router
from agent.backtest.keyless import unsigned
from agent.backtest.router import FAILED_UNITS, Effects, Reverted
from agent.backtest.wanted import ROUTER, WALLET
from agent.backtest.world import Fill, World, block_hash
from agent.model import Head, Receipt, SignedTx, UnsignedTx
from agent.ports import Simulation, TxSeen


class SimulatedChain:
    """ports.Sender over a world. Approvals are mined at once, swaps `latency_bars` after the bar they were sent at."""

    def __init__(self, world: World) -> None:
        self._world = world

    def head(self) -> Head:
        """See ports.Sender."""
        self._mine()
        return self._world.head()

    def block_hash(self, number: int) -> str | None:
        """See ports.Sender."""
        return block_hash(number) if number <= self._world.block else None

    def nonces(self, _owner: str) -> tuple[int, int]:
        """See ports.Sender."""
        self._mine()
        latest = self._world.wallet.nonce
        return latest, latest + len(self._world.pending)

    def simulate(self, tx: UnsignedTx, _sender: str) -> Simulation:
        """See ports.Sender."""
        try:
            done = self._run(tx)
        except Reverted as error:
            return Simulation(False, str(error), 0, self._world.head())
        return Simulation(True, "", done.gas, self._world.head())

    def send(self, signed: SignedTx) -> None:
        """See ports.Sender."""
        tx = unsigned(signed)
        swap = tx.to == ROUTER
        self._world.pending.append((self._world.bar + (self._world.settings.latency_bars if swap else 0), signed.hash, tx))
        self._mine()

    def look(self, tx_hash: str) -> TxSeen:
        """See ports.Sender."""
        self._mine()
        if (receipt := self._world.receipts.get(tx_hash)) is not None:
            return TxSeen("mined", receipt)
        return TxSeen("pending" if any(waits == tx_hash for _, waits, _ in self._world.pending) else "unknown", None)

    def _mine(self) -> None:
        """What is due at this bar is put into a block, each into one of its own."""
        world = self._world
        while world.pending and world.pending[0][0] <= world.bar:
            _, tx_hash, tx = world.pending.pop(0)
            world.begin_block()
            world.receipts[tx_hash] = self._apply(tx, tx_hash)

    def _run(self, tx: UnsignedTx) -> Effects:
        world = self._world
        wallet = world.wallet
        return router.run(tx.to, tx.data, wallet.balances, wallet.allowances, world.pools, world.now_s())

    def _apply(self, tx: UnsignedTx, tx_hash: str) -> Receipt:
        world, wallet = self._world, self._world.wallet
        wallet.nonce += 1
        try:
            done = self._run(tx)
        except Reverted:
            done = None
        units = FAILED_UNITS if done is None else done.gas
        wallet.native_wei -= units * world.gas_wei
        if done is not None:
            wallet.balances, wallet.allowances, world.pools = done.balances, done.allowances, done.pools
        world.fills.append(self._fill(tx, done, units))
        transfers = () if done is None else tuple(done.transfers)
        return Receipt(tx_hash, int(done is not None), world.block, block_hash(world.block), units, world.gas_wei, transfers)

    def _fill(self, tx: UnsignedTx, done: Effects | None, units: int) -> Fill:
        world = self._world
        prices = world.prices
        gas = units * world.gas_wei * prices[world.wanted.portfolio.wrapped_native]
        world.gas_paid += gas
        fees = lost = Fraction(0)
        for token_in, token_out, swapped in [] if done is None else done.swaps:
            fees += swapped.fee_raw * prices[token_in]
            lost += swapped.amount_in_raw * prices[token_in] - swapped.amount_out_raw * prices[token_out]
        moved: dict[str, int] = {}
        for one in [] if done is None else done.transfers:
            sign = (one.recipient == WALLET) - (one.sender == WALLET)
            moved[one.token] = moved.get(one.token, 0) + sign * one.raw
        turned = sum((abs(raw) * prices[token] for token, raw in moved.items()), Fraction(0)) / 2
        return Fill(world.bar, tx.to == ROUTER, done is not None, turned, fees, lost - fees, gas)
