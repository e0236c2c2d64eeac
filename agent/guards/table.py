"""All guards in one table: name, limit, measure; and the two verbs on it, judge and require."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Generic, TypeVar

from agent.errors import Refused
from agent.guards import case as words
from agent.guards import market, portfolio, safety
from agent.guards.case import GuardCase, GuardMeasurement, MissingData, build_guard_case
from agent.model import Evidence, Plan, StepInput, Verdict
from agent.policy import failures

# --- What the owner can do about each guard that refuses.


REMEDIES = {
    "price_impact": "trade less at once, add deeper pools, or raise limits.price_impact",
    "slippage": "plan anew at a fresh block, or raise limits.slippage",
    "fair_floor": "a pool is off the reference price or the floor is too low; plan anew later, and keep slippage or price_impact on",
    "plan_cost": "wait for cheaper gas or deeper pools, trade less, or raise limits.plan_cost",
    "turnover": "let it go in rounds with destination = 'halfway', or raise limits.turnover",
    "daily_turnover": "wait until older trades are 24 h old, or raise limits.daily_turnover",
    "total_loss": "find out what lost money since the start (trimtab pnl, trimtab history), then raise limits.total_loss or stop",
    "daily_loss": "wait until losses (trimtab history) are 24 h old, trade less, lower limits.slippage, or raise limits.daily_loss",
    "year_limit": "sell less of what gains, wait for the new year, or raise tax.year_limit",
    "balance_jump": "say what came or went: trimtab flows, then trimtab flows confirm; a rise is accepted after limits.balance_jump_wait",
    "impermanent_loss": "take liquidity out until the expected loss fits (trimtab lp), or raise limits.impermanent_loss",
    "lp_max_weight": "take liquidity out until its share fits (trimtab lp), or raise limits.lp_max_weight",
    "oracle_deviation": "pools and reference disagree: wait, and check feeds and pools with trimtab doctor",
    "feed_health": "wait for a fresh round, check the feed's address, or raise reference.feed_max_age",
    "sequencer": "wait until the rollup's sequencer has been up for reference.sequencer_grace",
    "second_quote_deviation": "check addresses and endpoint with trimtab doctor, or limits.second_quote_deviation = 'off'",
    "depeg": "a dollar token is off its peg: decide by hand what to hold, or raise limits.depeg",
    "pool_min_value": "leave this pool out, or lower limits.pool_min_value",
    "gas_price": "wait for cheaper gas, or raise limits.gas_price",
    "gas_per_day": "wait until older transactions are 24 h old, or raise limits.gas_per_day",
    "native_floor": "send native coin to the wallet, or lower limits.native_floor",
    "head_age": "check the endpoint and this machine's clock",
    "max_weight": "buy less of it, or raise limits.max_weight",
    "min_trade": "wait for more drift, or lower limits.min_trade",
    "max_live_value": "take value out of the wallet, or raise portfolio.max_live_value",
    "allowlist": "look at the contracts named, then pin them with trimtab trust",
    "token_screen": "take the tokens named out of the portfolio, or see docs/tokens.md",
    "kill_switch": "trimtab resume, once you know why it was paused",
    "quorum": "add a second operator's endpoint, or name the single one in chain.single_operator",
    "reverts_in_row": "look why they failed (trimtab history); trimtab resume then counts anew; exits go on by themselves",
    "balance": "plan anew at a fresh block",
    "prediction": "plan anew at a fresh block",
    "expiry": "plan anew at a fresh block",
}
"""By guard, in words that follow "do this:"."""


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Guard(Generic[T]):
    """`limit` reads the limit from the input (None: off), `words` says it, `measure` holds the case against it."""

    name: str
    limit: Callable[[StepInput], T | None]
    words: Callable[[T, StepInput], str]
    measure: Callable[[GuardCase, T], GuardMeasurement]

    def judge(self, case: GuardCase) -> Verdict:
        """One verdict; what is missing refuses, what is off passes."""
        limit = self.limit(case.step)
        if limit is None:
            return Verdict(self.name, "not measured", words.OFF, True)
        try:
            measured = self.measure(case, limit)
        except MissingData as why:
            measured = GuardMeasurement(f"unknown: {why}", False)
        return Verdict(self.name, measured.text, measured.limit or self.words(limit, case.step), measured.passed)


def _always(name: str, rule: str, measure: Callable[[GuardCase], GuardMeasurement]) -> Guard[bool]:
    """A guard that no config switches off; `rule` is its limit in words."""
    return Guard(name, lambda _: True, lambda _, __: rule, lambda case, _: measure(case))


def _bps(limit: int, _: StepInput) -> str:
    return words.format_bps(limit)


def _native(limit: int, _: StepInput) -> str:
    return words.format_native(limit)


def _at_least(limit: Fraction, step: StepInput) -> str:
    return f"at least {words.format_money(limit, step.portfolio.numeraire)}"


def _feed_max_age(step: StepInput) -> int | None:
    """Feeds are watched while the oracle guard is on."""
    return None if step.limits.oracle_deviation_bps is None else step.reference.feed_max_age_s


def _year_limit(step: StepInput) -> Fraction | None:
    """Off without [tax], and where it says so."""
    return None if step.history.tax is None else step.history.tax.year_limit


def _a_year(limit: Fraction, step: StepInput) -> str:
    numeraire, known = step.portfolio.numeraire, step.history.tax
    return portfolio.format_year_limit(limit, "" if known is None else known.currency, numeraire.label, numeraire.decimals)


def _sequencer_grace(step: StepInput) -> int | None:
    """Off where the chain has no sequencer, or the owner said off."""
    return None if step.reference.sequencer_feed is None else step.reference.sequencer_grace_s


def _capped(step: StepInput) -> dict[str, int] | None:
    """The most that each asset may be, bps by token; off where none has a limit."""
    return {asset.token.address: asset.max_bps for asset in step.portfolio.assets if asset.max_bps is not None} or None


def _caps(limit: dict[str, int], step: StepInput) -> str:
    return ", ".join(f"{step.portfolio.token(token).label} {words.format_bps(most)}" for token, most in limit.items())


GUARDS: tuple[Guard[Any], ...] = (
    _always("kill_switch", "not paused", safety.kill_switch),
    _always("quorum", "as many as configured", safety.quorum),
    _always("allowlist", "all pinned", safety.allowlist),
    Guard("token_screen", lambda s: s.limits.token_screen, lambda _, __: safety.SCREENED, safety.token_screen),
    _always("reverts_in_row", f"fewer than {failures.MAX_REVERTS_IN_ROW} and {failures.MAX_APPROVALS_IN_ROW}", safety.reverts_in_row),
    Guard("head_age", lambda s: s.limits.head_age_s, lambda limit, _: words.format_seconds(limit), safety.head_age),
    _always("expiry", "made at the head, not expired", safety.expiry),
    _always("balance", "investable balance", safety.balance),
    _always("prediction", "equal to the simulation", safety.prediction),
    Guard("price_impact", lambda s: s.limits.price_impact_bps, _bps, market.price_impact),
    Guard("slippage", lambda s: s.limits.slippage_bps, _bps, market.slippage),
    _always("fair_floor", "reference less fee, impact and slippage limits", market.fair_floor_kept),
    Guard("pool_min_value", lambda s: s.limits.pool_min_value, _at_least, market.pool_min_value),
    Guard("plan_cost", lambda s: s.limits.plan_cost_bps, _bps, portfolio.plan_cost),
    Guard("turnover", lambda s: s.limits.turnover_bps, _bps, portfolio.turnover),
    Guard("daily_turnover", lambda s: s.limits.daily_turnover_bps, _bps, portfolio.daily_turnover),
    Guard("daily_loss", lambda s: s.limits.daily_loss_bps, _bps, portfolio.daily_loss),
    Guard("total_loss", lambda s: s.limits.total_loss_bps, _bps, portfolio.total_loss),
    Guard("balance_jump", lambda s: s.limits.balance_jump_bps, _bps, portfolio.balance_jump),
    Guard("year_limit", _year_limit, _a_year, portfolio.year_limit),
    Guard("max_weight", _capped, _caps, portfolio.max_weight),
    Guard("min_trade", lambda s: s.limits.min_trade, _at_least, portfolio.min_trade),
    Guard(
        "max_live_value",
        lambda s: s.limits.max_live_value,
        lambda v, s: words.format_money(v, s.portfolio.numeraire),
        portfolio.max_live_value,
    ),
    Guard("impermanent_loss", lambda s: s.limits.impermanent_loss_bps, _bps, portfolio.impermanent_loss),
    Guard("lp_max_weight", lambda s: s.limits.lp_max_weight_bps, _bps, portfolio.lp_max_weight),
    Guard("oracle_deviation", lambda s: s.limits.oracle_deviation_bps, _bps, market.oracle_deviation),
    Guard("feed_health", _feed_max_age, lambda limit, _: words.format_seconds(limit), market.feed_health),
    Guard("sequencer", _sequencer_grace, lambda limit, _: f"up for {words.format_seconds(limit)}", market.sequencer),
    Guard("second_quote_deviation", lambda s: s.limits.second_quote_deviation_bps, _bps, market.second_quote),
    Guard("depeg", lambda s: s.limits.depeg_bps, _bps, market.depeg),
    Guard("gas_price", lambda s: s.limits.gas_price_wei, lambda v, _: words.format_gwei(v), portfolio.gas_price),
    Guard("gas_per_day", lambda s: s.limits.gas_per_day_wei, _native, portfolio.gas_per_day),
    Guard("native_floor", lambda s: s.limits.native_floor_wei, lambda v, _: f"at least {words.format_native(v)}", portfolio.native_floor),
)
"""Every guard, in the order of their verdicts."""


def judge(step: StepInput, plan: Plan, evidence: Evidence) -> tuple[Verdict, ...]:
    """The verdict of every guard, passed ones too. Raises nothing that a plan or a chain could cause."""
    case = build_guard_case(step, plan, evidence)
    return tuple(guard.judge(case) for guard in GUARDS)


def require(plan: Plan, verdicts: Sequence[Verdict]) -> Plan:
    """The plan with its verdicts. Raises Refused, with all verdicts, when a guard says no or is missing among them."""
    missing = [guard.name for guard in GUARDS if guard.name not in {verdict.guard for verdict in verdicts}]
    refusing = [verdict for verdict in verdicts if not verdict.passed]
    if missing:
        raise Refused(f"not judged by {', '.join(missing)}", verdicts, "judge the plan before it is used")
    if refusing:
        said = "; ".join(f"{v.guard} measured {v.measured}, limit {v.limit}" for v in refusing)
        remedies = "; ".join(f"{v.guard}: {REMEDIES.get(v.guard, 'plan anew')}" for v in refusing)
        raise Refused(f"refused by {said}", verdicts, remedies)
    return replace(plan, verdicts=tuple(verdicts))
