"""Answers of the guided set-up: each is checked on its own, and all together make a new config."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, Decimal
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from agent.app.documents.status import (
    ceiling_warnings,
    least_total_lines,
    least_totals_of_config,
)
from agent.app.start.past_results import template_result
from agent.app.start.setup import find_preset, initialise, with_amounts
from agent.config import template as starters
from agent.config.fields import parse_address, parse_variable
from agent.config.load import parse_config
from agent.config.presets import PRESETS, Preset, TemplateAsset
from agent.errors import ConfigError
from agent.units import BPS, parse_bps, safe_label

if TYPE_CHECKING:
    from agent.app.documents.owner import InitDocument, PastResultDocument
    from agent.config.schema import Config

NUMERAIRE = "USDC"
LOCAL_RPC = (("TRIMTAB_LOCAL_RPC", "local"),)
MIN_OPERATORS = 2
SHOWN_GWEI = "1"
"""Gas price, in gwei, at which the minimum capital of a basket is shown."""
START_CEILING = "1000"
"""portfolio.max_live_value of a new config."""
NO_ALERTS = ("", "none", "no", "off")
ALL = ("", "all")
PLACEHOLDER = "0x" + "0" * 39 + "1"


@dataclass(frozen=True, slots=True)
class Basket:
    """A portfolio template on a network, with its past result and its minimum capital in the
    numeraire at SHOWN_GWEI.
    """

    name: str
    about: str
    targets: tuple[tuple[str, str], ...]
    past: PastResultDocument | None
    least: str


@dataclass(frozen=True, slots=True)
class InitAnswers:
    """Answers so far; an empty text or tuple means not given yet. Each method that takes text checks
    it and raises ConfigError with the remedy.
    """

    network: str = "ethereum"
    wallet: str = ""
    rpc: tuple[tuple[str, str], ...] = ()
    template: str = ""
    targets: tuple[tuple[str, str], ...] = ()
    use_cash: str = ""
    alert: tuple[str, str] | None = None
    max_live_value: str = ""

    @property
    def ceiling(self) -> str:
        """Return the portfolio.max_live_value that these answers write."""
        return self.max_live_value or START_CEILING

    @property
    def exceeds_ceiling(self) -> bool:
        """Return whether more cash is named than the agent may manage."""
        return bool(self.use_cash) and Decimal(self.use_cash) > Decimal(self.ceiling)

    @property
    def is_local(self) -> bool:
        """Return whether the network is a chain of `trimtab localchain`."""
        return self.network not in PRESETS

    def with_network(self, text: str) -> InitAnswers:
        """Return the answers with a network, by name or by a local chain's config file. Endpoints
        of another network are dropped.
        """
        find_preset(text)
        local = text not in PRESETS
        kept = () if local != self.is_local else self.rpc
        return replace(self, network=text, rpc=kept or (LOCAL_RPC if local else ()))

    def with_wallet(self, text: str) -> InitAnswers:
        """Return the answers with the wallet's address."""
        return replace(self, wallet=parse_address(text, "wallet"))

    def with_endpoints(self, text: str) -> InitAnswers:
        """Return the answers with endpoints, VARIABLE=OPERATOR separated by spaces, of at least two
        operators.
        """
        found = []
        for part in text.replace(",", " ").split():
            variable, equals, operator = part.partition("=")
            if not equals:
                raise ConfigError(
                    "endpoints: not VARIABLE=OPERATOR",  # not repeated: a URL is a secret
                    "for example RPC_URL_1=alchemy RPC_URL_2=infura; the URLs stay in the variables",
                )
            parse_variable(variable, "endpoints")
            if safe_label(operator, "") == "":
                raise ConfigError(
                    "endpoints: the operator is up to 16 letters, digits, . _ -",
                    "for example RPC_URL_1=alchemy",
                )
            found.append((variable, operator))
        if len({operator for _, operator in found}) < (1 if self.is_local else MIN_OPERATORS):
            raise ConfigError(
                "endpoints: two different operators are needed, because money moves only when they"
                " agree",
                "for example RPC_URL_1=alchemy RPC_URL_2=infura",
            )
        return replace(self, rpc=tuple(found))

    def with_basket(self, text: str, known: Sequence[Basket]) -> InitAnswers:
        """Return the answers with a basket by number or name, or with own targets such as WETH=50%
        USDC=50%.
        """
        chosen = {str(number): one.name for number, one in enumerate(known, 1)}
        name = chosen.get(text, text)
        if name in [one.name for one in known]:
            return replace(self, template=name, targets=())
        targets = []
        for part in text.replace(",", " ").split():
            symbol, equals, share = part.partition("=")
            if not (symbol and equals and share):
                raise ConfigError(
                    f"basket: {text[:60]!r} is neither a number of the list nor SYMBOL=SHARE",
                    f"write 1 to {len(known)}, or for example WETH=50% USDC=50%",
                )
            targets.append((symbol, share))
        total = sum(parse_bps(share, f"basket {symbol}") for symbol, share in targets)
        symbols = [token.symbol for token in find_preset(self.network).tokens]
        unknown = [symbol for symbol, _ in targets if symbol not in symbols]
        if unknown or total != BPS or NUMERAIRE not in dict(targets):
            why = f"sum to {total / 100:g}%"
            if unknown:
                why = f"name {unknown[0]}, which is not one of {', '.join(symbols)}"
            elif total == BPS:
                why = f"lack {NUMERAIRE}, the unit of account (0% is allowed)"
            raise ConfigError(f"basket: the shares {why}", "for example WETH=50% USDC=50%")
        return replace(self, template="", targets=tuple(targets))

    def with_cash(self, text: str) -> InitAnswers:
        """Return the answers with the most numeraire to use; "all" or nothing for all of it. A new
        amount drops the ceiling, which was named for another.
        """
        amount = "" if text in ALL else _amount(text, "cash", "write 1000, or all")
        if amount == self.use_cash:
            return self
        return replace(self, use_cash=amount, max_live_value="")

    def with_ceiling(self, text: str) -> InitAnswers:
        """Return the answers with the largest value that the agent manages: an amount, "yes" for
        that of the cash, or "no" or nothing to leave it as it is.
        """
        if text.lower() in ("", "n", "no"):
            return self
        if text.lower() in ("y", "yes") and self.use_cash:
            return replace(self, max_live_value=self.use_cash)
        return replace(self, max_live_value=_amount(text, "ceiling", "write 1000"))

    def outlook(self) -> list[str]:
        """Return whether the amount is worth it: the least total of these targets, bands, pools and
        gas, its cost a year, the setting to change, and what the ceiling refuses.
        """
        preset = find_preset(self.network)
        template = starters.find_template(self.template) if self.template else None
        targets = self.targets
        if template is not None:
            targets = tuple(starters.template_targets(template, preset))
        config = _draft(template, preset, targets, self.use_cash, self.max_live_value)
        total = Fraction(self.use_cash) if self.use_cash else None
        rows = least_totals_of_config(config, Fraction(1), total)
        if total is None:
            about = "Compare it with what you invest"
        else:
            about = f"For {self.use_cash} {NUMERAIRE}, without tokens that the wallet already holds"
        return [
            f"Is it worth it? {about} (native coin at 3,000 dollars, pool fee 0.3 %):",
            *least_total_lines(rows, SHOWN_GWEI),
            *(ceiling_warnings(config, Fraction(1), total) if self.exceeds_ceiling else ()),
        ]

    def with_alert(self, text: str) -> InitAnswers:
        """Return the answers with the variable that holds the alert target's address, or none."""
        if text.lower() in NO_ALERTS:
            return replace(self, alert=None)
        if "://" in text:
            raise ConfigError(
                "alerts: that is an address, which is a secret",  # not repeated
                "put it into a variable, and name the variable: TRIMTAB_ALERTS",
            )
        name = self.alert[0] if self.alert else "owner"
        return replace(self, alert=(name, parse_variable(text, "alerts")))

    def write(self, path: Path) -> InitDocument:
        """Write the config. Raises ConfigError, and then leaves no file."""
        return initialise(
            path,
            self.network,
            self.wallet,
            self.targets,
            NUMERAIRE,
            self.rpc,
            template=self.template or None,
            use_cash=self.use_cash or None,
            alert=self.alert,
            max_live_value=self.max_live_value or None,
        )


