"""Guards of safety: block age, expiry, balances, predictions, allowlist, token screen, kill switch,
quorum, failures; and of gas: price, gas per day, native coin left.
"""

from __future__ import annotations

from agent.amm.pools import holds_token
from agent.guards.case import GuardCase, GuardMeasurement, MissingData
from agent.guards.guard import (
    Guard,
    GuardScope,
    fixed_guard,
    format_native,
    format_seconds,
    limit_guard,
)
from agent.guards.replay import LegFlow
from agent.layers.questions import gas_price_limit_wei
from agent.model import (
    MAX_BLOCK_LEAD_S,
    LegPlace,
    Plan,
    Provide,
    Snapshot,
    TopUp,
    has_no_code,
)
from agent.policy import failures
from agent.policy.native_coin import floor_wei
from agent.units import NATIVE, format_gwei, format_time


def head_age(case: GuardCase, limit_s: int) -> GuardMeasurement:
    """Return the age of the head by the agent's clock. A head in the future means a wrong clock or
    a false answer.
    """
    age_s = case.evidence.now_s - case.step.snapshot.head.timestamp_s
    if age_s < 0:
        return GuardMeasurement(
            f"{format_seconds(-age_s)} in the future",
            age_s >= -MAX_BLOCK_LEAD_S,
            f"{format_seconds(MAX_BLOCK_LEAD_S)} in the future",
        )
    return GuardMeasurement(format_seconds(age_s), age_s <= limit_s)


def expiry(case: GuardCase) -> GuardMeasurement:
    """Require that the plan was made at the block of the snapshot and has not expired."""
    head_number = case.step.snapshot.head.number
    is_current = case.plan.block == head_number <= case.plan.expires_block
    return GuardMeasurement(
        f"plan of block {case.plan.block}, valid to {case.plan.expires_block}, head {head_number}",
        is_current,
    )


def balance(case: GuardCase) -> GuardMeasurement:
    """Require that legs spend only investable tokens or tokens bought by earlier legs, and that the
    router is left empty.
    """
    case.require_complete_replay()
    wallet = _ReplayWallet(case)
    for flow in case.replay.flows:
        overspent_raw = wallet.spend(flow)
        if overspent_raw > 0:
            return GuardMeasurement(
                f"leg {flow.number} spends {overspent_raw} base units of {case.label(flow.leg.token_in)}"
                " too much",
                False,
            )
    if case.replay.stranded_raw_by_token:
        stranded_text = "; ".join(
            f"{stranded_raw} base units of {case.label(token)}"
            for token, stranded_raw in case.replay.stranded_raw_by_token.items()
        )
        return GuardMeasurement(f"{stranded_text} remain in the router", False)
    return GuardMeasurement("every leg is funded", True)


class _ReplayWallet:
    """Spendable balances during the replay, by asset, and by form (native, wrapped) for the native
    asset.
    """

    def __init__(self, case: GuardCase) -> None:
        self._case = case
        self._assets: dict[str, int] = {}
        self._raw_by_form: dict[str, int] = {}
        self._wrapped_native = next(
            (asset.token.address for asset in case.step.portfolio.assets if asset.includes_native),
            None,
        )
        if self._wrapped_native is not None:
            self._raw_by_form = {
                NATIVE: case.balance_raw(NATIVE) - floor_wei(case.step.limits),
                self._wrapped_native: case.balance_raw(self._wrapped_native),
            }

    def spend(self, flow: LegFlow) -> int:
        """Book one leg and return the base units that it overspends."""
        leg = flow.leg
        overspent_raw = 0
        asset_in = self._asset_token(leg.token_in)
        asset_out = self._asset_token(leg.token_out)
        is_conversion = asset_in == asset_out and leg.source is leg.sink
        if leg.source is LegPlace.WALLET:
            overspent_raw = max(0, -self._change_form_balance(leg.token_in, -flow.amount_in_raw))
            if not is_conversion:
                overspent_raw = max(
                    overspent_raw,
                    -self._change_balance(self._assets, asset_in, -flow.amount_in_raw),
                )
        if leg.sink is LegPlace.WALLET:
            self._change_form_balance(leg.token_out, flow.amount_out_raw)
            if not is_conversion:
                self._change_balance(self._assets, asset_out, flow.amount_out_raw)
        return overspent_raw

    def _asset_token(self, token: str) -> str:
        return (
            self._wrapped_native if token == NATIVE and self._wrapped_native is not None else token
        )

    def _change_form_balance(self, token: str, change_raw: int) -> int:
        return (
            self._change_balance(self._raw_by_form, token, change_raw)
            if token in self._raw_by_form
            else 0
        )

    def _change_balance(self, raw_by_token: dict[str, int], token: str, change_raw: int) -> int:
        if token not in raw_by_token:
            raw_by_token[token] = self._spendable_raw(token)
        raw_by_token[token] += change_raw
        return raw_by_token[token]

    def _spendable_raw(self, token: str) -> int:
        """Return the base units of an asset above its reserve, negative if below; 0 for a hub."""
        for asset in self._case.step.portfolio.assets:
            if asset.token.address == token:
                return self._case.spendable_raw(asset)
        return 0


