"""Environment in which a backtest runs the live step: reader, evidence, signer, chain and store,
all simulated.

Engine, journal and bookkeeping are those of a live run.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial

from agent.amm.swap_errors import BeyondKnownTicks, ContractRevert
from agent.backtest import router
from agent.backtest.data import PriceTable
from agent.backtest.futures.venue import CLEARING_HOUSE, CONTRACTS, VAULT, VenueEffects
from agent.backtest.result import SimulatedTaxRuns
from agent.backtest.router import (
    FAILED_SWAP_GAS,
    NullSigner,
    TransactionEffects,
    TransactionReverted,
    decode_unsigned,
)
from agent.backtest.settings import ROUTER, WALLET, AnswerLog, BacktestSpec, SimulationSettings
from agent.backtest.world import (
    CHAIN_ID,
    BacktestSwap,
    SimulatedWorld,
    TransactionCost,
    block_hash,
)
from agent.engine import run_cycle
from agent.execution.executor import JournaledExecutor
from agent.execution.step_context import StepOutcome, StepReaders, StepTransactor
from agent.execution.step_memory import read_memory
from agent.execution.submission.settings import SubmissionSettings
from agent.execution.submission.signable_nonces import max_tip_by_nonce
from agent.execution.submission.submitter import Submitter
from agent.layers.drafts import layer_composers
from agent.layers.futures.state import FuturesConfig, planned_futures
from agent.layers.inputs import assemble_input
from agent.layers.signals.host import SignalHost
from agent.layers.signals.memory import SignalReader
from agent.layers.signals.policy import trigger_view
from agent.layers.tax.state import TaxState
from agent.model import (
    AgentCycle,
    Allowance,
    AnsweredTrigger,
    CodeHash,
    DataFeeQuote,
    Evidence,
    ExpectedBalances,
    FeedRound,
    FuturesReading,
    Head,
    History,
    Holding,
    Intent,
    NoTradeZone,
    PastPrices,
    PerpFill,
    Plan,
    PricePoint,
    Receipt,
    ScreenedToken,
    SecondQuote,
    SignedTx,
    Snapshot,
    StepInput,
    TokenFinding,
    Transfer,
    UnsignedTx,
    Valuation,
    active_layer_parts,
)
from agent.policy.minimum import ACTION_BYTES, APPROVAL_BYTES, LEG_BYTES
from agent.policy.risk_estimates import price_history_and_step_s
from agent.policy.triggers.rules import required_history_s
from agent.ports import PreparedTransaction, Simulation, TransactionStatus
from agent.signing.rules import SigningRules
from agent.store import Store, open_memory_store
from agent.store.accounts.balances import BalanceStore
from agent.store.accounts.ledger_sums import ValuationStore
from agent.store.database.connection import MemoryDatabase
from agent.store.journal.intents import IntentStore
from agent.store.journal.steps import StepStore
from agent.store.prices import PriceStore
from agent.units import HOUR_S
from agent.venues.composer import RouterComposer
from agent.venues.perpetual_protocol import decode_venue_call

OPERATORS = ("simulated",)


class SimulatedReader:
    """ports.Reader of a simulated world: pools and feeds at the bar's prices, and the simulated
    wallet.
    """

    def __init__(self, world: SimulatedWorld) -> None:
        self._world = world

    def snapshot(self) -> Snapshot:
        """See ports.Reader."""
        world = self._world
        wallet = world.wallet
        tokens = [token.address for token in world.tokens]
        allowances = [Allowance(token, ROUTER, wallet.allowances.get(token, 0)) for token in tokens]
        contract_addresses = [ROUTER, *tokens, *world.pools]
        if (venue := world.venue) is not None:
            allowances.append(Allowance(venue.setup.collateral.address, VAULT, venue.allowance_raw))
            contract_addresses += [CLEARING_HOUSE, VAULT]
        return Snapshot(
            head=world.head(),
            now_s=world.now_s(),
            owner=WALLET,
            native_wei=wallet.native_wei,
            nonce_latest=wallet.nonce,
            nonce_pending=wallet.nonce + len(world.pending_transactions),
            priority_fee_wei=0,
            gas_price_wei=world.gas_price_wei,
            holdings=tuple(Holding(token, wallet.balances.get(token, 0)) for token in tokens),
            allowances=tuple(allowances),
            pools=tuple(world.pools.values()),
            feeds=world.feed_rounds,
            code_hashes=tuple(
                CodeHash(address, code_hash(address)) for address in contract_addresses
            ),
            unreadable_items=(),
            operators=OPERATORS,
            http_request_count=0,
            data_fee=world.data_fee,
            layers=() if venue is None else (FuturesReading(venue.book.account),),
        )

    def with_more_ticks(self, snapshot: Snapshot, pools: Collection[str]) -> Snapshot:
        """Return the snapshot unchanged: all ticks are known."""
        return snapshot

    def past_prices(self, head: Head, block_count: int) -> tuple[PastPrices, ...]:
        """Return the preceding block_count, at the prices of the same bar (ports.Reader). Feed rounds
        are never later than their block, which would invalidate them.
        """
        world = self._world
        heads = (
            Head(
                head.chain_id,
                block_number,
                block_hash(block_number),
                head.timestamp_s - (head.number - block_number),
                head.base_fee_wei,
            )
            for block_number in range(head.number - 1, head.number - 1 - block_count, -1)
        )
        pools = tuple(world.pools.values())
        return tuple(
            PastPrices(
                past_head,
                tuple(_limit_round_time(feed, past_head.timestamp_s) for feed in world.feed_rounds),
                pools,
            )
            for past_head in heads
        )


class SimulatedEvidence:
    """ports.EvidenceSource of a simulated world.

    Nothing is paused, all code is pinned, and every token transfers the exact amount. Second quotes
    come from the pools themselves, leg by leg.
    """

    def __init__(self, world: SimulatedWorld) -> None:
        self._world = world

    def gather(self, step: StepInput, plan: Plan) -> Evidence:
        """See ports.EvidenceSource."""
        tokens = dict.fromkeys(
            token for leg in plan.legs for token in (leg.token_in, leg.token_out)
        )
        return Evidence(
            paused=False,
            pause_reason="",
            pinned_code_hashes=tuple(
                (code.address, code.hash) for code in step.snapshot.code_hashes
            ),
            second_quotes=self._quotes(plan),
            has_quorum=True,
            now_s=self._world.now_s(),
            screened_tokens=tuple(ScreenedToken(token, TokenFinding.CLEAN) for token in tokens),
        )

    def _quotes(self, plan: Plan) -> tuple[SecondQuote, ...]:
        pool_by_address = dict(self._world.pools)
        second_quotes = []
        for leg_index, leg in enumerate(plan.legs):
            try:
                swap_result = pool_by_address[leg.pool].swap(leg.token_in, leg.amount_in_raw)
            except (ContractRevert, BeyondKnownTicks) as error:
                second_quotes.append(SecondQuote(leg_index, None, error.message))
                continue
            pool_by_address[leg.pool] = swap_result.pool_after
            second_quotes.append(SecondQuote(leg_index, swap_result.amount_out_raw))
        return tuple(second_quotes)


def _limit_round_time(feed: FeedRound, at_s: int) -> FeedRound:
    """Return the round, with its time limited to `at_s`."""
    if feed.updated_at_s <= at_s:
        return feed
    return replace(feed, started_at_s=at_s, updated_at_s=at_s)


def code_hash(address: str) -> str:
    """Return a constant stand-in for the code hash of an address."""
    return "0x" + hashlib.sha256(address.encode()).hexdigest()


class SimulatedComposer(RouterComposer):
    """RouterComposer of a backtest. The simulated venue takes note of futures plans, and grants
    leave out the gap of plans, which nobody reads and takes a tenth of a step to prove.
    """

    def __init__(self, chain: SimulatedChain, world: SimulatedWorld) -> None:
        super().__init__(chain, WALLET, world, layer_composers(world.venue, WALLET))
        self._venue = world.venue

    def layer_transaction(self, step: StepInput, plan: Plan) -> PreparedTransaction:
        """See RouterComposer."""
        if self._venue is not None and (futures := planned_futures(plan)) is not None:
            self._venue.note_plan(futures, plan.decision.reason)
        return super().layer_transaction(step, plan)

    def swap_transaction(self, step: StepInput, plan: Plan) -> PreparedTransaction:
        """See RouterComposer."""
        return super().swap_transaction(step, replace(plan, gap=None))


class SimulatedChain:
    """ports.Sender of a simulated world.

    Approvals and margin moves are mined immediately, swaps and futures orders `latency_bars` after
    the bar in which they were sent.
    """

    def __init__(self, world: SimulatedWorld) -> None:
        self._world = world

    def head(self) -> Head:
        """See ports.Sender."""
        self._mine()
        return self._world.head()

    def block_hash(self, number: int) -> str | None:
        """See ports.Sender."""
        return block_hash(number) if number <= self._world.block_number else None

    def tagged_height(self, _tag: str) -> int:
        """See ports.Sender. There are no reorgs."""
        return self._world.block_number

    def nonces(self, _owner: str) -> tuple[int, int]:
        """See ports.Sender."""
        self._mine()
        latest_nonce = self._world.wallet.nonce
        return latest_nonce, latest_nonce + len(self._world.pending_transactions)

    def simulate(self, tx: UnsignedTx, _sender: str) -> Simulation:
        """See ports.Sender."""
        try:
            effects = self._effects_of(tx)
        except TransactionReverted as error:
            return Simulation(False, str(error), 0, self._world.head())
        return Simulation(True, "", effects.gas_units, self._world.head())

    def send(self, signed: SignedTx) -> None:
        """See ports.Sender."""
        tx = decode_unsigned(signed)
        due_bar = self._world.bar
        if tx.to in (ROUTER, CLEARING_HOUSE):
            due_bar += self._world.settings.latency_bars
        self._world.pending_transactions.append((due_bar, signed.hash, tx))
        self._mine()

    def status_of(self, tx_hash: str) -> TransactionStatus:
        """See ports.Sender."""
        self._mine()
        if (receipt := self._world.receipts.get(tx_hash)) is not None:
            return TransactionStatus("mined", receipt)
        is_pending = any(
            pending_hash == tx_hash for _, pending_hash, _ in self._world.pending_transactions
        )
        return TransactionStatus("pending" if is_pending else "unknown", None)

    def _mine(self) -> None:
        """Mine the transactions due at this bar, each in its own block."""
        world = self._world
        while world.pending_transactions:
            due_bar, tx_hash, tx = world.pending_transactions[0]
            if due_bar > world.bar or tx.max_gas_price_wei < world.gas_price_wei:
                break
            del world.pending_transactions[0]
            world.begin_block()
            world.receipts[tx_hash] = self._apply(tx, tx_hash)

    def _effects_of(self, tx: UnsignedTx) -> TransactionEffects | VenueEffects:
        world = self._world
        wallet = world.wallet
        if world.venue is not None and (call := decode_venue_call(tx, CONTRACTS)) is not None:
            return world.venue.effects_of_call(call, wallet.balances, world.now_s())
        return router.execute_transaction(
            tx, wallet.balances, wallet.allowances, world.pools, world.now_s()
        )

    def _apply(self, tx: UnsignedTx, tx_hash: str) -> Receipt:
        world = self._world
        wallet = self._world.wallet
        wallet.nonce += 1
        transfers = tuple[Transfer, ...]()
        fills = tuple[PerpFill, ...]()
        effects: TransactionEffects | VenueEffects | None
        try:
            effects = self._effects_of(tx)
        except TransactionReverted:
            effects = None
        if effects is not None and effects.gas_units > tx.gas:  # out of gas
            effects = None
        gas_units = min(tx.gas, FAILED_SWAP_GAS)
        gas_price_wei = min(world.gas_price_wei, tx.max_gas_price_wei)
        if effects is not None:
            gas_units = effects.gas_units
            transfers = tuple(effects.transfers)
            wallet.balances = effects.balances
        if isinstance(effects, TransactionEffects):
            wallet.allowances = effects.allowances
            world.pools = effects.pools
        elif effects is not None and world.venue is not None:
            world.venue.apply(effects)
            fills = effects.fills
        data_fee_wei = 0 if world.data_fee is None else _data_fee_wei(world.data_fee, tx, effects)
        cost_wei = gas_units * gas_price_wei + data_fee_wei
        wallet.native_wei -= cost_wei
        world.record_cost(self._transaction_cost(tx, effects, cost_wei))
        return Receipt(
            tx_hash,
            int(effects is not None),
            world.block_number,
            block_hash(world.block_number),
            gas_units,
            gas_price_wei,
            transfers,
            fills=fills,
            data_fee_wei=data_fee_wei,
            block_time_s=world.now_s(),
        )

    def _transaction_cost(
        self, tx: UnsignedTx, effects: TransactionEffects | VenueEffects | None, gas_cost_wei: int
    ) -> TransactionCost:
        world = self._world
        prices = world.prices
        gas_value = gas_cost_wei * prices[world.spec.portfolio.wrapped_native]
        is_swap = tx.to == ROUTER
        if not isinstance(effects, TransactionEffects):
            zero_value = Fraction(0)
            return TransactionCost(
                world.bar,
                world.bar_time_s,
                zero_value,
                zero_value,
                zero_value,
                gas_value,
                effects is not None,
                is_swap,
            )
        token_by_address = {token.address: token for token in world.tokens}
        swaps = tuple(
            BacktestSwap(
                token_by_address[token_in],
                token_by_address[token_out],
                swap_result.amount_in_raw,
                swap_result.amount_out_raw,
                swap_result.amount_in_raw * prices[token_in],
                swap_result.fee_raw * prices[token_in],
            )
            for token_in, token_out, swap_result in effects.swaps
        )
        fees_value = sum((swap.fee for swap in swaps), Fraction(0))
        swap_loss = sum(
            (swap.value - swap.bought_raw * prices[swap.bought.address] for swap in swaps),
            Fraction(0),
        )
        net_raw_by_token: dict[str, int] = {}
        for transfer in effects.transfers:
            sign = (transfer.recipient == WALLET) - (transfer.sender == WALLET)
            net_raw_by_token[transfer.token] = (
                net_raw_by_token.get(transfer.token, 0) + sign * transfer.raw
            )
        turnover = (
            sum((abs(raw) * prices[token] for token, raw in net_raw_by_token.items()), Fraction(0))
            / 2
        )
        return TransactionCost(
            world.bar,
            world.bar_time_s,
            turnover,
            fees_value,
            swap_loss - fees_value,
            gas_value,
            True,
            is_swap,
            swaps,
        )


def _data_fee_wei(
    quote: DataFeeQuote, tx: UnsignedTx, effects: TransactionEffects | VenueEffects | None
) -> int:
    """Return the data fee of a transaction, wei; a failed swap pays for one leg."""
    if tx.to == ROUTER:
        leg_count = len(effects.swaps) if isinstance(effects, TransactionEffects) else 1
        return quote.expected_data_fee_wei(LEG_BYTES * (leg_count + 1))
    is_approval = isinstance(effects, TransactionEffects)
    return quote.expected_data_fee_wei(APPROVAL_BYTES if is_approval else ACTION_BYTES)


class SimulatedSteps(StepStore):
    """Steps of a simulation, stored without the gap of their plans."""

    def end(
        self, step_id: str, decision: str, reason: str, plan: Plan | None, outcome: str
    ) -> None:
        """See StepStore."""
        plan_without_gap = None if plan is None else replace(plan, gap=None)
        super().end(step_id, decision, reason, plan_without_gap, outcome)


class SimulatedIntents(IntentStore):
    """Intents of a simulation. Only the newest intent is checked, since there are no reorgs."""

    def intents_ended_in_block(self, limit: int) -> Sequence[Intent]:
        """See IntentStore."""
        return super().intents_ended_in_block(min(limit, 1))


class SimulatedBalances(BalanceStore):
    """Balances of a simulation. Unchanged balances are not recorded again."""

    db: MemoryDatabase

    def record_explained(
        self,
        snapshot: Snapshot,
        balances: Mapping[str, int],
        is_explained: Callable[[ExpectedBalances], bool],
    ) -> tuple[ExpectedBalances, bool]:
        """See BalanceStore."""
        answers_key = "balances"
        balances_expected = self.expected()
        if self.db.cached_answers.get(answers_key) == balances and is_explained(balances_expected):
            return balances_expected, True
        balances_expected, is_recorded = super().record_explained(snapshot, balances, is_explained)
        if is_recorded:
            self.db.cached_answers[answers_key] = dict(balances)
        return balances_expected, is_recorded


class NoValuations(ValuationStore):
    """Discards valuations. The result of a simulation has its own."""

    def record(
        self, valuation: Valuation, is_forced: bool, changed_blocks: Collection[int] = frozenset()
    ) -> bool:
        """Record nothing."""
        return False


class NoPrices(PriceStore):
    """Holds no prices, for policies without triggers and allocators that read them. A cycle records
    none where has_cycle_prices is true.
    """

    def has_cycle_prices(self, numeraire: str, at_s: int) -> bool:
        """See PriceStore."""
        return True


@dataclass(frozen=True, slots=True)
class PricesBeforeBar(PriceStore):
    """Prices without those of the world's bar, which a cycle of it has recorded already: a second
    cycle of the bar would decide by the closes that it trades at.
    """

    world: SimulatedWorld

    def prices_between(
        self, numeraire: str, since_s: int, until_s: int, interval_s: int = HOUR_S
    ) -> tuple[PricePoint, ...]:
        """See PriceStore."""
        until_s = min(until_s, self.world.now_s() - 1)
        return PriceStore.prices_between(self, numeraire, since_s, until_s, interval_s)


def simulation_store(wrapped_native: str, keeps_prices: bool) -> Store:
    """Open a store in memory without valuations, and without prices unless `keeps_prices`."""
    store = open_memory_store(CHAIN_ID, WALLET, wrapped_native)
    store.steps = SimulatedSteps(store.db)
    store.journal = SimulatedIntents(store.db)
    store.balances = SimulatedBalances(store.db, fold_depth_blocks=0)  # there are no reorgs
    store.valuations = NoValuations(store.db)
    if not keeps_prices:
        store.prices = NoPrices(store.db)
    return store


@dataclass(frozen=True, slots=True)
class SimulationContext:
    """Readers and transactor over a simulated world instead of a chain."""

    world: SimulatedWorld
    store: Store
    readers: StepReaders
    transactor: StepTransactor
    signals: AnswerLog

    def run_bar_cycle(self) -> StepOutcome:
        """Run one cycle at the world's bar. Raises EndOfPrices if it waits beyond the last bar."""
        return run_cycle(self.readers, AgentCycle(), self.store, self.transactor)


