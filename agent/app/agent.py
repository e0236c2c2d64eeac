"""The agent on a chain and a store: status, quote, plan, rebalance, swap, run."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

from agent import engine, wiring
from agent.amm.lp import own_changes
from agent.amm.swap_errors import KnownTicksExceeded
from agent.app.cycles import (
    AgentRun,
    Confirm,
    ControlHandler,
    Progress,
    confirm_once,
    continue_execution,
    ignore_progress,
    never_confirm,
    run_periodically,
)
from agent.app.describe import PlanSandwichRisk, binding_parameters, plan_sandwich_risk
from agent.app.documents import fill, plans
from agent.app.documents.past.frames import AgentHistory
from agent.app.documents.past.step_history import store_history
from agent.app.documents.status import PortfolioStatus
from agent.app.start.doctor.endpoint_checks import endpoint_records
from agent.calls import checked_call
from agent.chain.rpc import Transport
from agent.config.load import load_config
from agent.config.loaded import LoadedConfig
from agent.config.tables.fields import parse_address, parse_duration_s
from agent.config.tables.limits import accepted_limit_texts
from agent.errors import ConfigError, TrimtabError
from agent.execution import evaluation
from agent.execution.approvals import (
    PendingAndAllowances,
    cancel_and_revoke,
    pending_and_allowances,
)
from agent.execution.step_context import StepOutcome, TickExtender, add_past_prices
from agent.figures import as_sentence
from agent.layers import documents as layer_documents
from agent.layers.futures.requests import CloseHedge, Deleverage, MarginAccountRequest, OpenHedge
from agent.layers.liquidity.policy import valuation
from agent.layers.strategies.policy.accounting import paused_strategies
from agent.layers.strategies.state import CapitalSplit, StrategiesState
from agent.model import (
    AgentCycle,
    FuturesPolicy,
    Intent,
    IntentKind,
    PlanRequest,
    Portfolio,
    StepInput,
    Swap,
    as_lp_action,
)
from agent.planning import planner, proposals
from agent.planning.planner import Quote
from agent.policy import minimum
from agent.policy.cash_flows.cash_limit import max_live_value_warnings
from agent.policy.decide import current_drifts
from agent.policy.drift import overweight_messages
from agent.ports import Clock, SigningKey
from agent.signing.keys import SuppliedKey
from agent.units import DAY_S, NATIVE, Amount, Price, Token, parse_raw, plain_amount
from agent.wiring.price_windows import fill_price_windows
from agent.wiring.signed_proposals import executable_dropped, unstopped_texts
from agent.wiring.waiting_proposals import used_nonce_text, waiting_proposals

if TYPE_CHECKING:
    from agent.app.documents.plans import (
        EndpointDocument,
        LivePlanDocument,
        QuoteDocument,
        RealisedChangeDocument,
    )


MIN_INTERVAL_S = 1


class Agent:
    """Operations of a connected agent. No plan is sent unless `send` is set and `confirm` returns
    True. With `send`, earlier open transactions are settled first, and may be sent again, with a
    higher fee, or cancelled; `cancel_and_revoke` and `resync_nonce` ask nothing.

    >>> from agent import open_agent
    >>> with open_agent("trimtab.toml") as agent:
    ...     outcome = agent.plan()
    >>> outcome.kind
    <OutcomeKind.PLANNED: 'planned'>
    """

    def __init__(self, context: wiring.AgentContext) -> None:
        self.context = context

    @property
    def portfolio(self) -> Portfolio:
        """Tokens and targets."""
        return self.context.portfolio

    @property
    def on_paper(self) -> bool:
        """True if the agent trades on paper only."""
        return self.context.loaded_config.is_paper

    def step_input(self) -> StepInput:
        """Read a snapshot and assemble the step input: config, stored history, confirmed prices.
        What a new store lacks is read and stored: the wallet's last 24 h, its unknown positions.
        """
        readers = self.context.readers
        snapshot = readers.reader.snapshot()
        return add_past_prices(readers, readers.step_input_at(snapshot))

    def status(self) -> PortfolioStatus:
        """Return the status of the portfolio and the current decision.

        >>> agent.status()
        PortfolioStatus(block ...: WETH 100.00 %, USDC 0.00 %; rebalance)
        """
        step_input = self.step_input()
        decision_result = proposals.decision_after_plan(step_input)
        switch_state = self.context.kill_switch.read()
        proposals_and_texts = tuple(waiting_proposals(self.context, step_input))
        used_text = used_nonce_text(self.context, step_input.snapshot.nonce_latest)
        warnings = (
            *(text for _, text in proposals_and_texts),
            *([as_sentence(f"{used_text}.")] if used_text and not proposals_and_texts else []),
            *([] if switch_state.paused is not False else self._executable_texts()),
            *minimum.size_warnings(self.portfolio),
            *overweight_messages(decision_result.drifts),
            *valuation.position_warnings(step_input.snapshot, step_input.portfolio),
            *paused_strategies(
                step_input.portfolio,
                step_input.config(CapitalSplit),
                step_input.layer(StrategiesState),
            ).values(),
            *max_live_value_warnings(step_input, decision_result.drifts),
            *accepted_limit_texts(self.context.config.limits),
        )
        return PortfolioStatus(
            step_input,
            decision_result,
            switch_state.paused is not False,
            switch_state.reason,
            warnings,
            self.endpoints(),
            switch_state.hard,
            ()
            if switch_state.paused is False
            else unstopped_texts(self.context.store, step_input.snapshot.nonce_latest),
            self._day_old_prices(step_input.snapshot.head.timestamp_s),
            self.context.store.requests.active_stop(),
            proposals_and_texts[-1][0] if proposals_and_texts else "",
        )

    def _executable_texts(self) -> list[str]:
        dropped = executable_dropped(self.context.loaded_config, self.context.store)
        if dropped is None or dropped[1].has_too_few:
            return []
        intent, effect = dropped
        return [
            f'The proposal {intent.id} ("{intent.note}") waits no longer, but can be executed: trimtab'
            f" cancel --send {effect.text}."
        ]

    def _day_old_prices(self, now_s: int) -> Mapping[str, Price]:
        """Return the prices by token of the newest valuation that is 24 to 27 h old."""
        valuations = self.context.store.valuations.between(now_s - DAY_S * 9 // 8, now_s - DAY_S)
        return (
            {holding.token: holding.price for holding in valuations[-1].holdings}
            if valuations
            else {}
        )

    def quote(
        self, token_in: str, token_out: str, amount: Amount, pool: str | None = None
    ) -> QuoteDocument:
        """Quote the sale of `amount` whole coins of `token_in`, over all pools or in `pool`: a text,
        a whole number, a Decimal, or a float such as 0.5, whose digits are exact. The result is that
        of `trimtab quote --json`. Reads more ticks if the quote passes the known ones. Raises
        ConfigError.

        >>> int(agent.quote("WETH", "USDC", "0.1")["amount_out_raw"]) > 0
        True
        """
        step_input, quote = self.quote_with_input(token_in, token_out, amount, pool)
        return plans.quote_document(quote, step_input.snapshot, step_input.portfolio)

    def quote_with_input(
        self, token_in: str, token_out: str, amount: Amount, pool: str | None = None
    ) -> tuple[StepInput, Quote]:
        """Quote as `quote`; return the input that it was computed from, too."""
        sold_token = self.token(token_in, "--in")
        bought_token = self.token(token_out, "--out")
        amount_raw = self._parse_amount(amount, sold_token)
        step_input = self.step_input()
        pool_address = None if pool is None else parse_address(pool, "--pool")
        try:
            return step_input, planner.quote(
                step_input, sold_token.address, bought_token.address, amount_raw, pool_address
            )
        except KnownTicksExceeded:
            input_with_ticks = TickExtender(self.context.readers.reader)(step_input)
            if input_with_ticks is None:
                raise
        return input_with_ticks, planner.quote(
            input_with_ticks, sold_token.address, bought_token.address, amount_raw, pool_address
        )

    def plan(self) -> StepOutcome:
        """Plan a rebalance now and run every guard. Sends nothing, and records no step.

        >>> agent.plan().kind
        <OutcomeKind.PLANNED: 'planned'>
        """
        return evaluation.evaluate(
            self.context.with_user_present.readers, proposals.propose_rebalance
        )

    def rebalance(
        self,
        *,
        send: bool = False,
        confirm: Confirm = never_confirm,
        progress: Progress = ignore_progress,
    ) -> StepOutcome:
        """Run one cycle on a user's request; with `send` also the remaining slices of a gradual
        execution. Futures triggers that require a confirmation act too.

        >>> agent.rebalance().kind  # send=True, confirm=… trades
        <OutcomeKind.PLANNED: 'planned'>
        """
        for line in fill_price_windows(self.context, progress):
            progress(line)
        context = self.context.with_user_present
        if not send:
            return engine.run_cycle(context.readers, AgentCycle(), context.store, None)
        wallet = wiring.open_wallet_session(context, confirm_once(confirm), progress)
        with wallet.open_transactor() as transactor:
            first_outcome = engine.run_cycle(
                context.readers, AgentCycle(), context.store, transactor
            )
        return continue_execution(wallet, first_outcome)

    def swap(
        self,
        token_in: str,
        token_out: str,
        amount: Amount,
        *,
        send: bool = False,
        confirm: Confirm = never_confirm,
        progress: Progress = ignore_progress,
    ) -> StepOutcome:
        """Swap `amount` whole coins (as of `quote`), under the same guards as a rebalance.

        >>> agent.swap("WETH", "USDC", "0.1").kind  # send=True, confirm=… trades
        <OutcomeKind.PLANNED: 'planned'>
        """
        sold_token = self.token(token_in, "--in")
        bought_token = self.token(token_out, "--out")
        return self._run_request(
            Swap(sold_token.address, bought_token.address, self._parse_amount(amount, sold_token)),
            send,
            confirm,
            progress,
        )

    def adjust_futures(
        self,
        request: MarginAccountRequest | Deleverage | OpenHedge | CloseHedge,
        *,
        send: bool = False,
        confirm: Confirm = never_confirm,
        progress: Progress = ignore_progress,
    ) -> StepOutcome:
        """Move margin, change the delegate, reduce positions, or open or close a hedge, under the
        same guards as a step. Raises ConfigError without [futures].
        """
        self.futures_policy()
        return self._run_request(request, send, confirm, progress)

    def futures_policy(self) -> FuturesPolicy:
        """Return the config's futures policy. Raises ConfigError without [futures]."""
        if self.context.futures_policy is None:
            raise ConfigError(
                "futures: the config has no [futures]", "add it as docs/futures.md describes"
            )
        return self.context.futures_policy

    def run(
        self,
        *,
        send: bool = False,
        confirm: Confirm = never_confirm,
        every: str = "10m",
        once: bool = False,
        progress: Progress = ignore_progress,
        controls: ControlHandler | None = None,
    ) -> Generator[StepOutcome | TrimtabError, None, None]:
        """Run cycles until the bot is stopped, and yield the outcome of each.

        Transient errors are yielded too: network errors, refusals before sending, a wallet in use
        by another process (raised with `once`), after the first good cycle each PassingFault; then
        the next cycle comes soon (retry_pause_s). Errors that need an operator are raised, and
        ConfigError for an invalid `every`.

        With `send` the key is loaded once, and the wallet's lock is held only during a cycle:
        between cycles other commands may act, and each cycle starts from the store as they left it.
        `once` runs a single cycle and takes no service lock. A hard pause ends the wait between
        cycles; the next cycle then cancels pending transactions and revokes allowances. A newly
        confirmed config is adopted between two actions, or ConfigChanged is raised
        (config_versions.with_confirmed_config). `progress` receives READING_STAGE before each
        cycle. With `send`, `controls` are carried out before each cycle, and a queued control ends
        the wait.

        >>> [outcome.kind.value for outcome in agent.run(once=True)]
        ['planned']
        """
        interval_s = run_interval_s(every)
        with self.open_run(
            send=send,
            confirm=confirm,
            interval_s=interval_s,
            once=once,
            progress=progress,
            controls=controls,
        ) as agent_run:
            for outcome_or_error in run_periodically(
                agent_run.cycle,
                interval_s,
                self.context.clock,
                self.context.readers.chance,
                agent_run.ends_wait,
                lambda: agent_run.urgent_pause_s,
            ):
                if outcome_or_error is None:
                    return
                try:
                    yield outcome_or_error
                finally:  # also of a caller that takes no further outcome
                    agent_run.flush_store()
                if once:
                    return

    @contextmanager
    def open_run(
        self,
        *,
        send: bool,
        confirm: Confirm,
        interval_s: int,
        once: bool = False,
        progress: Progress = ignore_progress,
        controls: ControlHandler | None = None,
        asks_passphrase: bool = True,
    ) -> Iterator[AgentRun]:
        """Open a run whose cycles the caller begins, as `run` does. Without `asks_passphrase` a key
        whose passphrase is neither in a variable nor in the keyring raises ConfigError.
        """
        wallet_session: AbstractContextManager[wiring.WalletSession | None] = nullcontext()
        if send:
            self.require_not_stopped()
        if send and once:
            wallet_session = nullcontext(
                wiring.open_wallet_session(self.context, confirm, progress)
            )
        elif send:
            wallet_session = wiring.open_service_session(
                self.context, confirm, progress, asks_passphrase=asks_passphrase
            )
        with wallet_session as wallet:
            yield AgentRun(
                self,
                wallet,
                interval_s,
                once,
                progress,
                controls,
                lambda report: fill_price_windows(self.context, report),
            )

    def require_not_stopped(self) -> None:
        """Raise Refused while the bot is stopped or stopping. Other commands remain available to
        the owner.
        """
        self.context.store.requests.require_not_stopped()

    def history(self, limit: int = 20) -> AgentHistory:
        """Return the newest steps with transactions and costs, and valuations, newest first.

        >>> agent.history(limit=5).frame().columns[:3]
        ['time', 'step', 'decision']
        """
        return AgentHistory(store_history(self.context.store, limit))

    def pending_and_allowances(self) -> PendingAndAllowances:
        """Return pending transactions and open allowances that a hard pause would cancel and revoke
        now.
        """
        return pending_and_allowances(self.context.without_venue_waits.readers, self.context.store)

    def cancel_and_revoke(self, reason: str, progress: Progress = ignore_progress) -> StepOutcome:
        """Cancel pending transactions and revoke allowances under a hard pause."""
        with wiring.open_wallet_session(self.context, never_confirm, progress).open_transactor(
            cancels_only=True
        ) as transactor:
            return cancel_and_revoke(
                self.context.without_venue_waits.readers, self.context.store, transactor, reason
            )

    def resync_nonce(self, *, nothing_lost: bool = False) -> int:
        """Resync to the chain's nonce and return it, after the wallet was used elsewhere or a
        backup was restored. The next cycle reads the wallet's unknown transactions from the chain,
        unless `nothing_lost`. Raises Retryable while a transaction is pending or open.
        """
        with wiring.open_transactor(self.context, never_confirm, ignore_progress) as transactor:
            nonce = transactor.executor.resync_nonce()
            self.context.store.adopt_copy()
            self.context.store.cycles.give_way("the nonce was adopted")
            if nothing_lost:
                self.context.store.balances.record_prior_day((), nonce)
            return nonce

    def _run_request(
        self, request: PlanRequest, send: bool, confirm: Confirm, progress: Progress
    ) -> StepOutcome:
        with (
            wiring.open_transactor(self.context, confirm, progress) if send else nullcontext()
        ) as transactor:
            return engine.run_cycle(self.context.readers, request, self.context.store, transactor)

    def token(self, symbol_or_address: str, option: str) -> Token:
        """Return the configured token with this symbol or address; the case of a symbol counts only
        if several differ in nothing else. Raises ConfigError naming the `option` for any other
        name.
        """
        tokens = [*(asset.token for asset in self.portfolio.assets), *self.portfolio.hubs]
        for token in tokens:
            if (
                symbol_or_address in (token.symbol, token.address)
                or symbol_or_address.lower() == token.address.lower()
            ):
                return token
        case_matches = [
            token
            for token in tokens
            if symbol_or_address.isascii() and token.symbol.lower() == symbol_or_address.lower()
        ]
        if len(case_matches) == 1:
            return case_matches[0]
        raise ConfigError(
            f"{option}: {symbol_or_address!r} is not a configured token",
            f"choose from {', '.join(token.label for token in tokens)}",
        )

    def _parse_amount(self, amount: Amount, token: Token) -> int:
        amount_raw = parse_raw(plain_amount(amount, "--amount"), token.decimals, "--amount")
        if amount_raw == 0:
            raise ConfigError("--amount must be above 0", "for example --amount 0.1")
        return amount_raw

    def weights_at(self, step_input: StepInput) -> dict[str, int]:
        """Return weights in bps by symbol."""
        return {
            self.portfolio.token(drift.token).label: drift.weight_bps
            for drift in current_drifts(step_input)
        }

    def drifts(self, step_input: StepInput) -> dict[str, int]:
        """Return weight less target in bps by symbol."""
        return {
            self.portfolio.token(drift.token).label: drift.drift_bps
            for drift in current_drifts(step_input)
        }

    def realised_changes(self, outcome: StepOutcome) -> list[RealisedChangeDocument]:
        """Return the planned and realised change of each balance in base units, by the receipts of
        swaps, liquidity actions and unwraps.
        """
        planned_raw_by_token: dict[str, int] = {}
        realised_raw_by_token: dict[str, int] = {}
        for intent in outcome.transactions:
            if intent.receipt is None or intent.kind not in (
                IntentKind.SWAP,
                IntentKind.LIQUIDITY,
                IntentKind.UNWRAP,
            ):
                continue
            owner = outcome.step_input.snapshot.owner
            change_raw_by_token = {
                NATIVE: intent.native_change_wei(owner, self.portfolio.wrapped_native)
            } | intent.receipt.net_transfers(owner)
            for token, raw in self._planned_changes(intent).items():
                planned_raw_by_token[token] = planned_raw_by_token.get(token, 0) + raw
                realised_raw_by_token[token] = realised_raw_by_token.get(
                    token, 0
                ) + change_raw_by_token.get(token, 0)
        return [
            {
                "symbol": self.portfolio.token(token).label,
                "planned_raw": str(raw),
                "realised_raw": str(realised_raw_by_token[token]),
            }
            for token, raw in planned_raw_by_token.items()
        ]

    def _planned_changes(self, intent: Intent) -> dict[str, int]:
        """Return the balance changes by token that the intent's grant predicts, in base units."""
        grant = self.context.store.journal.grant(intent.id)
        if grant.layer_action is not None:
            return dict(
                zip(
                    (grant.layer_action.token0, grant.layer_action.token1),
                    own_changes.expected_wallet_changes(as_lp_action(grant.layer_action)),
                    strict=True,
                )
            )
        return {} if grant.plan is None else grant.plan.wallet_changes()

    def endpoints(self) -> tuple[EndpointDocument, ...]:
        """Return operator, state, score, latency and last problem of each endpoint."""
        return tuple(endpoint_records(self.context.endpoints))

    def sandwich_risk(self, outcome: StepOutcome) -> PlanSandwichRisk:
        """Return the visibility of the plan's transaction, and its largest possible sandwich
        loss.
        """
        return plan_sandwich_risk(self.context.config, outcome)

    def plan_document(
        self,
        outcome: StepOutcome,
        extra_fields: Mapping[str, object] = MappingProxyType({}),
        *,
        send_allowed: bool,
    ) -> LivePlanDocument:
        """Return the document of an outcome, with its transactions if sending was allowed, and with
        the `extra_fields` keys.
        """
        live_document = cast(
            "LivePlanDocument",
            {
                **(
                    plans.rebalance_document(outcome, self.realised_changes(outcome))
                    if send_allowed
                    else plans.plan_document(outcome)
                ),
                **extra_fields,
            },
        )
        if self.on_paper:
            live_document["book_kind"] = "paper"
        if send_allowed and outcome.input_after is not None:
            live_document["weights_after_bps"] = self.weights_at(outcome.input_after)
        live_document["endpoints"] = list(self.endpoints())
        live_document["sandwich"] = fill(
            plans.SandwichDocument, self.sandwich_risk(outcome), self.portfolio
        )
        return live_document

    def shown_plan_fields(self, outcome: StepOutcome) -> dict[str, object]:
        """Return the keys that layers add to the document of a plan that is made to be shown. May
        ask services outside and wait seconds for them.
        """
        plan_fields: dict[str, object] = {}
        for layer in layer_documents.LAYERS:
            plan_fields |= layer.live_plan_keys(self.context.config, outcome)
        return plan_fields

    def confirmed_parameters(self) -> dict[str, str]:
        """Return all parameters that bind the transaction, for the owner to confirm."""
        return binding_parameters(
            self.context.config,
            self.context.portfolio_with_positions,
            self.context.execution.router,
        )