def prediction(case: GuardCase) -> GuardMeasurement:
    """Require that the plan predicts the amounts and the final balances of the replay, of assets that
    no leg moves too. Guards of layers judge what their actions move.
    """
    case.require_complete_replay()
    for flow in case.replay.flows:
        if (flow.leg.amount_in_raw, flow.leg.amount_out_raw) != (
            flow.amount_in_raw,
            flow.amount_out_raw,
        ):
            return GuardMeasurement(
                f"leg {flow.number} gives {flow.amount_out_raw} for {flow.amount_in_raw}, the plan"
                f" predicts {flow.leg.amount_out_raw} for {flow.leg.amount_in_raw}",
                False,
            )
    predicted_raw_by_token = dict(case.plan.holdings_after)
    if case.plan.native_after_wei is not None:
        predicted_raw_by_token[NATIVE] = case.plan.native_after_wei
    for token, predicted_raw in predicted_raw_by_token.items() if case.plan.legs else ():
        simulated_raw = case.balance_raw(token) + case.replay.balance_changes_raw.get(token, 0)
        if simulated_raw != predicted_raw:
            return GuardMeasurement(
                f"{case.label(token)} ends at {simulated_raw} base units, the plan predicts"
                f" {predicted_raw}",
                False,
            )
    return GuardMeasurement("as simulated", True)


# --- Guards of contracts and tokens, and of permission to act: kill switch, quorum, failures.


SCREENED_TEXT = "all tokens transfer the exact amount"


def allowlist(case: GuardCase) -> GuardMeasurement:
    """Require that each pool, token, router, factory and position manager of the plan is pinned:
    its address, and its code in the snapshot. Tokens must also be assets or hubs of the portfolio.
    For native coin, which has no code, the wrapped token is checked.
    """
    portfolio = case.step.portfolio
    execution = case.step.execution
    portfolio_tokens = {
        token.address
        for token in (
            *(asset.token for asset in portfolio.assets),
            *portfolio.hubs,
            portfolio.numeraire,
        )
    }
    legs = case.plan.legs
    actions = case.plan.layer_actions
    traded_tokens = [
        token for leg in legs for token in (leg.token_in, leg.token_out) if token != NATIVE
    ]
    tokens = dict.fromkeys(
        (
            *traded_tokens,
            *(token for action in actions for token in (action.token0, action.token1)),
        )
    )
    contract_by_pool = {pool.address: pool.contract for pool in case.step.snapshot.pools}
    venue_contracts = dict.fromkeys(
        (
            *(contract_by_pool.get(leg.pool, leg.pool) for leg in legs),
            *(contract for action in actions for contract in (action.pool, action.contract)),
        )
    )
    quarantined_tokens = {
        quarantined.token for quarantined in case.step.targets.quarantined_tokens
    }  # already reported

    checked_addresses = dict.fromkeys(
        (
            *venue_contracts,
            *tokens,
            execution.router,
            *(address for address in execution.pinned if address not in quarantined_tokens),
        )
    )
    hash_by_address = {
        code_hash.address.lower(): code_hash.hash.lower()
        for code_hash in case.step.snapshot.code_hashes
    }
    trusted_codes = {
        (address.lower(), pinned_hash.lower())
        for address, pinned_hash in case.evidence.pinned_code_hashes
    }
    pinned_addresses = {address for address, _ in trusted_codes}
    faults = [
        f"{token} is not a token of the portfolio"
        for token in tokens
        if token not in portfolio_tokens
    ]
    for address in checked_addresses:
        current_hash = hash_by_address.get(address.lower())
        if current_hash is None:
            faults.append(f"code at {address} was not read")
        elif has_no_code(current_hash):
            faults.append(f"no code at {address}")
        elif address.lower() not in pinned_addresses:
            faults.append(f"{address} is not pinned")
        elif (address.lower(), current_hash) not in trusted_codes:
            faults.append(f"code at {address} changed since it was pinned")
    return GuardMeasurement(
        "; ".join(faults) or f"{len(checked_addresses)} of {len(checked_addresses)} pinned",
        not faults,
    )