def baskets(network: str) -> list[Basket]:
    """Return the templates that a network has tokens for. Raises ConfigError for an unknown
    network.
    """
    preset, found = find_preset(network), []
    for template in starters.PORTFOLIO_TEMPLATES.values():
        try:
            targets = tuple(starters.template_targets(template, preset))
        except ConfigError:
            continue
        past = template_result(template.name) if network in PRESETS else None
        found.append(
            Basket(template.name, template.about, targets, past, _least(template, preset, targets))
        )
    return found


def _least(
    template: starters.PortfolioTemplate, preset: Preset, targets: Sequence[tuple[str, str]]
) -> str:
    rows = least_totals_of_config(_draft(template, preset, targets), Fraction(1))
    found = (Decimal(row["total"] or 0) for row in rows if row["gas_gwei"] == SHOWN_GWEI)
    return next((f"{total.to_integral_value(ROUND_CEILING):,}" for total in found), "")


def _draft(
    template: starters.PortfolioTemplate | None,
    preset: Preset,
    targets: Sequence[tuple[str, str]],
    use_cash: str = "",
    max_live_value: str = "",
) -> Config:
    """Return a config with these targets and amounts, without the owner's wallet and endpoints."""
    known: Mapping[str, tuple[str, str | None]] = {
        token.symbol: (token.address, token.feed) for token in preset.tokens
    }
    if unknown := [symbol for symbol, _ in targets if symbol not in known]:
        raise ConfigError(
            f"basket: {unknown[0]} is not a token of this network",
            f"choose from {', '.join(known)}",
        )
    assets = [TemplateAsset(symbol, known[symbol][0], share, None) for symbol, share in targets]
    text = starters.render(preset, PLACEHOLDER, assets, (), NUMERAIRE, (("RPC", "any"),))
    if template is not None:
        text = starters.apply_template(text, template)
    return parse_config(
        with_amounts(text, use_cash or None, max_live_value or None), "the new config"
    )


def _amount(text: str, name: str, remedy: str) -> str:
    """Return an amount of the numeraire without separators. Raises ConfigError."""
    amount = text.replace(",", "")
    whole, point, part = amount.partition(".")
    if not (whole.isdecimal() and (not point or part.isdecimal()) and Decimal(amount) > 0):
        raise ConfigError(f"{name}: {text[:40]!r} is not an amount of {NUMERAIRE}", remedy)
    return amount


def variable_state(name: str) -> str:
    """Return whether a variable is set, without its value."""
    return "set" if os.environ.get(name) else "not set yet"
