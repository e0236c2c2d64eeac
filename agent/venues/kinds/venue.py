"""One deployment of an exchange's contracts, as discovery and second quotes ask for it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from agent.chain.lens import CallItem, CallStatus, LensAnswer, answer_uint
from agent.chain.pools.reading import PoolRef
from agent.chain.second_quote import ContractCall
from agent.errors import ConfigError
from agent.model import Leg, Pool, PoolMaker
from agent.signing.calldata import address_from_word
from agent.signing.pool_makers import pool_address

NO_HOOKS = "0x"


@dataclass(frozen=True, slots=True)
class AmmVenue(ABC):
    """One deployment of a kind of exchange: its addresses in the config, empty where the kind has
    no such contract or the config does not name it.

    `name` is that of its pools and legs. `router` is the kind's own router, `quoter` the QuoterV2,
    `quoter_v1` the Quoter for uniswap-python. `deployer` makes the pools if not the factory, as
    clones of `pool_implementation` where they are clones, `init_code_hash` is that of their init
    code. `tiers` are fees and tick spacings of pools with `hooks`, `wrapped_native` is
    the chain's. `pools` is the config's list, None to search.
    """

    name: str
    factory: str
    router: str = ""
    quoter: str = ""
    quoter_v1: str = ""
    deployer: str = ""
    pool_implementation: str = ""
    init_code_hash: str = ""
    fee_pips: int = 0
    fee_tiers: Sequence[int] = ()
    tick_spacings: Sequence[int] = ()
    tiers: Sequence[tuple[int, int]] = ()
    hooks: str = NO_HOOKS
    wrapped_native: str = ""
    pools: Sequence[str] | None = None

    pool_class: ClassVar[type[Pool]]
    """State of its pools."""
    router_factory_selector: ClassVar[bytes] = b""
    """Selector of SwapRouter02's getter of the factory in whose pools it trades; empty if in
    none.
    """
    uniswap_python_version: ClassVar[int | None] = None
    """Version of Uniswap by which uniswap-python quotes its pools; None if it cannot."""

    @property
    @abstractmethod
    def default_init_code_hash(self) -> str:
        """Hash of the pools' init code if the config names none, 0x-hex."""

    @property
    def maker(self) -> PoolMaker:
        """Who makes its pools."""
        return PoolMaker(
            self.pool_class.style,
            self.deployer or self.factory,
            self.init_code_hash or self.default_init_code_hash,
        )

    def require_derived(self, pool: PoolRef) -> None:
        """Raise ConfigError unless the pool's address follows from who makes it, which is how the
        Rebalancer finds it.
        """
        address = pool_address(self.maker, pool.token0, pool.token1, pool.tier)
        if address != pool.address:
            raise ConfigError(
                f"venues.{self.name}.init_code_hash: {self.maker.init_code_hash} makes the pool"
                f" {address}, but the factory {self.factory} names {pool.address}",
                "write the hash of this deployment's pools, or remove the venue",
            )

    @property
    def uniswap_python_quoter(self) -> str:
        """The contract by which uniswap-python quotes; empty if it cannot."""
        return ""

    @abstractmethod
    def search_calls(self, pairs: Sequence[tuple[str, str]]) -> list[CallItem]:
        """Return the first calls: the factory's pools for every pair, or the tokens of each named
        pool.
        """

    @abstractmethod
    def candidates(
        self, pairs: Sequence[tuple[str, str]], answers: Sequence[LensAnswer]
    ) -> list[PoolRef]:
        """Return candidates from the answers to search_calls. Raises ConfigError if the factory or
        a named pool is not a contract of this kind.
        """

    @abstractmethod
    def check_calls(self, pool: PoolRef) -> list[CallItem]:
        """Return the calls that check a candidate: the factory's pool, and what tells its price."""

    @abstractmethod
    def checked_pool(self, pool: PoolRef, answers: Sequence[LensAnswer]) -> PoolRef | None:
        """Return the pool with what the answers to check_calls add, None if it has no price. Raises
        ConfigError if the factory did not create it.
        """

    @abstractmethod
    def pool_lookup_call(self, leg: Leg, tier: int) -> ContractCall:
        """Return the call by which the factory names the leg's pool, of this tier."""

    def confirms_pool(self, leg: Leg, tier: int, address_int: int) -> bool:
        """Return whether the answer to pool_lookup_call confirms the leg's pool."""
        return address_int == int(leg.pool, 16)

    @abstractmethod
    def quote_call(self, leg: Leg, amount_in_raw: int, tier: int) -> ContractCall:
        """Return the call by which the venue's contracts quote the leg for an input. Raises
        NoSecondQuote if they cannot.
        """

    def decode_quote(self, words: Sequence[int]) -> int:
        """Return the output in the words of the quote's answer, base units. Raises
        NoSecondQuote.
        """
        return words[0]

    def factory_pool(self, answer: LensAnswer) -> str | None:
        """Return the pool in the factory's answer, None for the zero address. Raises ConfigError if
        the contract is not a factory.
        """
        address_int = answer_uint(answer, 160)
        if isinstance(address_int, CallStatus):
            raise ConfigError(
                f"venues.{self.name}.factory {self.factory}: {address_int.why}",
                "check the address and the chain id",
            )
        return address_from_word(address_int) if address_int else None

    def pool_token(self, pool: str, answer: LensAnswer) -> str:
        """Return a token of a named pool. Raises ConfigError if it is not a pool."""
        address_int = answer_uint(answer, 160)
        if isinstance(address_int, CallStatus):
            raise ConfigError(
                f"venues.{self.name}.pools: {pool}: {address_int.why}",
                "check the address and the chain id",
            )
        return address_from_word(address_int)

    def require_created_by_factory(self, pool: PoolRef, answer: LensAnswer) -> None:
        """Raise ConfigError unless the factory's answer is this pool, because anyone can deploy a
        similar contract.
        """
        if self.factory_pool(answer) != pool.address:
            raise ConfigError(
                f"venues.{self.name}.pools: {pool.address} was not created by the factory"
                f" {self.factory}",
                "remove it; it may be a trap",
            )