def token_screen(case: GuardCase, _: bool) -> GuardMeasurement:
    """Require that each token of the plan transferred the exact amount in a simulation through each
    of its pools, and that none is quarantined. Withdrawals of liquidity and unwrapping always pass.
    """
    tokens = moved_tokens(case.plan)
    screens = case.evidence.screened_tokens
    if tokens and screens is None:
        raise MissingData("no token was tested")
    screen_by_token = {
        screen.token: screen for screen in (*(screens or ()), *case.step.targets.quarantined_tokens)
    }
    faults = [
        f"{case.label(token)} was not tested" for token in tokens if token not in screen_by_token
    ]
    faults += [
        f"{case.label(token)} {screen_by_token[token].why}"
        for token in tokens
        if token in screen_by_token and not screen_by_token[token].finding.is_tradable
    ]
    used_contracts = _token_contracts(case.step.snapshot, case.plan)
    faults += [
        f"{case.label(screen.token)}: {failed.why} ({failed.pool})"
        for screen in screens or ()
        for failed in screen.failed_pools
        if (screen.token, failed.pool) in used_contracts
    ]
    return GuardMeasurement(
        "; ".join(faults) or f"{len(tokens)} of {len(tokens)} tokens transfer the exact amount",
        not faults,
    )


def _token_contracts(snapshot: Snapshot, plan: Plan) -> set[tuple[str, str]]:
    """Return (token, contract that holds it) of each pool that legs trade in or actions provide
    to.
    """
    used_pools = {leg.pool for leg in plan.legs}
    used_pools |= {action.pool for action in plan.layer_actions if isinstance(action, Provide)}
    return {
        (token, pool.contract)
        for pool in snapshot.pools
        if pool.address in used_pools
        for token in (pool.token0, pool.token1)
        if holds_token(pool, token)
    }


def moved_tokens(plan: Plan) -> tuple[str, ...]:
    """Return the tokens that legs exchange or actions provide as liquidity, without duplicates.
    Wrapping and unwrapping do not count.
    """
    traded_tokens = [
        token
        for leg in plan.legs
        if NATIVE not in (leg.token_in, leg.token_out)
        for token in (leg.token_in, leg.token_out)
    ]
    provided_tokens = [
        token
        for action in plan.layer_actions
        if isinstance(action, Provide)
        for token in (action.token0, action.token1)
    ]
    return tuple(dict.fromkeys((*traded_tokens, *provided_tokens)))


def kill_switch(case: GuardCase) -> GuardMeasurement:
    """Require that the kill switch is readable and off (T14)."""
    match case.evidence.paused:
        case False:
            return GuardMeasurement("not paused", True)
        case True:
            reason = case.evidence.pause_reason
            return GuardMeasurement(f"paused: {reason}" if reason else "paused", False)
        case None:
            return GuardMeasurement("unreadable, which counts as paused", False)


