"""The digest: value, profit, costs and events of a calendar day or week that has ended, as an alert."""

from __future__ import annotations

from collections.abc import Iterator

from agent.accounting.export import format_utc
from agent.accounting.performance import calendar_periods
from agent.app.records.ledger import pnl
from agent.config.loaded import LoadedConfig
from agent.errors import PassingFault, TrimtabError
from agent.figures import format_figure
from agent.model import Alert, AlertKind
from agent.observe.notify import sanitize_text


def digest_key(period_kind: str, now_s: int) -> str:
    """Return the key of the newest digest that is due at `now_s`, Unix seconds."""
    return f"digest:{period_kind}:{calendar_periods(period_kind, now_s, now_s)[0][0]}"


def digest_alert(loaded_config: LoadedConfig, period_kind: str, now_s: int) -> Iterator[Alert]:
    """Yield the alert with the figures of the "day" or "week", in UTC, that ended before `now_s`,
    Unix seconds; nothing if the ledger has no two valuations in it. Raises PassingFault.
    """
    ((period_start_s, _),) = calendar_periods(period_kind, now_s, now_s)
    ((ended_period_start_s, _),) = calendar_periods(
        period_kind, period_start_s - 1, period_start_s - 1
    )
    try:
        profit_document = pnl(loaded_config, period_kind, period_count=2)
    except PassingFault:
        raise
    except TrimtabError:
        return  # an empty ledger; a broken one ends the cycle by itself
    for period in profit_document["periods"]:
        if not format_utc(ended_period_start_s) < period["to"] <= format_utc(period_start_s):
            continue
        return_text = "" if period["twr_bps"] is None else f" ({period['twr_bps'] / 100:+.2f} %)"
        digest_text = (
            f"{period['from']} to {period['to']}: value {_money_text(period['end_value'])}"
            f" {profit_document['numeraire']}, profit {_money_text(period['profit'])}{return_text}, against"
            f" holding {_money_text(period['against_holding'])}, costs"
            f" {_money_text(period['costs']['total'])}; trades: {period['trades']},"
            f" refusals: {period['refusals']}, alerts: {period['alerts']}."
            f" trimtab pnl --period {period_kind}"
        )
        alert_key = digest_key(period_kind, now_s)
        yield Alert(AlertKind.DIGEST, alert_key, sanitize_text(digest_text))


def _money_text(amount: str) -> str:
    return format_figure(amount, "money", "-")
