"""[service]: logs, health, heartbeat and retention of `trimtab run`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr, model_validator

from agent.config.tables.fields import Duration, Variable, VariableTable
from agent.errors import ConfigError

SHORTEST_HANG_S = 30
"""Minimum of hang_after. Less would end healthy runs while an endpoint is slow."""
LONGEST_WAIT_S = 3_600
"""Longest wait for the wallet, since a waiting cycle logs nothing."""


class ServiceTable(VariableTable):
    """Monitoring of `trimtab run` (docs/service.md)."""

    heartbeat_url: SecretStr | None = None
    """Requested after each good cycle: a dead man's switch; a secret."""
    heartbeat_url_env: Variable | None = None
    """Variable with that address."""
    heartbeat_method: Literal["GET", "POST"] = "GET"
    """How it is requested."""
    log_format: Literal["text", "json"] | None = None
    """Format of log lines on stderr; default: no log lines."""
    hang_after: Duration = 600
    """A cycle without progress for this long ends the process; at least 30s."""
    wallet_wait: Duration = 120
    """How long a process waits for the wallet's lock; 1s to 1h."""
    keep_steps: int = Field(default=2_000, ge=10, le=1_000_000)
    """Newest cycles without a transaction that are kept; those with one are kept for good."""

    @model_validator(mode="after")
    def _check_values(self) -> ServiceTable:
        if self.heartbeat_url is not None and self.heartbeat_url_env is not None:
            raise ValueError("heartbeat_url and heartbeat_url_env are both given; keep one")
        if self.heartbeat_url is not None:
            _require_http(self.heartbeat_url.get_secret_value(), "heartbeat_url")
        if self.hang_after < SHORTEST_HANG_S:
            raise ValueError(
                f"hang_after: {self.hang_after}s would end healthy cycles; write 30s or more, such"
                " as 10m"
            )
        if not 1 <= self.wallet_wait <= LONGEST_WAIT_S:
            raise ValueError(
                f"wallet_wait: {self.wallet_wait}s is not between 1s and 1h; write for example 2m"
            )
        return self

    def read_heartbeat_url(self) -> str | None:
        """Return the heartbeat's URL, from the file or the environment; None without one. Raises
        ConfigError if the variable is not set or has no URL.
        """
        if self.heartbeat_url is not None:
            return self.heartbeat_url.get_secret_value()
        if self.heartbeat_url_env is None:
            return None
        heartbeat_url = self.variable(self.heartbeat_url_env)
        try:
            _require_http(heartbeat_url, "heartbeat_url_env")
        except ValueError:
            raise ConfigError(
                f"service.heartbeat_url_env: environment variable {self.heartbeat_url_env} is not"
                " set to an http or https address",
                "export it",
            ) from None
        return heartbeat_url


def _require_http(url: str, key: str) -> None:
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"{key}: not an http or https address")
