"""Answers of the guided set-up: each is checked on its own, and all together make a new config."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, Decimal
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from agent.app.documents.status import least_totals_of_config
from agent.app.start.past_results import template_result
from agent.app.start.setup import find_preset, initialise
from agent.config import template as starters
from agent.config.fields import parse_address, parse_variable
from agent.config.load import parse_config
from agent.config.presets import PRESETS, Preset, TemplateAsset
from agent.errors import ConfigError
from agent.units import BPS, parse_bps, safe_label

if TYPE_CHECKING:
    from agent.app.documents.owner import InitDocument, PastResultDocument

NUMERAIRE = "USDC"
LOCAL_RPC = (("TRIMTAB_LOCAL_RPC", "local"),)
MIN_OPERATORS = 2
SHOWN_GWEI = "1"
"""Gas price, in gwei, at which the minimum capital of a basket is shown."""
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
        return replace(self, network=text, rpc=LOCAL_RPC if local else kept)

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
        """Return the answers with the most numeraire to use; "all" or nothing for all of it."""
        if text in ALL:
            return replace(self, use_cash="")
        amount = text.replace(",", "")
        whole, point, part = amount.partition(".")
        if not (whole.isdecimal() and (not point or part.isdecimal()) and float(amount) > 0):
            raise ConfigError(
                f"cash: {text[:40]!r} is not an amount of {NUMERAIRE}", "write 1000, or all"
            )
        return replace(self, use_cash=amount)

    def with_alert(self, text: str) -> InitAnswers:
        """Return the answers with the variable that holds the alert target's address, or none."""
        if text.lower() in NO_ALERTS:
            return replace(self, alert=None)
        if "://" in text:
            raise ConfigError(
                "alerts: that is an address, which is a secret",  # not repeated
                "put it into a variable, and name the variable: TRIMTAB_ALERTS",
            )
        return replace(self, alert=("owner", parse_variable(text, "alerts")))

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
    known: Mapping[str, tuple[str, str | None]] = {
        token.symbol: (token.address, token.feed) for token in preset.tokens
    }
    assets = [TemplateAsset(symbol, known[symbol][0], share, None) for symbol, share in targets]
    text = starters.render(preset, PLACEHOLDER, assets, (), NUMERAIRE, (("RPC", "any"),))
    config = parse_config(starters.apply_template(text, template), template.name)
    rows = least_totals_of_config(config, Fraction(1))
    found = (Decimal(row["total"] or 0) for row in rows if row["gas_gwei"] == SHOWN_GWEI)
    return next((f"{total.to_integral_value(ROUND_CEILING):,}" for total in found), "")


def variable_state(name: str) -> str:
    """Return whether a variable is set, without its value."""
    return "set" if os.environ.get(name) else "not set yet"
