"""The keys of [service]: what `trimtab run` tells of itself, to whom, and how long it keeps what it saw."""

from __future__ import annotations

import ipaddress
import os
from typing import Literal

from pydantic import Field, SecretStr, model_validator

from agent.config.fields import Duration, Variable
from agent.config.table import Table
from agent.errors import ConfigError

SHORTEST_HANG_S = 30
"""A request to an endpoint may take a minute with its retries; a bound below this would end sound runs."""
LONGEST_WAIT_S = 3_600
"""A look that waits longer for the wallet has told nobody for an hour that it cannot act."""


class ServiceTable(Table):
    """`listen` serves metrics and health on loopback; an address beyond it has to be named once more in `listen_beyond_loopback`.

    `heartbeat_url` is a secret and is asked after each good look. A look without a sign of life for `hang_after` ends the
    process. `keep_steps` looks without a transaction are kept, the newest. Whoever wants to act waits up to `wallet_wait` for another
    process that has the wallet.
    """

    listen: str | None = None
    listen_beyond_loopback: str | None = None
    heartbeat_url: SecretStr | None = None
    heartbeat_url_env: Variable | None = None
    heartbeat_method: Literal["GET", "POST"] = "GET"
    log_format: Literal["text", "json"] | None = None
    hang_after: Duration = 600
    wallet_wait: Duration = 120
    keep_steps: int = Field(default=2_000, ge=10, le=1_000_000)

    @model_validator(mode="after")
    def _sound(self) -> ServiceTable:
        if self.heartbeat_url is not None and self.heartbeat_url_env is not None:
            raise ValueError("heartbeat_url and heartbeat_url_env are both given; keep one")
        if self.heartbeat_url is not None:
            _require_http(self.heartbeat_url.get_secret_value(), "heartbeat_url")
        if self.hang_after < SHORTEST_HANG_S:
            raise ValueError(f"hang_after: {self.hang_after}s would end sound looks; write 30s or more, such as 10m")
        if not 1 <= self.wallet_wait <= LONGEST_WAIT_S:
            raise ValueError(f"wallet_wait: {self.wallet_wait}s is not between a second and an hour; write for example 2m")
        if self.listen is not None:
            host, _ = _parse(self.listen)
            if not ipaddress.ip_address(host).is_loopback and self.listen_beyond_loopback != host:
                raise ValueError(
                    f"listen: {host} can be reached from other machines, and tells what the wallet holds; write 127.0.0.1, or name it "
                    f'once more in listen_beyond_loopback = "{host}"'
                )
        elif self.listen_beyond_loopback is not None:
            raise ValueError("listen_beyond_loopback: without listen it allows nothing; set listen, or remove it")
        return self

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port to listen on."""
        return None if self.listen is None else _parse(self.listen)

    def heartbeat(self) -> str | None:
        """The heartbeat's URL, from the file or the environment. Raises ConfigError for a variable that is not set, or holds no URL."""
        if self.heartbeat_url is not None:
            return self.heartbeat_url.get_secret_value()
        if self.heartbeat_url_env is None:
            return None
        url = os.environ.get(self.heartbeat_url_env, "")
        try:
            _require_http(url, "heartbeat_url_env")
        except ValueError:
            raise ConfigError(
                f"service.heartbeat_url_env: environment variable {self.heartbeat_url_env} holds no http or https address", "export it"
            ) from None
        return url


def _require_http(url: str, key: str) -> None:
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"{key}: not an http or https address")


def _parse(listen: str) -> tuple[str, int]:
    """Host and port of "127.0.0.1:9464" or "[::1]:9464"."""
    host, _, port = listen.rpartition(":")
    try:
        found = str(ipaddress.ip_address("127.0.0.1" if host == "localhost" else host.removeprefix("[").removesuffix("]")))
    except ValueError:
        raise ValueError(f"listen: {listen!r} names no IP address and port; write 127.0.0.1:9464") from None
    if not port.isdecimal() or int(port) > 65_535:
        raise ValueError(f"listen: {listen!r} names no port; write 127.0.0.1:9464")
    return found, int(port)
