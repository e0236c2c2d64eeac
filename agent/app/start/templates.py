"""The portfolio templates, with what they need and lose on a network."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING

from agent.app.start import capital, past_results, tracking_losses
from agent.app.start.amounts import parse_amount
from agent.app.start.setup import find_preset
from agent.backtest.loss.policies import COMPARED_CHOICES
from agent.config.writing import portfolio_templates

if TYPE_CHECKING:
    from agent.app.documents.owner import TemplateDocument, TemplatesDocument

TEMPLATE_VALUE_USD = 10_000
"""Portfolio for which `templates` estimates losses, as large as that of the past results."""
FUTURES_NOTIONAL_NOTE = "limits.futures_notional: largest notional of [futures] per spot value"


def templates(network: str = "ethereum", value: str = str(TEMPLATE_VALUE_USD)) -> TemplatesDocument:
    """Return every portfolio template with its tokens on that network, and about what a portfolio of
    `value` dollars loses by it. Raises ConfigError for a network without a preset, and for a value
    that is no amount.
    """
    preset = find_preset(network)
    total_value = Fraction(parse_amount(value, "--value", f"write {TEMPLATE_VALUE_USD}"))
    address_by_symbol = {token.symbol: token.address for token in preset.tokens}
    template_documents: list[TemplateDocument] = []
    for template in portfolio_templates.PORTFOLIO_TEMPLATES.values():
        token_shares = portfolio_templates.template_targets(template, preset)
        template_documents.append(
            {
                "name": template.name,
                "about": template.about,
                "shares_bps": dict(template.shares),
                "tokens": [
                    {"symbol": symbol, "address": address_by_symbol[symbol], "target": share_text}
                    for symbol, share_text in token_shares
                ],
                "policy": {
                    policy_key: dict(policy_value)
                    if isinstance(policy_value, Mapping)
                    else policy_value
                    for policy_key, policy_value in template.policy.items()
                },
                "limits": dict(template.limits),
                "weights": dict(template.allocator_values) or None,
                "futures_notional": None
                if template.futures_multiple is None
                else f"{template.futures_multiple}x",
                "past": past_results.template_result(network, template.name),
                "other_years": past_results.other_year_results(network, template.name),
                "minimum_capitals": capital.minimum_capitals(template),
                "tracking_loss": tracking_losses.config_loss_document(
                    capital.template_config(template, preset),
                    Fraction(1),
                    total_value,
                    COMPARED_CHOICES,
                ),
            }
        )
    return {
        "network": network,
        "chain_id": preset.chain_id,
        "templates": template_documents,
        "futures": FUTURES_NOTIONAL_NOTE,
        "gas_gwei": capital.ordinary_gas_gwei(),
    }
