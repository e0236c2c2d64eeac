"""What a withdrawal is to pay, from what its owner wrote: one amount of one asset, or the same part of all."""

from __future__ import annotations

from fractions import Fraction

from agent.api.agent import Agent
from agent.errors import ConfigError, Refused
from agent.model import Payment, StepInput
from agent.policy import outflow, raising
from agent.units import parse_raw


def one(agent: Agent, step: StepInput, amount: str, name: str | None) -> Payment:
    """One payment of one asset. Raises ConfigError for what is no asset, Refused where the whole portfolio is worth less."""
    token = agent.portfolio.numeraire if name is None else agent.token(name, "--in")
    asset = next((one for one in step.portfolio.assets if one.token.address == token.address), None)
    if asset is None:
        raise ConfigError(f"--in: {token.label} is not an asset of the portfolio", "trimtab status lists the assets")
    raw = _above_zero(parse_raw(amount, token.decimals, "AMOUNT"))
    free, price = raising.free_raw(step), outflow.price_of(step, token.address)
    if price is None:
        raise Refused(f"{token.label} has no reference price", remedy="give the asset a feed")
    prices = {one: outflow.price_of(step, one) or Fraction(0) for one in free}
    there = sum((count * prices[one] for one, count in free.items() if one != token.address), Fraction(0))
    if (lacking := (raw - free[token.address]) * price) > there:
        raise raising.above_holdings(step, lacking, there)
    return Payment(token.address, raw, asset.native)


def parts(agent: Agent, step: StepInput, amount: str) -> tuple[Payment, ...]:
    """The same part of every asset, `amount` whole numeraire coins in all."""
    value = Fraction(_above_zero(parse_raw(amount, agent.portfolio.numeraire.decimals, "AMOUNT")))
    native = {asset.token.address for asset in step.portfolio.assets if asset.native}
    return tuple(Payment(token, raw, token in native) for token, raw in raising.parts(step, value).items())


def _above_zero(raw: int) -> int:
    if raw == 0:
        raise ConfigError("AMOUNT must be above 0", "for example trimtab withdraw 500")
    return raw
