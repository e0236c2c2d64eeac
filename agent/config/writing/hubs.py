"""Hubs of a config's text after its assets have changed."""

from __future__ import annotations

from typing import Any

import tomlkit

from agent.config.tables.portfolio import NATIVE


def update_hubs(portfolio: Any, wrapped_address: str, wrapped_hub: Any) -> None:
    """Remove hubs that are now assets, that of the wrapped native coin also if the native one is.
    Add `wrapped_hub`, the table of the wrapped coin, which prices gas, unless it is None or a hub
    already.
    """
    asset_addresses = {str(asset["address"]).lower() for asset in portfolio["assets"]}
    if NATIVE in asset_addresses:
        asset_addresses.add(wrapped_address.lower())
    hubs = portfolio.get("hubs", [])
    for hub_index in reversed(range(len(hubs))):
        if str(hubs[hub_index]["address"]).lower() in asset_addresses:
            del hubs[hub_index]
    hub_addresses = {str(hub["address"]).lower() for hub in hubs}
    if wrapped_hub is not None and str(wrapped_hub["address"]).lower() not in hub_addresses:
        if "hubs" not in portfolio:
            portfolio["hubs"] = tomlkit.aot()
        portfolio["hubs"].append(wrapped_hub)
    elif "hubs" in portfolio and not hubs:
        portfolio.pop("hubs")