def quorum(case: GuardCase) -> GuardMeasurement:
    """Require that enough operators returned the same snapshot, byte for byte (T2)."""
    return GuardMeasurement(
        f"{len(set(case.step.snapshot.operators))} operator(s) agree", case.evidence.has_quorum
    )


def reverts_in_row(case: GuardCase) -> GuardMeasurement:
    """Require fewer consecutive reverts, and fewer approval cycles without a swap, than the limits
    that stop the agent (T6). Only the owner can resume a stopped agent. An exit counts only its own
    failures and is retried with growing back-off, because an attacker can make it revert (T20).
    """
    history = case.step.history
    if not case.is_risk_reducing():
        revert_count = history.failures.reverts_in_row
        approval_count = history.failures.approval_cycles_in_row
        failures_text = _failures_text(revert_count, approval_count)
        if history.failures.is_stopped and not failures.too_many_failures(
            revert_count, approval_count
        ):
            failures_text += "; an exit succeeded since the stop, and the agent stays stopped until trimtab resume"
        return GuardMeasurement(failures_text, not failures.is_stopped(history))
    exit_failures = failures.exit_failures(history, failures.exit_name(case.plan))
    failures_text = _failures_text(exit_failures.revert_count, exit_failures.approval_cycle_count)
    retry_at_s = failures.retry_at_s(exit_failures, is_emergency=case.plan.is_emergency)
    if not retry_at_s or case.step.progress.spend_caps:
        return GuardMeasurement(failures_text, True)  # the approvals of this step already passed
    return GuardMeasurement(
        f"{failures_text}; this exit is retried at {format_time(retry_at_s)}",
        case.step.snapshot.head.timestamp_s >= retry_at_s,
    )


def _failures_text(revert_count: int, approval_count: int) -> str:
    return f"{revert_count} reverts, {approval_count} approval cycles without a swap"


KILL_SWITCH = fixed_guard(
    "kill_switch",
    "not paused",
    kill_switch,
    "find out why it was paused, then run trimtab resume",
)
QUORUM = fixed_guard(
    "quorum",
    "the configured quorum",
    quorum,
    "replace an endpoint that is wrong; with one operator only, add a second one's endpoint, or"
    " name it in chain.single_operator",
)
ALLOWLIST = fixed_guard(
    "allowlist",
    "all pinned",
    allowlist,
    "check the named contracts, then pin them with trimtab trust",
    scope=GuardScope.MARKET,
)
TOKEN_SCREEN = Guard(
    "token_screen",
    lambda step: step.limits.token_screen,
    lambda _, __: SCREENED_TEXT,
    token_screen,
    "remove the named tokens from the portfolio, or see docs/tokens.md",
    scope=GuardScope.MARKET,
)
REVERTS_IN_ROW = fixed_guard(
    "reverts_in_row",
    f"fewer than {failures.MAX_REVERTS_IN_ROW} and {failures.MAX_APPROVALS_IN_ROW}",
    reverts_in_row,
    "find the cause (trimtab history), then reset the count with "
    "trimtab resume; exits continue meanwhile",
    scope=GuardScope.WALLET,
)
HEAD_AGE = limit_guard(
    "head_age",
    lambda limits: limits.head_age_s,
    head_age,
    "check the endpoint and this machine's clock",
)
EXPIRY = fixed_guard("expiry", "made at the head, not expired", expiry, "plan again at a new block")
BALANCE = fixed_guard("balance", "investable balance", balance, "plan again at a new block")
PREDICTION = fixed_guard(
    "prediction",
    "equal to the simulation",
    prediction,
    "plan again at a new block",
    scope=GuardScope.MARKET,
)


NO_GAS = GuardMeasurement("no gas", True)
"""Measurement for a plan without a transaction."""


