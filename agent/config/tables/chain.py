"""[chain] and [[chain.rpc]]: the chain, its endpoints, and the operators that must agree."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, model_validator

from agent.config.tables.fields import (
    Address,
    ConfigTable,
    Duration,
    PageAddress,
    Variable,
    VariableTable,
)
from agent.errors import ConfigError
from agent.hosts import LOOPBACK_HOSTS
from agent.model.rollups import ARBITRUM_CHAINS, LOCAL_CHAIN_IDS, OP_STACK_CHAINS

LONGEST_TIMEOUT_S = 60


class RpcTable(VariableTable):
    """One endpoint."""

    operator: str = Field(min_length=1, pattern=r"^[A-Za-z0-9._-]+$")
    """Who runs it; endpoints of one operator count once."""
    url: SecretStr | None = None
    """Its address, a secret; or `url_env`."""
    url_env: Variable | None = None
    """Variable with its address."""
    timeout: Duration = 10
    """Longest time of one request, 1s to 60s."""
    calls_per_second: int | None = Field(default=None, ge=1, le=100_000)
    """Most calls a second to this operator, of all portfolios of the process, and of all workers at a
    database (docs/endpoints.md); unlimited if omitted.
    """

    @model_validator(mode="after")
    def _check_url_and_timeout(self) -> RpcTable:
        if (self.url is None) == (self.url_env is None):
            raise ValueError("give exactly one of url and url_env")
        if not 0 < self.timeout <= LONGEST_TIMEOUT_S:
            raise ValueError(
                f"timeout: {self.timeout}s; write 1s to {LONGEST_TIMEOUT_S}s, for example 10s"
            )
        return self

    def read_url(self) -> str:
        """Return the URL, from file or environment. Raises ConfigError if the variable is not
        set.
        """
        if self.url is not None:
            return self.url.get_secret_value()
        remedy = "export it, or put it into .env beside the config"
        return self.required_variable("chain.rpc.url_env", self.url_env, remedy)


def _remote_address(endpoint: RpcTable) -> object:
    """Return an endpoint's URL; of a node of this machine its operator."""
    url = endpoint.read_url().rstrip("/")
    with suppress(ValueError):  # no URL: the connection refuses it
        if urlsplit(url).hostname in LOOPBACK_HOSTS:
            return endpoint.operator
    return url


class ChainTable(ConfigTable):
    """The chain, and the endpoints that read and send (docs/endpoints.md)."""

    chain_id: int = Field(gt=0)
    """Number of the chain, which every endpoint must answer."""
    confirmations: int = Field(ge=1, le=64)
    """Blocks from that of a transaction on, itself included, until it is final."""
    wrapped_native: Address
    """Contract of the wrapped native coin, such as WETH."""
    rpc: list[RpcTable] = Field(min_length=1)
    """Endpoints."""
    single_operator: str | None = None
    """The only operator, whose answers are then trusted alone; local chains do not need it."""
    quorum: int | None = None
    """Operators that must agree, if more than two."""
    finality: Literal["safe", "finalized", "blocks"] | None = None
    """Block tag that a final transaction has reached, beside its confirmations; "blocks": these
    alone; default: "finalized" on rollups, else "blocks".
    """
    max_lag_blocks: int = Field(default=3, ge=0, le=64)
    """Largest distance between the newest blocks of the operators while anything is signed."""
    fork: bool = False
    """A local copy of a live chain with that chain's id, on which only published test keys sign."""
    explorer: PageAddress = ""
    """Block explorer to which the dashboard links transactions."""

    @model_validator(mode="after")
    def _check_operators(self) -> ChainTable:
        operators = sorted({endpoint.operator for endpoint in self.rpc})
        if self.single_operator is not None and operators != [self.single_operator]:
            raise ValueError(
                f"single_operator: {self.single_operator}, but [[chain.rpc]] names"
                f" {', '.join(operators)}; correct the name, or remove it to have two agree"
            )
        if repeated := self._shared_by_operators(lambda endpoint: endpoint.url or endpoint.url_env):
            raise ValueError(f"rpc: {repeated}; give each operator its own")
        if self.quorum is None:
            return self
        if self.quorum < self._min_quorum:
            raise ValueError(
                f"quorum: {self.quorum} is below the {self._min_quorum} operators that must agree"
                " here; raise it, or name a single operator in single_operator"
            )
        if self.quorum > (operator_count := len(operators)):
            raise ValueError(
                f"quorum: {self.quorum} operators must agree, but [[chain.rpc]] names {operator_count};"
                " add endpoints, or lower quorum"
            )
        return self

    def require_own_endpoints(self) -> None:
        """Raise ConfigError if the variables of two operators have one URL, or if one is not set. A
        node of this machine is the owner's own, whatever it is called.
        """
        if repeated := self._shared_by_operators(_remote_address):
            raise ConfigError(f"chain.rpc: {repeated}", "give each operator its own")

    def _shared_by_operators(self, address_of: Callable[[RpcTable], object]) -> str:
        """Return which operators have one endpoint; "" if none, or on a local chain."""
        operator_by_address: dict[object, str] = {}
        for endpoint in () if self.is_local else self.rpc:
            operator = operator_by_address.setdefault(address_of(endpoint), endpoint.operator)
            if operator != endpoint.operator:
                return (
                    f"{operator} and {endpoint.operator} have the same URL or variable, and one"
                    " endpoint cannot agree with itself"
                )
        return ""

    @property
    def is_local(self) -> bool:
        """True for development chains and local forks."""
        return self.fork or self.chain_id in LOCAL_CHAIN_IDS

    @property
    def finality_tag(self) -> str | None:
        """Block tag of final transactions; None if blocks are counted alone. On a rollup both tags
        follow the base chain (specs.optimism.io, "Derivation"; docs.arbitrum.io, "Finality").
        """
        is_rollup = self.chain_id in {**OP_STACK_CHAINS, **ARBITRUM_CHAINS}
        default_tag = "finalized" if is_rollup and not self.is_local else "blocks"
        tag = self.finality or default_tag
        return None if tag == "blocks" else tag

    @property
    def min_operators(self) -> int:
        """Operators that must agree: `quorum`, else two (one if local or `single_operator`)."""
        return max(self._min_quorum, self.quorum or 0)

    @property
    def _min_quorum(self) -> int:
        trusts_single_operator = {endpoint.operator for endpoint in self.rpc} == {
            self.single_operator
        }
        return 1 if self.is_local or trusts_single_operator else 2
