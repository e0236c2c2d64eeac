"""Composes judged plans into unsigned transactions with their grants: nonce, fees, gas,
deadline.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from types import MappingProxyType

from agent.chain import tokens
from agent.errors import ErrorCode, PassingFault, Refused, UnsendableTransaction
from agent.model import (
    MAX_BLOCK_LEAD_S,
    NATIVE_VENUE,
    Head,
    IntentKind,
    Leg,
    LegPlace,
    Payout,
    Plan,
    PoolMaker,
    Portfolio,
    Rebalance,
    StepInput,
    TopUp,
    UnsignedTx,
    Verdict,
)
from agent.policy.cash_flows import transfers
from agent.policy.native_coin import data_fee_cap_wei
from agent.ports import Approval, Clock, Grant, PreparedTransaction, Sender
from agent.reference import ReferencePrices, price_ranges, reference_prices
from agent.reference.floors import fair_floor
from agent.signing.batches import BatchedCall, encode_batch
from agent.signing.calldata import WITHDRAW, data_bytes
from agent.signing.deployment_rules import CREATE2_DEPLOYER, encode_deployment
from agent.signing.oracle_rules import encode_observations
from agent.signing.payout_rules import encode_payout
from agent.signing.terms import gas_keys, tip_range_wei
from agent.units import BPS, NATIVE, decimal_text, floor_int
from agent.venues import calldata
from agent.venues.allowances import (
    approval_note,
    build_approval,
    label_and_decimals,
    revocations,
)
from agent.venues.calldata import RebalancerTerms, min_balance_changes
from agent.venues.deployment import rebalancer_address, rebalancer_init_code, rebalancer_init_hash
from agent.venues.drafts import LayerComposer, TxDraft
from agent.venues.gas_fees import gas_fees


def prices_with_native(portfolio: Portfolio, references: ReferencePrices) -> dict[str, Fraction]:
    """Return reference prices by token, numeraire base units per base unit. The native coin has the
    price of its wrapped token.
    """
    prices = references.price_by_token
    if portfolio.wrapped_native in prices:
        prices[NATIVE] = prices[portfolio.wrapped_native]
    return prices


def rebalancer_terms(step: StepInput, plan: Plan) -> RebalancerTerms:
    """Return the conditions of `plan` at reference prices.

    The value floor is the total of the legs' minimums, or the loss of limits.plan_cost on the value
    sold if that is smaller, so the realised cost has the same limit as the predicted one. It is
    lowered by one base unit of the numeraire for the rounding of prices. Raises Refused if a token
    has no reference price.
    """
    price_by_token = prices_with_native(step.portfolio, reference_prices(step))
    min_change_by_token = min_balance_changes(plan.legs)
    if unpriced_tokens := [token for token in min_change_by_token if token not in price_by_token]:
        raise Refused(
            f"no reference price of {', '.join(unpriced_tokens)}",
            remedy="give it a feed, or list it in portfolio.assets",
            code=ErrorCode.REFERENCE_PRICE,
        )
    prices = {token: price_by_token[token] for token in min_change_by_token}
    value_floor = sum(
        (change_raw * prices[token] for token, change_raw in min_change_by_token.items()),
        Fraction(0),
    )
    if step.limits.plan_cost_bps is not None:
        sale_legs = [
            leg
            for leg in plan.legs
            if leg.source is LegPlace.WALLET
            and not (leg.venue == NATIVE_VENUE and leg.sink is leg.source)
        ]
        sold_value = sum(
            (leg.amount_in_raw * prices[leg.token_in] for leg in sale_legs), Fraction(0)
        )
        value_floor = max(value_floor, -sold_value * Fraction(step.limits.plan_cost_bps, BPS))
    return RebalancerTerms(prices, floor_int(value_floor) - 1)


GAS_MARGIN = Fraction(5, 4)
"""Gas limit as a multiple of the estimate, because crossed ticks can change between simulation and
inclusion.
"""
MAX_APPROVAL_GAS = 500_000
"""Largest gas limit of an approval; most need 50,000. A token that burns more could use up the
day's gas budget.
"""
MAX_EXIT_GAS_MULTIPLE = 4
"""Largest gas of an exit, as a multiple of its planned gas, so that a token cannot use up the day's
gas budget.
"""


class RouterComposer:
    """Implements ports.Composer for the router of the config: SwapRouter02, or our Rebalancer;
    actions in a layer are composed by `layers`. `maker_by_venue` is who makes the pools of each
    venue, for the Rebalancer. With `batch_contract` swaps and their approvals are one call of it.
    """

    def __init__(
        self,
        sender: Sender,
        wallet: str,
        clock: Clock,
        layers: Sequence[LayerComposer] = (),
        maker_by_venue: Mapping[str, PoolMaker] = MappingProxyType({}),
        batch_contract: str | None = None,
    ) -> None:
        self._sender = sender
        self._wallet = wallet
        self._clock = clock
        self._layers = layers
        self._maker_by_venue = maker_by_venue
        self._batch_contract = batch_contract

    def missing_approvals(self, step: StepInput, plan: Plan) -> Sequence[Approval]:
        """Return the exact approvals that the plan lacks, for the router of its swaps or its
        first action in a layer.
        """
        if isinstance(plan.decision, TopUp):
            return ()
        for layer in self._layers:
            if layer.composes(plan):
                return layer.missing_approvals(step, plan)
        router = step.execution.router
        needed_amounts = tokens.needed_approvals(plan, step.snapshot, router)
        return [
            build_approval(step, token, router, needed_raw) for token, needed_raw in needed_amounts
        ]

    def allowance_resets(self, step: StepInput) -> Sequence[Approval]:
        """Return approvals that set every open allowance to zero."""
        return revocations(step)

    def approval_transaction(self, step: StepInput, approval: Approval) -> PreparedTransaction:
        """Compose an approval of the exact amount."""
        token = approval.token
        spender = approval.spender
        approved_raw = approval.raw
        draft = TxDraft(
            token,
            tokens.encode_approve(spender, approved_raw),
            IntentKind.APPROVE,
            approval_note(step.portfolio, approval),
            approval_terms=(token, spender, approved_raw),
        )
        draft = replace(draft, layer_action=approval.layer_action, layer_grant=approval.layer_grant)
        approval_tx = self._prepare(step, draft)
        max_gas_units = MAX_APPROVAL_GAS + step.snapshot.max_data_gas(len(draft.data) // 2 - 1)
        if approval_tx.tx.gas > max_gas_units:
            verdict = Verdict("gas", f"{approval_tx.tx.gas} gas", f"{max_gas_units} gas", False)
            raise UnsendableTransaction(
                f'"{approval_tx.note}" would burn {approval_tx.tx.gas} gas',
                (verdict,),
                "inspect the token's approve function",
            )
        return approval_tx

    def oracle_transaction(
        self, step: StepInput, pool: str, observation_count: int
    ) -> PreparedTransaction:
        """Compose an increase of a V3 pool's price observations to `observation_count`. Raises
        Refused if the simulation fails.
        """
        action_note = f"increase the price observations of {pool} to {observation_count}"
        return self._prepare(
            step,
            TxDraft(
                pool,
                encode_observations(observation_count),
                IntentKind.ORACLE,
                action_note,
                oracle_growth=(pool, observation_count),
            ),
        )

    def deployment_transaction(self, step: StepInput) -> PreparedTransaction:
        """Compose the deployment of our Rebalancer. Raises Refused if the simulation fails."""
        return self._prepare(
            step,
            TxDraft(
                CREATE2_DEPLOYER,
                encode_deployment(rebalancer_init_code()),
                IntentKind.DEPLOY,
                f"deploy the Rebalancer at {rebalancer_address()}",
                init_code_hash=rebalancer_init_hash(),
            ),
        )

    def payout_transaction(self, step: StepInput, payout: Payout) -> PreparedTransaction:
        """Compose a payout, bounded by the remainder of limits.payout_per_day. Raises Refused if
        the simulation fails.
        """
        payout = replace(payout, limit_left_raw=transfers.max_payout_raw(step, payout.token))
        token = step.portfolio.token(payout.token)
        note = f"pay {decimal_text(payout.raw, token.decimals)} {token.label} to {payout.to}"
        if payout.token == NATIVE:
            draft = TxDraft(payout.to, "0x", IntentKind.PAYOUT, note, value_wei=payout.raw)
        else:
            calldata_hex = encode_payout(payout.to, payout.raw)
            draft = TxDraft(payout.token, calldata_hex, IntentKind.PAYOUT, note)
        return self._prepare(step, replace(draft, payout=payout))

    def layer_transaction(self, step: StepInput, plan: Plan) -> PreparedTransaction:
        """Compose the plan's first action in a layer. Raises Refused if the plan has expired, or
        the simulation fails.
        """
        head = self._unexpired_head(step, plan)
        layer_composer = next(layer for layer in self._layers if layer.composes(plan))
        draft_or_transaction = layer_composer.compose(step, plan, head)
        return (
            draft_or_transaction
            if isinstance(draft_or_transaction, PreparedTransaction)
            else self._prepare(step, draft_or_transaction)
        )

    def joins_approvals(self, plan: Plan, approvals: Sequence[Approval]) -> bool:
        """True if a batch has the approvals and the swaps of the plan. Resets to zero, which some
        tokens refuse, and swaps of native coin, which a batch does not send, are on their own.
        """
        traded_tokens = {token for leg in plan.legs for token in (leg.token_in, leg.token_out)}
        return (
            self._batch_contract is not None
            and not any(layer.composes(plan) for layer in self._layers)
            and all(approval.raw > 0 for approval in approvals)
            and NATIVE not in traded_tokens
        )

    def swap_transaction(self, step: StepInput, plan: Plan) -> PreparedTransaction:
        """Compose the whole plan as one transaction, with the missing approvals that it joins.
        Raises Refused if the plan has expired, or the simulation fails.
        """
        head = self._unexpired_head(step, plan)
        if isinstance(plan.decision, TopUp):
            return self._prepare(step, _top_up_draft(step.portfolio, plan.decision.raw, plan))
        note = _trade_note(step.portfolio, plan)
        if step.execution.router_kind not in ("swap_router_02", "rebalancer"):
            raise Refused(
                f"execution.router: {step.execution.router_kind!r} is not known",
                remedy="use swap_router_02 or rebalancer",
            )
        try:
            draft = self._swap_draft(step, plan, note, head.timestamp_s + step.execution.deadline_s)
        except Refused as refusal:
            raise UnsendableTransaction(
                refusal.message, refusal.verdicts, refusal.remedy, code=refusal.code
            ) from None
        if self._batch_contract is not None:
            approvals = self.missing_approvals(step, plan)
            if approvals and self.joins_approvals(plan, approvals):
                draft = _batched_draft(step.portfolio, self._batch_contract, approvals, draft)
        return self._prepare(step, draft)

    def _swap_draft(self, step: StepInput, plan: Plan, note: str, deadline_s: int) -> TxDraft:
        """Return the call of the router. Raises Refused for legs that the router cannot run."""
        terms = None
        if step.execution.router_kind == "swap_router_02":
            calldata_hex = calldata.encode_multicall(plan, self._wallet, deadline_s)
        else:
            terms = rebalancer_terms(step, plan)
            tier_by_pool = {pool.address: pool.tier for pool in step.snapshot.pools}
            calldata_hex = calldata.encode_rebalance(
                plan, deadline_s, terms, self._maker_by_venue, tier_by_pool
            )
        return TxDraft(
            step.execution.router,
            calldata_hex,
            IntentKind.SWAP,
            note,
            plan,
            deadline_s=deadline_s,
            rebalancer_terms=terms,
            value_wei=calldata.wrapped_native_wei(plan),
            min_gas_units=plan.gas_units,
        )

    def require_unexpired(self, step: StepInput, plan: Plan) -> None:
        """Raise Refused once the plan has expired, because a late confirmation does not count
        (T14).
        """
        self._unexpired_head(step, plan)

    def _unexpired_head(self, step: StepInput, plan: Plan) -> Head:
        """Return the head; raise Refused once the plan has expired."""
        head = self._head(step)
        if head.number > plan.expires_block:
            verdict = Verdict(
                "expiry", f"block {head.number}", f"block {plan.expires_block}", False
            )
            raise Refused(
                f"the plan expired at block {plan.expires_block}; the head is {head.number}",
                (verdict,),
                "plan again",
            )
        return head

    def _prepare(self, step: StepInput, draft: TxDraft) -> PreparedTransaction:
        plan = draft.plan
        note = draft.note
        is_not_approval = draft.kind is not IntentKind.APPROVE
        emergency_limits = draft.emergency_limits
        next_nonce, next_pending_nonce = self._sender.nonces(self._wallet)
        if next_nonce != next_pending_nonce:
            raise PassingFault(
                f"the wallet has {next_pending_nonce - next_nonce} pending transaction(s) from nonce {next_nonce} on",
                "wait for them, or cancel them",
            )
        if is_not_approval and next_nonce != step.snapshot.nonce_latest:
            verdict = Verdict(
                "nonce", str(next_nonce), f"{step.snapshot.nonce_latest}, as agreed", False
            )
            raise Refused(
                "the wallet's nonce is not that of the plan's snapshot",
                (verdict,),
                "plan again from a new snapshot",
            )
        head = self._head(step)
        chain_id = step.snapshot.head.chain_id
        least_tip_wei, max_tip_wei = tip_range_wei(chain_id)
        # Use the quorum's header, because one endpoint must not decide the fees (T2).
        fees = gas_fees(
            step.snapshot.head,
            max(least_tip_wei, step.snapshot.priority_fee_wei),
            step.snapshot.gas_price_wei,
            limit_wei=step.limits.gas_price_wei
            if emergency_limits is None
            else emergency_limits.max_gas_price_wei,
            priority_cap_wei=max_tip_wei,
            limit_key=gas_keys(emergency_limits is not None)[0],
        )
        fee_fields = fees.max_fee_wei, fees.max_priority_fee_wei, fees.gas_price_wei
        tx = UnsignedTx(chain_id, next_nonce, draft.to, draft.value_wei, draft.data, 0, *fee_fields)
        simulation = self._sender.simulate(tx, self._wallet)
        if not simulation.ok:
            failure_reason = draft.explain_failure(simulation.reason)
            verdict = Verdict("simulation", failure_reason, "success", False)
            error_type = UnsendableTransaction if simulation.reverted else Refused
            raise error_type(
                f'simulation of "{note}" fails: {failure_reason}',
                (verdict,),
                "nothing was sent; plan again from a new snapshot",
            )
        max_data_gas_units = step.snapshot.max_data_gas(len(tx.data) // 2 - 1)
        max_gas_units = (
            MAX_EXIT_GAS_MULTIPLE * (0 if plan is None else plan.gas_units) + max_data_gas_units
        )
        if plan is not None and plan.is_exit and simulation.gas > max_gas_units:
            raise UnsendableTransaction(
                f'"{note}" would burn {simulation.gas} gas instead of the planned {plan.gas_units}',
                (Verdict("gas", f"{simulation.gas} gas", f"{max_gas_units} gas", False),),
                "inspect the token's transfer function",
            )
        tx = replace(tx, gas=int(max(simulation.gas, draft.min_gas_units) * GAS_MARGIN))
        max_gas_cost_wei = tx.gas * fees.max_gas_price_wei
        is_revocation = draft.approval_terms is not None and draft.approval_terms[2] == 0
        max_data_fee_wei = data_fee_cap_wei(step.snapshot, tx, revokes=is_revocation)
        max_cost_wei = max_gas_cost_wei + (max_data_fee_wei or 0)
        native_floor_wei = step.limits.native_floor_wei if emergency_limits is None else 0
        native_left_wei = step.snapshot.native_wei + _native_change_wei(draft) - max_cost_wei
        is_top_up = draft.kind is IntentKind.UNWRAP
        if (
            is_not_approval
            and not is_top_up
            and native_floor_wei is not None
            and native_left_wei < native_floor_wei
        ):
            native_left_text = f"{decimal_text(max(0, native_left_wei), 18)} left"
            verdict = Verdict(
                "native_floor", native_left_text, decimal_text(native_floor_wei, 18), False
            )
            raise Refused(
                f"the node's estimate of {simulation.gas} gas leaves too little native coin",
                (verdict,),
                "send native coin to the wallet",
            )
        granted_gas_wei = max_gas_cost_wei
        gas_per_day_wei = step.limits.gas_per_day_wei
        gas_spent_wei = step.history.budgets.gas_24h_wei
        if emergency_limits is not None:
            gas_per_day_wei = emergency_limits.max_gas_24h_wei
            gas_spent_wei = step.history.emergency_gas_24h_wei
        if gas_per_day_wei is not None:
            granted_gas_wei = min(
                max_gas_cost_wei,
                max(0, gas_per_day_wei - gas_spent_wei + max_gas_cost_wei - max_cost_wei),
            )
        grant = Grant(
            draft.kind,
            now_s=head.timestamp_s,
            deadline_s=draft.deadline_s or head.timestamp_s + step.execution.deadline_s,
            max_gas_wei=granted_gas_wei,
            plan=plan,
            floors_raw=draft.floors_raw if plan is None else leg_floors(step, plan),
            approval_terms=draft.approval_terms,
            prices=()
            if draft.rebalancer_terms is None
            else tuple(draft.rebalancer_terms.prices.items()),
            min_value_change_raw=None
            if draft.rebalancer_terms is None
            else draft.rebalancer_terms.min_value_change_raw,
            layer_action=draft.layer_action,
            oracle_growth=draft.oracle_growth,
            payout=draft.payout,
            layer_grant=draft.layer_grant,
            max_data_fee_wei=max_data_fee_wei,
            init_code_hash=draft.init_code_hash,
        )
        return PreparedTransaction(tx, grant, note)

    def _head(self, step: StepInput) -> Head:
        """Return the sender's head.

        Raises Refused if its time is more than MAX_BLOCK_LEAD_S ahead of the agreed header and the
        agent's clock. Deadlines are derived from it, and a swap with a late deadline is a free
        option for an endpoint that withholds it (T2, T7).
        """
        head = self._sender.head()
        snapshot = step.snapshot
        now_s = self._clock.now_s()
        agreed_now_s = snapshot.head.timestamp_s + max(0, now_s - snapshot.now_s)
        latest_head_s = max(now_s, agreed_now_s) + MAX_BLOCK_LEAD_S
        if head.timestamp_s > latest_head_s:
            verdict = Verdict(
                "head_time", f"chain time {head.timestamp_s}", f"at most {latest_head_s}", False
            )
            raise Refused(
                f"the endpoint's head is {head.timestamp_s - latest_head_s + MAX_BLOCK_LEAD_S} s in the future",
                (verdict,),
                "check the endpoints of [[chain.rpc]] and this machine's clock",
            )
        return head


def _batched_draft(
    portfolio: Portfolio, batch_contract: str, approvals: Sequence[Approval], trade: TxDraft
) -> TxDraft:
    """Return the trade with the approvals before it, as one call of MultiSendCallOnly."""
    calls = [
        (approval.token, tokens.encode_approve(approval.spender, approval.raw))
        for approval in approvals
    ]
    calls.append((trade.to, trade.data))
    batched_calls = [BatchedCall(to, data_bytes(data)) for to, data in calls]
    notes = [*(approval_note(portfolio, approval) for approval in approvals), trade.note]
    return replace(
        trade, to=batch_contract, data=encode_batch(batched_calls), note=", then ".join(notes)
    )


def _native_change_wei(draft: TxDraft) -> int:
    """Return the change of native coin by the transaction, without gas."""
    if draft.plan is not None:
        return draft.plan.wallet_changes().get(NATIVE, 0)
    return 0 if draft.payout is None else -draft.value_wei


def _trade_note(portfolio: Portfolio, plan: Plan) -> str:
    """Describe a trade: why, in short, and what it sells and buys in all."""
    sold_texts = []
    bought_labels = []
    has_sold_others = False
    for token, change_raw in plan.wallet_changes().items():
        label, decimals = label_and_decimals(portfolio, token)
        if change_raw < 0:
            sold_texts.append(f"{decimal_text(-change_raw, decimals)} {label}")
            has_sold_others |= token != portfolio.numeraire.address
        elif change_raw:
            bought_labels.append(label)
    sold_text = " and ".join(sold_texts)
    bought_text = " and ".join(bought_labels)
    trade_text = (
        f"sell {sold_text} for {bought_text}"
        if has_sold_others
        else f"buy {bought_text} with {sold_text}"
    )
    decision = plan.decision
    if isinstance(decision, Rebalance) and not decision.by_hand:
        return f"{decision.title}: {trade_text}"
    return trade_text


def _top_up_draft(portfolio: Portfolio, unwrapped_raw: int, plan: Plan) -> TxDraft:
    """Return an unwrapping by the wallet itself, which needs neither router nor approval."""
    token = portfolio.token(portfolio.wrapped_native)
    note = f"unwrap {decimal_text(unwrapped_raw, token.decimals)} {token.label} for gas"
    return TxDraft(
        token.address,
        "0x" + (WITHDRAW + unwrapped_raw.to_bytes(32, "big")).hex(),
        IntentKind.UNWRAP,
        note,
        plan,
        min_gas_units=plan.gas_units,
    )


def leg_floors(step: StepInput, plan: Plan) -> tuple[int, ...]:
    """Return the minimum output of each leg by reference prices and limits alone, independent of
    the plan's minimums (T1, T4); of several prices that agree, by the one that requires more (T29),
    except for an exit (reference.price_ranges).
    """
    prices = prices_with_native(step.portfolio, reference_prices(step))
    price_range_by_token = price_ranges(step)

    def leg_floor(leg: Leg) -> int:
        price_in = prices[leg.token_in]
        price_out = prices[leg.token_out]
        if leg.venue != NATIVE_VENUE and not plan.is_exit:
            price_in = price_range_by_token[leg.token_in][1]
            price_out = price_range_by_token[leg.token_out][0]
        return fair_floor(
            leg.amount_in_raw,
            price_in,
            price_out,
            leg.fee_pips,
            BPS if step.limits.price_impact_bps is None else step.limits.price_impact_bps,
            BPS if step.limits.slippage_bps is None else step.limits.slippage_bps,
        )

    return tuple(leg_floor(leg) for leg in plan.legs)
