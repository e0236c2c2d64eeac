"""Every parameter that binds what is about to be sent, in words, for the owner to confirm."""

from __future__ import annotations

from agent.api import sleeve_words
from agent.api.submission import submission_text
from agent.config.build import build_policy
from agent.config.pace import pace_text
from agent.config.schema import Config, LimitsTable
from agent.config.split import build_split
from agent.config.strategies import as_portfolio
from agent.config.weights import WeightsTable, weights_text
from agent.config.zone import RiskTable
from agent.model import LpTarget, Portfolio
from agent.policy import order_levels, trigger_words
from agent.policy.words import span
from agent.units import decimal_text

NATIVE_LIMITS = ("gas_per_day", "native_floor", "native_top_up")


def parameters(config: Config, portfolio: Portfolio, router: str) -> dict[str, str]:
    """By name. No secret is among them: URLs show as their operators."""
    chain, execution, reference = config.chain, config.execution, config.reference
    operators = sorted({endpoint.operator for endpoint in chain.rpc})
    numeraire, policy = portfolio.numeraire.label, build_policy(config)
    found = {
        "chain": f"{chain.chain_id}{' (a local fork)' if chain.fork else ''}",
        "endpoints": f"{', '.join(operators)}; {chain.min_operators} must agree",
        "wallet": config.wallet.address,
        "key": _key(config),
        "router": f"{execution.router} {router}",
        "payout addresses": ", ".join(config.wallet.payout_addresses) or "none",
        "submission": submission_text(config),
        "deadline": f"{execution.deadline} s",
        "style": pace_text(config),
        "confirmations": str(chain.confirmations),
        "targets": ", ".join(f"{a.token.label} {a.target_bps / 100:g}%" for a in portfolio.assets),
        "reserves": ", ".join(f"{decimal_text(a.reserve_raw, a.token.decimals)} {a.token.label}" for a in portfolio.assets if a.reserve_raw)
        or "none",
        "weights": weights_text(config.portfolio),
        "liquidity positions": ", ".join(position.name for position in portfolio.positions) or "none",
        "liquidity targets": ", ".join(_wanted(target) for target in portfolio.lp_targets) or "none",
        "orders": order_levels.orders_words(portfolio) or "none",
        "trigger": trigger_words.trigger(policy.trigger, portfolio),
        "bands of single assets": trigger_words.bands(portfolio) or "none",
        "destination": config.policy.destination,
        "only": "both sides" if policy.only is None else f"{policy.only.value}: {trigger_words.ONLY[policy.only]}",
        "cooldown": f"{config.policy.cooldown} s",
        "confirm_blocks": str(config.policy.confirm_blocks or 0),
        "jitter": "off" if config.policy.jitter is None else f"{config.policy.jitter / 100:g}%",
        "reference prices": ", then ".join(reference.kind),
        "twap_window": f"{reference.twap_window} s",
        "feed_max_age": f"{reference.feed_max_age} s",
        "sequencer": f"{reference.sequencer_feed}, {reference.sequencer_grace} s" if reference.sequencer_feed else "off",
        "max_live_value": limit_text("max_live_value", config.portfolio.max_live_value, numeraire),
    }
    if (portfolio.positions or portfolio.lp_targets) and config.lp is not None:
        found["lp"] = f"volatility {config.lp.volatility / 100:g}% a year, horizon {config.lp.horizon} s"
    chosen = {
        one.name: weights_text(as_portfolio(config.portfolio, one)) for one in config.strategies if isinstance(one.allocator, WeightsTable)
    }
    found |= sleeve_words.parameters(build_split(config), portfolio, chosen)
    if config.policy.risk is not None:
        found["risk"] = risk_text(config.policy.risk)
    for name in LimitsTable.model_fields:
        found[name] = limit_text(name, getattr(config.limits, name), numeraire)
    return found


def _wanted(target: LpTarget) -> str:
    width = "" if target.width_bps is None else f", width {target.width_bps / 100:g}%"
    return f"{target.share_bps / 100:g}% in {target.venue} {target.pool}{width}"


def risk_text(table: RiskTable) -> str:
    """Volatilities and correlations."""
    parts = [f"volatility of {symbol} {bps / 100:g}%" for symbol, bps in table.volatilities.items()]
    parts += [f"correlation of {pair} {bps / 100:g}%" for pair, bps in table.correlations.items()]
    if (one := table.estimate) is not None:
        parts.append(
            f"all others from recorded prices: returns over {span(one.step)} of {span(one.window)}, at least {span(one.min_history)}, "
            f"none older than {span(one.max_age)}"
        )
    parts += [f"of other pairs {table.correlation / 100:g}%"] if table.correlation is not None else []
    return ", ".join(parts)


def limit_text(name: str, value: int | str | list[str] | dict[str, int] | None, numeraire: str) -> str:
    """A limit with its unit: shares in percent, gas prices in gwei, durations in seconds, the rest in coins."""
    if value is None or value is True:
        return "off" if value is None else "on"
    if isinstance(value, list):
        return ", ".join(value) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{symbol} {bps / 100:g}%" for symbol, bps in value.items())
    if isinstance(value, str):
        return f"{value} {'native' if name in NATIVE_LIMITS else numeraire}"
    if name == "gas_price":
        return f"{decimal_text(value, 9)} gwei"
    return f"{value} s" if name in ("head_age", "balance_jump_wait", "first_purchase") else f"{value / 100:g}%"


def _key(config: Config) -> str:
    wallet = config.wallet
    if wallet.mode == "propose":
        return f"elsewhere: proposed to {'the owners of the Safe' if wallet.safe else 'its owner'} in {wallet.proposals}"
    if wallet.keystore is not None:
        return f"keystore {wallet.keystore}"
    if wallet.keyring is not None:
        return f"keyring entry {wallet.keyring}"
    if wallet.key_env is not None:
        return f"environment variable {wallet.key_env}"
    if wallet.test_account is not None:
        return f"published test account {wallet.test_account}"
    return "typed at a prompt" if wallet.prompt else "none"