def gas_price(case: GuardCase, limit_wei: int) -> GuardMeasurement:
    """Return the current gas price. The same limit bounds the fee cap of the transaction."""
    if case.needs_no_gas():
        return NO_GAS
    price_wei = case.gas_price_wei()
    limit_text = f"{format_gwei(limit_wei)} in an emergency" if case.plan.is_emergency else ""
    return GuardMeasurement(format_gwei(price_wei), price_wei <= limit_wei, limit_text)


def gas_per_day(case: GuardCase, limit_wei: int) -> GuardMeasurement:
    """Return the gas of the last 24 h of chain time plus the most that this plan may burn. An exit
    that is retried after failures gets half of the limit; the other half is left for other
    transactions.
    """
    if case.needs_no_gas():
        return NO_GAS
    if (layer_budget := case.layer_answers.layer_gas_budget()) is not None:
        spent_wei = layer_budget[1] + case.worst_gas_wei()
        limit_text = f"{format_native(limit_wei)} of emergencies"
        return GuardMeasurement(format_native(spent_wei), spent_wei <= limit_wei, limit_text)
    case.require_known_day()
    day_gas_wei = case.step.history.budgets.gas_24h_wei + case.worst_gas_wei()
    exit_failures = failures.exit_failures(case.step.history, failures.exit_name(case.plan))
    if failures.retry_wait_s(exit_failures) == 0:
        return GuardMeasurement(format_native(day_gas_wei), day_gas_wei <= limit_wei)
    limit_wei //= 2
    failures_text = _failures_text(exit_failures.revert_count, exit_failures.approval_cycle_count)
    limit_text = f"{format_native(limit_wei)} after this exit's {failures_text}"
    return GuardMeasurement(format_native(day_gas_wei), day_gas_wei <= limit_wei, limit_text)


def _daily_gas_limit_wei(case: GuardCase, limit_wei: int | None) -> int | None:
    """Return the daily gas limit of the plan: that of its layer, if it counts there, else
    `limit_wei`.
    """
    layer_budget = case.layer_answers.layer_gas_budget()
    return limit_wei if layer_budget is None else layer_budget[0]


def native_floor(case: GuardCase, limit_wei: int) -> GuardMeasurement:
    """Return the native coin left if this plan uses its maximum gas, net of wrapping and
    unwrapping. A gas money refill passes if the wallet can pay its gas and it unwraps more than
    that gas.
    """
    if case.needs_no_gas():
        return NO_GAS
    case.require_complete_replay()
    balance_wei = case.step.snapshot.native_wei
    gas_wei = case.worst_gas_wei()
    unwrapped_wei = case.replay.balance_changes_raw.get(NATIVE, 0)
    left_wei = balance_wei + unwrapped_wei - gas_wei
    if isinstance(case.plan.decision, TopUp):
        return GuardMeasurement(
            f"{format_native(left_wei)} after unwrapping {format_native(unwrapped_wei)}",
            gas_wei <= balance_wei and gas_wei < unwrapped_wei,
        )
    if case.plan.is_emergency:
        return GuardMeasurement(format_native(left_wei), left_wei >= 0, "0 in an emergency")
    return GuardMeasurement(format_native(left_wei), left_wei >= limit_wei)


GAS_PRICE = limit_guard(
    "gas_price",
    lambda limits: limits.gas_price_wei,
    gas_price,
    "wait for cheaper gas, or raise limits.gas_price",
    limit_of_plan=lambda case, _: gas_price_limit_wei(case.step, case.plan),
)
GAS_PER_DAY = limit_guard(
    "gas_per_day",
    lambda limits: limits.gas_per_day_wei,
    gas_per_day,
    "wait until older transactions are 24 h old, or raise limits.gas_per_day",
    scope=GuardScope.WALLET,
    limit_of_plan=_daily_gas_limit_wei,
)
NATIVE_FLOOR = limit_guard(
    "native_floor",
    lambda limits: limits.native_floor_wei,
    native_floor,
    "send native coin to the wallet, or lower limits.native_floor",
    scope=GuardScope.WALLET,
)
