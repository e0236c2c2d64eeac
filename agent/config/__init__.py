"""trimtab.toml: its schema, validation, and conversion to the model types."""

from agent.config.build import (
    build_execution,
    build_limits,
    build_policy,
    build_portfolio,
    build_reference,
)
from agent.config.load import load_config, parse_config
from agent.config.schema import Config

__all__ = [
    "Config",
    "build_execution",
    "build_limits",
    "build_policy",
    "build_portfolio",
    "build_reference",
    "load_config",
    "parse_config",
]
