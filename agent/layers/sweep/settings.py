"""Settings of the layer from [sweep]."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from agent.config.schema import Config
from agent.config.tables.fields import to_value_error
from agent.errors import ConfigError
from agent.layers.sweep.config import SweepTable
from agent.model import Every, Portfolio, Schedule
from agent.policy.triggers.schedule_triggers import build_schedule, validate_schedule
from agent.units import Token, format_duration, parse_raw

TABLE = "sweep"


@dataclass(frozen=True, slots=True)
class SweepSettings:
    """Profit beyond `kept_raw` is paid to `payout_address` on a schedule, at least `min_payment_raw`
    at once. Amounts are base units of the numeraire.
    """

    payout_address: str
    kept_raw: int
    min_payment_raw: int
    schedule: Schedule


def sweep_settings(config: Config, numeraire: Token) -> SweepSettings | None:
    """Return the settings; None without [sweep]. Raises ConfigError."""
    if (table := config.sweep) is None:
        return None
    return SweepSettings(
        table.to,
        parse_raw(table.above, numeraire.decimals, f"{TABLE}.above"),
        parse_raw(table.least, numeraire.decimals, f"{TABLE}.least"),
        _build_schedule(table),
    )


def require_payable_sweep(config: Config) -> None:
    """Raise ValueError for a sweep that could never be paid, or has no schedule."""
    if (table := config.sweep) is None:
        return
    if table.to not in config.wallet.payout_addresses:
        raise ValueError(
            f"sweep.to: {table.to} is not in wallet.payout_addresses; add it there, and confirm it"
            " with trimtab trust"
        )
    if config.wallet.mode == "propose":
        raise ValueError(
            'sweep: it pays without a question, which wallet.mode = "propose" does not; remove'
            " [sweep], and use trimtab withdraw"
        )
    daily_limit = config.limits.payout_per_day
    if daily_limit is not None and not Decimal(daily_limit):
        raise ValueError(
            'sweep: limits.payout_per_day is 0, so that nothing may be paid; write an amount, or "off"'
        )
    if config.portfolio.numeraire not in {asset.symbol for asset in config.portfolio.assets}:
        raise ValueError(
            f"sweep: {config.portfolio.numeraire} is no asset of the portfolio, and a sweep pays the"
            " numeraire; give it an entry in portfolio.assets"
        )
    if not Decimal(table.least):
        raise ValueError('sweep.least: 0 would pay dust; write an amount such as "50"')
    if daily_limit is not None and Decimal(table.least) > Decimal(daily_limit):
        raise ValueError(
            f"sweep.least: {table.least} is more than limits.payout_per_day lets out in a day; write"
            f" at most {daily_limit}, or raise the limit"
        )
    try:
        _build_schedule(table)
    except ConfigError as error:
        raise to_value_error(error) from None


def confirmed_settings(config: Config, portfolio: Portfolio) -> Mapping[str, str]:
    """Return the settings as the owner confirms them."""
    if (table := config.sweep) is None:
        return {}
    schedule = _build_schedule(table)
    schedule_text = (
        f"every {format_duration(schedule.every_s)}"
        if isinstance(schedule, Every)
        else f"{table.cron} in {table.timezone}"
    )
    unit = portfolio.numeraire.label
    return {
        "sweep": f"profit above {table.above} {unit} to {table.to}, {schedule_text}, from"
        f" {table.least} {unit}"
    }


def _build_schedule(table: SweepTable) -> Schedule:
    schedule = build_schedule(table.every, table.cron, table.timezone, table=TABLE)
    validate_schedule(schedule, table=TABLE)
    return schedule