@contextmanager
def open_simulation(world: SimulatedWorld) -> Iterator[SimulationContext]:
    """Open a context with its own store, deleted afterwards, for a world that is at a bar."""
    store = simulation_store(world.spec.portfolio.wrapped_native, price_history_s(world.spec) > 0)
    signal_host = SignalHost(world.spec.signal_folder)
    try:
        store.balances.record_prior_day((), 0)  # the address has no history before the run
        signals = AnswerLog(world.spec.signal_runner or signal_host)
        yield _build_context(world, store, signals)
    finally:
        signal_host.close()
        store.close()


def tx_validity_s(spec: BacktestSpec, settings: SimulationSettings, table: PriceTable) -> int:
    """Return the validity of a transaction, extended by the bars until it is mined."""
    delay_bars = settings.latency_bars + 1 if settings.latency_bars else 0
    return spec.execution.deadline_s + delay_bars * table.interval_s


def price_history_s(spec: BacktestSpec) -> int:
    """Return how far back a step reads recorded prices, in seconds: for triggers and zones, and for
    allocators. 0 if nothing does.
    """
    triggers = [trigger for layer in spec.layers for trigger in layer.triggers]
    allocators = [owned.allocator for layer in spec.layers for owned in layer.allocators]
    if spec.portfolio.allocator is not None:
        allocators.append(spec.portfolio.allocator)
    return max(
        required_history_s(spec.policy, triggers),
        price_history_and_step_s(spec.policy, triggers)[0],
        *(allocator.window_s for allocator in allocators),
    )


