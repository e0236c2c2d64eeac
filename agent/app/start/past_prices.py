"""Past prices that the rules of a config need before the first cycle: which, and reading them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from agent import wiring
from agent.app.cycles import Progress, ignore_progress
from agent.chain.rpc import Transport
from agent.config.build import build_policy
from agent.config.load import load_config
from agent.config.loaded import LoadedConfig
from agent.config.weights import offline_portfolio
from agent.errors import TrimtabError
from agent.layers.settings import build_layer_settings
from agent.units import rough_duration
from agent.wiring.price_windows import fill_price_windows, needed_windows

NEW_CONFIG_TIMEOUT_S = 3
"""Longest time of a request while a new config is written, so that it does not wait offline."""


def needed_past_prices(config: LoadedConfig | Path | str) -> str:
    """Return what past prices an allocator, a zone's estimate or a market event of the config needs,
    and the command that reads them; empty if no rule needs any. Raises ConfigError.
    """
    loaded_config = load_config(config)
    portfolio = offline_portfolio(loaded_config)
    windows = needed_windows(
        portfolio,
        build_policy(loaded_config.config),
        build_layer_settings(loaded_config, portfolio),
    )
    if not windows:
        return ""
    labels = dict.fromkeys(
        portfolio.token(token).label for window in windows for token in window.tokens
    )
    span_text = rough_duration(max(window.span_s for window in windows))
    return (
        f"{span_text} of past prices of {', '.join(labels)} are needed: trimtab trust --config"
        f" {shlex.quote(str(loaded_config.path))} reads them"
    )


def read_past_prices(
    config: LoadedConfig | Path | str,
    progress: Progress = ignore_progress,
    transports: Sequence[Transport] | None = None,
) -> tuple[str, ...]:
    """Read the past prices that the rules of the config need, once its contracts are pinned, and
    return a line on each token. Empty if no rule needs any.
    """
    loaded_config = load_config(config)
    try:
        if not needed_past_prices(loaded_config):
            return ()
        with wiring.open_context(loaded_config, transports) as context:
            return fill_price_windows(context, progress)
    except TrimtabError as error:
        return (f"past prices were not read, the first cycle reads them: {error.message}",)


def read_first_prices(
    config: Path,
    progress: Progress = ignore_progress,
    transports: Sequence[Transport] | None = None,
) -> tuple[str, ...]:
    """Read the past prices that the rules of a new config need, if its endpoints answer at once, and
    return a line on each token; else what is needed, and why it was not read.
    """
    needed_text = "past prices"
    try:
        loaded_config = load_config(config)
        if not (needed_text := needed_past_prices(loaded_config)):
            return ()
        if transports is None:
            transports = [
                wiring.open_transport(endpoint.model_copy(update={"timeout": NEW_CONFIG_TIMEOUT_S}))
                for endpoint in loaded_config.config.chain.rpc
            ]
        with wiring.open_context(loaded_config, transports) as context:
            lines = fill_price_windows(context, progress)
            fault = context.store.prices.fetch_fault()
    except TrimtabError as error:
        lines = ()
        fault = error.message
    return (f"{needed_text} (not read yet: {fault})",) if fault else lines
