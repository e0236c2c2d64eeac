"""What the wallet holds of assets that an edit takes away: sold first where that pays its gas, else named and left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent import wiring
from agent.api.agent import Agent
from agent.chain.rpc import Transport
from agent.config.load import LoadedConfig
from agent.errors import Refused
from agent.model import Verdict
from agent.policy import minimum
from agent.ports import Clock
from agent.reference import reference_prices
from agent.units import decimal_text


@dataclass(frozen=True, slots=True)
class Left:
    """`amount` in whole coins, "?" where the balance cannot be read. It is `dust` where its sale costs more gas than it brings."""

    symbol: str
    amount: str
    dust: bool

    @property
    def named(self) -> str:
        """Amount and symbol."""
        return f"{self.amount} {self.symbol}"


def left(before: LoadedConfig | None, after: LoadedConfig, transports: Sequence[Transport] | None, clock: Clock | None) -> list[Left]:
    """What the wallet holds of assets of `before` that `after` has not. What has no price is no dust. Raises Retryable."""
    if before is None:
        return []
    kept = {asset.address for asset in after.config.portfolio.assets}
    if all(asset.address in kept for asset in before.config.portfolio.assets):
        return []
    with wiring.open_desk(before, transports, clock, untrusted_pools=True) as desk:
        step = Agent(desk).step_input()
    held, prices = {one.token: one.raw for one in step.snapshot.holdings}, reference_prices(step).prices
    native, found = prices.get(desk.portfolio.wrapped_native), []
    for token in (asset.token for asset in desk.portfolio.assets if asset.token.address not in kept):
        raw, price = held.get(token.address), prices.get(token.address)
        if raw is None:
            found.append(Left(token.label, "?", False))
        elif raw > 0:
            worth_gas = native is None or price is None or raw * price.price > minimum.leg_gas_value(step.snapshot, native.price)
            found.append(Left(token.label, decimal_text(raw, token.decimals), not worth_gas))
    return found


def told(found: Sequence[Left], keep_holdings: bool) -> tuple[str, ...]:
    """What stays in the wallet, in words. Raises Refused for what is worth its sale, unless it is to stay."""
    kept = [one for one in found if not one.dust]
    if kept and not keep_holdings:
        raise Refused(
            f"the wallet holds {', '.join(one.named for one in kept)}, which would be left behind",
            tuple(Verdict("holdings", one.named, "none", False) for one in kept),
            f"first --target {kept[0].symbol}=0% and a rebalance, then --remove; or --keep-holdings leaves it in the wallet",
        )
    why = {True: ", worth less than the gas of its sale,", False: ""}
    return tuple(f"{one.named}{why[one.dust]} stay in the wallet and are no part of the portfolio any more" for one in found)
