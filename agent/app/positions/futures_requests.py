"""Manual futures actions: margin, delegate, reductions, and hedges."""

from __future__ import annotations

from agent.app.agent import Agent
from agent.app.cycles import Confirm, Progress
from agent.config.futures import HyperliquidTable, require_hedge_market
from agent.errors import ConfigError
from agent.execution.step_context import StepOutcome
from agent.model import CloseHedge, Deleverage, MoveMargin, OpenHedge
from agent.model.futures import DelegateChange, MarginDeposit, MarginWithdrawal
from agent.units import BPS, parse_raw, parse_share_bps


def move_margin(
    agent: Agent, amount: str, *, deposits: bool, send: bool, confirm: Confirm, progress: Progress
) -> StepOutcome:
    """Deposit or withdraw whole coins of the collateral. Raises ConfigError."""
    token = agent.portfolio.token(agent.futures_policy().collateral)
    option = "--deposit" if deposits else "--withdraw"
    if isinstance(agent.context.config.futures, HyperliquidTable):
        raise ConfigError(f"{option}: trimtab moves no margin at Hyperliquid", "move it there")
    raw = parse_raw(amount, token.decimals, option)
    if raw == 0:
        raise ConfigError(f"{option}: must be above 0", f"for example {option} 100")
    asked = MoveMargin(MarginDeposit(raw) if deposits else MarginWithdrawal(raw))
    return agent.adjust_futures(asked, send=send, confirm=confirm, progress=progress)


def change_delegate(
    agent: Agent, *, ends: bool, send: bool, confirm: Confirm, progress: Progress
) -> StepOutcome:
    """Allow or revoke trading by the configured delegate. Raises ConfigError."""
    delegate = agent.futures_policy().delegate
    if not delegate:
        raise ConfigError(
            "futures.delegate: is missing", "set it to the address that may trade for the account"
        )
    asked = MoveMargin(DelegateChange(delegate, is_allowed=not ends))
    return agent.adjust_futures(asked, send=send, confirm=confirm, progress=progress)


def hedge(
    agent: Agent,
    asset: str,
    ratio: str,
    *,
    close: bool,
    send: bool,
    confirm: Confirm,
    progress: Progress,
) -> StepOutcome:
    """Short `ratio` of an asset's excess over its target (empty: the config's ratio), or close the
    short. Raises ConfigError.
    """
    if close and ratio:
        raise ConfigError(
            "--ratio: cannot be combined with --close", "omit it; --close closes the whole hedge"
        )
    token, terms = agent.token(asset, "hedge"), agent.futures_policy().hedge
    require_hedge_market(agent.context.config, token.symbol)
    asked: OpenHedge | CloseHedge = CloseHedge(token.address)
    if not close:
        if terms is None:
            raise ConfigError(
                "futures.hedge: missing",
                "add [futures.hedge] with horizon, min_saving, tax_rate and capital_cost",
            )
        ratio_bps = parse_share_bps(ratio, "--ratio") if ratio else terms.ratio_bps
        if not 0 < ratio_bps <= BPS:
            raise ConfigError(f"--ratio: {ratio}", "write above 0% and at most 100%")
        asked = OpenHedge(token.address, ratio_bps)
    return agent.adjust_futures(asked, send=send, confirm=confirm, progress=progress)


def deleverage(
    agent: Agent,
    leverage: str | None,
    symbol: str | None,
    *,
    send: bool,
    confirm: Confirm,
    progress: Progress,
) -> StepOutcome:
    """Reduce positions to a leverage, overall or in one market; without a leverage close that
    market. Raises ConfigError.
    """
    if leverage is None and symbol is None:
        raise ConfigError("--to, --market: at least one is required", "for example --to 2x")
    table = agent.context.config.futures
    known = [] if table is None else [market.symbol for market in table.markets]
    if symbol is not None and symbol not in known:
        account = agent.step_input().snapshot.futures
        known += [] if account is None else [one.symbol for one in account.markets]
    if symbol is not None and symbol not in known:
        known = list(dict.fromkeys(known))
        raise ConfigError(
            f"--market: {symbol!r} is not a futures market", f"choose from {', '.join(known)}"
        )
    bps = None if leverage is None else _leverage_bps(leverage)
    asked = Deleverage(bps, symbol or "")
    return agent.adjust_futures(asked, send=send, confirm=confirm, progress=progress)


def reopening_note(agent: Agent, leverage: str | None) -> str:
    """Return a note if the next step opens again what a reduction to a leverage closes; else an
    empty text.
    """
    target_bps = agent.futures_policy().leverage_bps
    if (0 if leverage is None else _leverage_bps(leverage)) >= target_bps:
        return ""
    return (
        f"The targets stay: the next step may open to futures.leverage of {target_bps / BPS:g}x"
        " again. Lower it first, or run trimtab pause."
    )


def _leverage_bps(text: str) -> int:
    """Return the basis points of "2x". Raises ConfigError."""
    try:
        return parse_share_bps(text, "--to")
    except ConfigError as error:
        raise ConfigError(error.message, "write it as a multiple, such as 2x or 0.5x") from None