class TriggerAnswers:
    """Answers of a function that is the trigger: one for each bar, from the first on at which each
    asset has had a price before.
    """

    def __init__(self, world: SimulatedWorld) -> None:
        self._world = world
        self._is_due_by_bar: dict[int, bool] = {}

    def apply(self, step: StepInput) -> StepInput:
        """Return the step with the answer at the world's bar; as it is if no function is asked."""
        world = self._world
        trigger = step.policy.trigger
        function = world.spec.trigger_function
        if function is None or not isinstance(trigger, AnsweredTrigger):
            return step
        if world.bar not in self._is_due_by_bar:
            view = trigger_view(step, trigger.window_s, max(world.table.interval_s, HOUR_S))
            self._is_due_by_bar[world.bar] = all(view.prices.values()) and function(view)
        answered_trigger = replace(trigger, is_due=self._is_due_by_bar[world.bar])
        return replace(step, policy=replace(step.policy, trigger=answered_trigger))


def _build_context(world: SimulatedWorld, store: Store, signals: AnswerLog) -> SimulationContext:
    spec = world.spec
    execution = replace(spec.execution, deadline_s=tx_validity_s(spec, world.settings, world.table))
    has_hedge = world.venue is not None and world.venue.setup.policy.hedge_policy is not None
    weighs_tax = bool(spec.tax.rate_bps) and isinstance(spec.policy.trigger, NoTradeZone)
    tax_runs = SimulatedTaxRuns(store, spec.portfolio, spec.tax, is_needed=has_hedge or weighs_tax)
    trigger_answers = TriggerAnswers(world)
    decision_store = copy(store)
    decision_store.prices = PricesBeforeBar(store.db, world)

    def assemble(snapshot: Snapshot, history: History) -> StepInput:
        if world.applied_transfers and any(
            flow.is_open for flow in history.cash_flows.unexplained_transfers
        ):
            # classify the owner's transfers immediately
            store.balances.classify(None, None, snapshot.now_s)
            history = store.budgets.history(snapshot.head.timestamp_s)
        input_without_memory = StepInput(
            snapshot,
            spec.portfolio,
            spec.policy,
            spec.reference,
            spec.limits,
            execution,
            history,
            layer_configs=active_layer_parts(
                (
                    FuturesConfig(None if world.venue is None else world.venue.setup.policy),
                    *spec.layers,
                )
            ),
        )
        delisted_tokens = [
            ScreenedToken(token, TokenFinding.PAUSED, "no current price")
            for token in sorted(world.excluded_tokens)
        ]
        tax_state = TaxState(tax_runs.tax_inputs(snapshot.head.timestamp_s))
        state_readers = (SignalReader(signals), lambda _, __: tax_state)
        step = assemble_input(
            input_without_memory,
            read_memory(input_without_memory, decision_store, delisted_tokens, state_readers),
        )
        return trigger_answers.apply(step)

    chain = SimulatedChain(world)
    draw_random = random.Random(world.settings.seed).random
    tokens = tuple(token.address for token in world.tokens)
    wrapped_native = spec.portfolio.wrapped_native
    gas_price_ceiling_wei = spec.limits.gas_price_wei
    signing_rules = SigningRules(
        CHAIN_ID,
        WALLET,
        (ROUTER,),
        tokens,
        execution.deadline_s,
        gas_price_ceiling_wei,
        wrapped_native=wrapped_native,
    )
    if world.venue is not None:
        signing_rules = replace(signing_rules, futures=world.venue.signing_rules())
    submission_settings = SubmissionSettings(
        confirmations=1,
        poll_s=1.0,
        mined_timeout_s=math.inf,
        final_timeout_s=math.inf,
        max_fee_wei=gas_price_ceiling_wei,
        gas_per_day_wei=spec.limits.gas_per_day_wei,
    )
    signer = NullSigner(signing_rules, partial(max_tip_by_nonce, store.journal))
    executor = JournaledExecutor(
        Submitter(
            store.journal, store.budgets, signer, chain, world, submission_settings, lambda: False
        )
    )
    step_readers = StepReaders(
        SimulatedReader(world),
        assemble,
        store.budgets.history,
        SimulatedEvidence(world),
        world,
        draw_random,
    )
    return SimulationContext(
        world,
        store,
        step_readers,
        StepTransactor(executor, SimulatedComposer(chain, world), lambda _: True),
        signals,
    )