def run_interval_s(every: str) -> int:
    """Return the seconds between two cycles of a run. Raises ConfigError below a second."""
    interval_s = parse_duration_s(every, "--every")
    if interval_s < MIN_INTERVAL_S:
        raise ConfigError(f"--every: {every!r} is shorter than one second", "for example 10m")
    return interval_s


@contextmanager
def open_agent(
    config: LoadedConfig | Path | str = "trimtab.toml",
    *,
    transports: Sequence[Transport] | None = None,
    clock: Clock | None = None,
    key: SigningKey | None = None,
    record_folder: Path | None = None,
    allows_undeployed_rebalancer: bool = False,
) -> Iterator[Agent]:
    """Connect to chain and store; close them at the end of the block.

    `key` replaces the config's signing key, `record_folder` the folder of its [record]. With
    `allows_undeployed_rebalancer` the config may name a Rebalancer that is not on the chain yet.
    """
    loaded_config = load_config(config)
    with wiring.open_context(
        loaded_config,
        transports,
        clock,
        record_folder=record_folder,
        allows_undeployed_rebalancer=allows_undeployed_rebalancer,
    ) as context:
        yield Agent(context if key is None else replace(context, key_source=SuppliedKey(key)))


@checked_call
def snapshot(config: LoadedConfig | Path | str = "trimtab.toml") -> StepInput:
    """Read the chain and the store, and return the step input."""
    with open_agent(config) as agent:
        return agent.step_input()


@checked_call
def quote(
    token_in: str,
    token_out: str,
    amount: Amount,
    config: LoadedConfig | Path | str = "trimtab.toml",
    pool: str | None = None,
) -> QuoteDocument:
    """Quote a swap now."""
    with open_agent(config) as agent:
        return agent.quote(token_in, token_out, amount, pool)


@checked_call
def plan(config: LoadedConfig | Path | str = "trimtab.toml") -> StepOutcome:
    """Plan a rebalance now."""
    with open_agent(config) as agent:
        return agent.plan()


@checked_call
def step(
    config: LoadedConfig | Path | str = "trimtab.toml",
    *,
    send: bool = False,
    confirm: Confirm = never_confirm,
) -> StepOutcome:
    """Run one cycle of the agent; sends only with `send` and a `confirm` that returns True."""
    with open_agent(config) as agent:
        return agent.rebalance(send=send, confirm=confirm)
