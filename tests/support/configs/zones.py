"""The template's config with a no-trade zone."""

from __future__ import annotations

from tests.support.configs.samples import config_text

TRIGGER = 'trigger = { kind = "zone", tracking_error_cost = "0.5bps", horizon = "30d" }'
RISK = 'volatilities = { WETH = "80%", USDC = "0.5%" }\ncorrelation = "0%"\n'


def config_with_zone(risk: str = RISK, trigger: str = TRIGGER, destination: str = "zone", changes: tuple[tuple[str, str], ...] = ()) -> str:
    return config_text(
        ('trigger = { kind = "threshold", relative = "10%" }', trigger),
        ('destination = "target" ', f'destination = "{destination}" '),
        ("\n[limits]", f"\n[policy.risk]\n{risk}\n[limits]" if risk else "\n[limits]"),
        *changes,
    )
