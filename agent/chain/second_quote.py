"""Evidence for the guards: second quotes of each leg's pool, by the venue's contracts and by the
library uniswap-python, and all other data read just before a plan is judged.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar

from agent.chain.rpc import CallFailed, Transport
from agent.errors import ErrorCode, TrimtabError
from agent.foreign_text import failure_words
from agent.model import NATIVE_VENUE, Evidence, Leg, Plan, ScreenedToken, SecondQuote, StepInput
from agent.ports import Clock
from agent.units import NATIVE

if TYPE_CHECKING:
    from web3 import Web3

    from agent.chain.providers.one_block import BlockProvider


_CACHE_MODULE = "web3.middleware.cache"
_NAMES_LOCK = threading.Lock()


@contextmanager
def web3_6_names() -> Iterator[None]:
    """Give web3 7 the two names of web3 6 that uniswap-python imports, inside the context, which one
    thread at a time enters.

    The names are `web3.middleware.cache.construct_simple_cache_middleware`, which is called only
    with caching on (off here), and `web3.types.Middleware`, an annotation.
    """
    import web3.types

    cache_module: Any = ModuleType(_CACHE_MODULE)
    cache_module.construct_simple_cache_middleware = _no_caching
    web3_types: Any = web3.types
    with _NAMES_LOCK:
        sys.modules[_CACHE_MODULE] = cache_module
        web3_types.Middleware = Any
        try:
            yield
        finally:
            del sys.modules[_CACHE_MODULE], web3_types.Middleware


def _no_caching(*_: object, **__: object) -> NoReturn:
    raise RuntimeError("uniswap-python caches only under web3 6")


T = TypeVar("T")

ContractCall = tuple[str, Mapping[str, Any], tuple[object, ...]]
"""Address, ABI and arguments of a contract's function."""


class QuotedVenue(Protocol):
    """One deployment of an exchange, as far as second quotes ask for it."""

    @property
    def name(self) -> str:
        """Name of its legs."""

    @property
    def factory(self) -> str:
        """Address of its factory."""

    @property
    def uniswap_python_version(self) -> int | None:
        """Version of Uniswap by which uniswap-python quotes its pools; None if it cannot."""

    @property
    def uniswap_python_quoter(self) -> str:
        """The contract by which uniswap-python quotes; empty if it cannot."""

    def pool_lookup_call(self, leg: Leg, tier: int) -> ContractCall:
        """Return the call by which the factory names the leg's pool, of this tier."""

    def confirms_pool(self, leg: Leg, tier: int, address_int: int) -> bool:
        """Return whether the answer to pool_lookup_call confirms the leg's pool."""

    def quote_call(self, leg: Leg, amount_in_raw: int, tier: int) -> ContractCall:
        """Return the call of the quote. Raises NoSecondQuote if the contracts cannot quote the
        leg.
        """

    def decode_quote(self, words: Sequence[int]) -> int:
        """Return the output in the quote's answer, base units. Raises NoSecondQuote."""


class NoSecondQuote(TrimtabError):
    """Raised if the second source has no quote. The message contains no untrusted text (T17)."""


class VenueNotCovered(NoSecondQuote):
    """Raised by a source that cannot quote any pool of a venue."""


class Quoter(Protocol):
    """Source of second quotes: the output of one pool for an exact input."""

    def quote(self, leg: Leg, amount_in_raw: int, block_hash: str) -> int:
        """Return base units of `leg.token_out` for `amount_in_raw` in the leg's pool at that block.
        Raises NoSecondQuote.
        """

    def sources(self, leg: Leg) -> tuple[str, ...]:
        """Return the names of the sources that a quote of the leg comes from."""


def second_quotes(plan: Plan, block_hash: str, quoter: Quoter) -> tuple[SecondQuote, ...]:
    """Return one second quote per swap, in order, all at the plan's block. Wrapping has a fixed
    rate and is not quoted.

    A source quotes a pool's state at a block, so only the first leg in a pool can be quoted
    directly. A later leg in the same direction is quoted as the output for all input so far, less
    the output for the earlier input. In V3 that is exact to some base units of either token. In V2
    the first leg's fee stays in the reserves, which adds an error below fee · (input before /
    reserve): 0.3 bps if the earlier legs brought 1 % of the reserve. A leg opposite to an earlier
    one cannot be quoted at the snapshot's state and gets an error.
    """
    output_raw_by_key: dict[tuple[str, int], int] = {}
    token_in_by_pool: dict[str, str] = {}
    input_raw_by_pool: dict[str, int] = {}

    def total_out(leg: Leg, amount_in_raw: int) -> int:
        if amount_in_raw == 0:
            return 0
        quote_key = (leg.pool, amount_in_raw)
        if quote_key not in output_raw_by_key:
            output_raw_by_key[quote_key] = quoter.quote(leg, amount_in_raw, block_hash)
        return output_raw_by_key[quote_key]

    quotes: list[SecondQuote] = []
    for leg_index, leg in enumerate(plan.legs):
        if leg.venue == NATIVE_VENUE:
            continue
        if token_in_by_pool.setdefault(leg.pool, leg.token_in) != leg.token_in:
            reason = (
                "an earlier leg uses the pool in the other direction: it cannot be quoted at the"
                " snapshot's block"
            )
            quotes.append(SecondQuote(leg_index, None, reason))
            continue
        earlier_input_raw = input_raw_by_pool.get(leg.pool, 0)
        input_raw_by_pool[leg.pool] = earlier_input_raw + leg.amount_in_raw
        try:
            out_raw = total_out(leg, earlier_input_raw + leg.amount_in_raw) - total_out(
                leg, earlier_input_raw
            )
            quotes.append(SecondQuote(leg_index, out_raw, sources=quoter.sources(leg)))
        except NoSecondQuote as error:
            quotes.append(SecondQuote(leg_index, None, error.message))
    return tuple(quotes)


class UniswapPythonQuoter:
    """Quoter by uniswap-python over the agent's transport, limited to `eth_call` and without a key.
    There is one library object per venue. The venue's factory confirms once per pool that the
    library uses the leg's pool, since a factory's pools never change. The library is imported at
    the first quote (0.75 s).
    """

    @staticmethod
    def is_installed() -> bool:
        """True if the library is installed, as by the locks for the demo and for developers."""
        return importlib.util.find_spec("uniswap") is not None

    def __init__(self, transport: Transport, venues: Sequence[QuotedVenue]) -> None:
        self._transport = transport
        self._venues = {venue.name: venue for venue in venues}
        self._libraries: dict[str, _LibraryQuoter] = {}
        self._confirmed: set[tuple[str, str, int, str]] = set()

    def quote(self, leg: Leg, amount_in_raw: int, block_hash: str) -> int:
        """See Quoter."""
        venue = _venue_of(self._venues, leg)
        if not self.sources(leg):
            raise VenueNotCovered(f"uniswap-python cannot quote {leg.venue}", code=ErrorCode.VENUE)
        venue.quote_call(
            leg, amount_in_raw, leg.fee_pips
        )  # raises for a fee that its router does not quote
        if leg.venue not in self._libraries:
            self._libraries[leg.venue] = _open_library(self._transport, block_hash, venue)
        library = self._libraries[leg.venue]
        library.block_provider.move_to(self._transport, block_hash)
        pool_key = (leg.token_in, leg.token_out, leg.fee_pips, leg.pool)
        if pool_key not in self._confirmed:
            if without_foreign_errors(lambda: library.find_pool(leg)).lower() != leg.pool.lower():
                raise NoSecondQuote(_OTHER_POOL_MESSAGE, code=ErrorCode.POOL)
            self._confirmed.add(pool_key)
        return without_foreign_errors(lambda: library.quote(leg, amount_in_raw))

    def sources(self, leg: Leg) -> tuple[str, ...]:
        """See Quoter; empty for a venue that the library cannot quote."""
        venue = _venue_of(self._venues, leg)
        covers_venue = venue.uniswap_python_version is not None and venue.uniswap_python_quoter
        return (LIBRARY_QUOTER_NAME,) if covers_venue else ()


@dataclass(frozen=True, slots=True)
class _LibraryQuoter:
    block_provider: BlockProvider
    find_pool: Callable[[Leg], str]
    quote: Callable[[Leg, int], int]


def _venue_of(venues: Mapping[str, QuotedVenue], leg: Leg) -> QuotedVenue:
    if leg.venue not in venues:
        raise NoSecondQuote(
            f"venue {leg.venue} has no addresses for a second quote", code=ErrorCode.VENUE
        )
    return venues[leg.venue]


def _open_library(transport: Transport, block_hash: str, venue: QuotedVenue) -> _LibraryQuoter:
    from agent.chain.providers.checked import open_web3  # web3 is loaded to quote only
    from agent.chain.providers.one_block import BlockProvider

    block_provider = BlockProvider(transport, block_hash)
    open_library = _open_v2_library if venue.uniswap_python_version == 2 else _open_v3_library
    return open_library(open_web3(block_provider), block_provider, venue)


def _open_v2_library(w3: Web3, block_provider: BlockProvider, venue: QuotedVenue) -> _LibraryQuoter:
    library = _library(w3, 2, venue.factory, venue.uniswap_python_quoter)

    def find_pool(leg: Leg) -> str:
        return str(library.factory_contract.functions.getPair(leg.token_in, leg.token_out).call())

    def quote(leg: Leg, amount_in_raw: int) -> int:
        # Without an explicit route the library would route through WETH.
        route = [leg.token_in, leg.token_out]
        return int(library.get_price_input(*route, amount_in_raw, route=route))

    return _LibraryQuoter(block_provider, find_pool, quote)


def _open_v3_library(w3: Web3, block_provider: BlockProvider, venue: QuotedVenue) -> _LibraryQuoter:
    """Open the library for V3, and replace its mainnet contracts by the same interfaces at the
    config's addresses.
    """
    library = _library(w3, 3)
    library.factory_contract = type(library.factory_contract)(w3.to_checksum_address(venue.factory))
    library.quoter = type(library.quoter)(w3.to_checksum_address(venue.uniswap_python_quoter))

    def find_pool(leg: Leg) -> str:
        return str(
            library.factory_contract.functions.getPool(
                leg.token_in, leg.token_out, leg.fee_pips
            ).call()
        )

    def quote(leg: Leg, amount_in_raw: int) -> int:
        return int(
            library.get_price_input(leg.token_in, leg.token_out, amount_in_raw, fee=leg.fee_pips)
        )

    return _LibraryQuoter(block_provider, find_pool, quote)


def _library(w3: Web3, version: int, factory: str | None = None, router: str | None = None) -> Any:
    with web3_6_names():
        from uniswap import Uniswap

    return Uniswap(
        NATIVE,
        None,
        web3=w3,
        version=version,
        factory_contract_addr=factory,
        router_contract_addr=router,
    )


def without_foreign_errors(query: Callable[[], T]) -> T:
    """Run `query`, and convert any failure to a NoSecondQuote without untrusted text (T17)."""
    try:
        return query()
    except NoSecondQuote:
        raise
    except CallFailed as error:
        raise NoSecondQuote(
            f"the venue's quoter refused: {error.fault.message}", code=ErrorCode.QUOTER
        ) from None
    except TrimtabError as error:
        error_code = ErrorCode.METHOD if error.code == ErrorCode.METHOD else ErrorCode.NO_ANSWER
        raise NoSecondQuote(f"no answer: {error.message}", code=error_code) from None
    except Exception as error:  # uniswap-python raises Exception, ValueError and web3's errors
        raise NoSecondQuote(
            f"the library did not quote: {failure_words(error)}", code=ErrorCode.LIBRARY
        ) from None


def view_abi(
    name: str, inputs: Sequence[Mapping[str, object]], word_count: int
) -> dict[str, object]:
    """Return the ABI of a view function that returns exactly `word_count` words."""
    outputs = [{"name": "", "type": "uint256"}] * word_count
    abi_fields = {"type": "function", "name": name, "stateMutability": "view"}
    return {**abi_fields, "inputs": inputs, "outputs": outputs}


def input_abis(*abi_types: str) -> list[Mapping[str, object]]:
    """Return the ABI of inputs without names."""
    return [{"name": "", "type": abi_type} for abi_type in abi_types]


_OTHER_POOL_MESSAGE = "the venue's factory has a different pool for this pair and fee"


class ContractQuoter:
    """Quoter by the venue's contracts, over a transport that returns agreed answers. `tiers` are
    those of pools whose tier is not their fee, by address.
    """

    def __init__(
        self,
        transport: Transport,
        venues: Sequence[QuotedVenue],
        tiers: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self._transport = transport
        self._venues = {venue.name: venue for venue in venues}
        self._tiers = tiers

    def quote(self, leg: Leg, amount_in_raw: int, block_hash: str) -> int:
        """See Quoter. The venue's factory must name the leg's pool in the same request."""
        return without_foreign_errors(lambda: self._quote(leg, amount_in_raw, block_hash))

    def sources(self, leg: Leg) -> tuple[str, ...]:
        """See Quoter."""
        return (CONTRACT_QUOTER_NAME,)

    def _quote(self, leg: Leg, amount_in_raw: int, block_hash: str) -> int:
        venue = _venue_of(self._venues, leg)
        tier = self._tiers.get(leg.pool, leg.fee_pips)
        pool_address_int, quote_words = self._ask(
            venue.pool_lookup_call(leg, tier),
            venue.quote_call(leg, amount_in_raw, tier),
            block_hash,
        )
        if not venue.confirms_pool(leg, tier, pool_address_int):
            raise NoSecondQuote(_OTHER_POOL_MESSAGE, code=ErrorCode.POOL)
        return venue.decode_quote(quote_words)

    def _ask(
        self, pool_lookup_call: ContractCall, quote_call: ContractCall, block_hash: str
    ) -> tuple[int, Sequence[int]]:
        """Return the factory's pool and the words of the quote, by one request."""
        # web3 is loaded to quote only
        from agent.chain.providers.checked import open_web3, run_batch
        from agent.chain.providers.one_block import BlockProvider

        calls = pool_lookup_call, quote_call
        answer_sizes = tuple(32 * len(abi["outputs"]) for _, abi, _ in calls)
        w3 = open_web3(BlockProvider(self._transport, block_hash, answer_sizes))

        def read() -> list[Any]:
            with w3.batch_requests() as batch:
                for address, abi, arguments in calls:
                    contract: Any = w3.eth.contract(w3.to_checksum_address(address), abi=[abi])
                    batch.add(contract.functions[abi["name"]](*arguments))
                return batch.execute()

        pool_address_int, quote_words = run_batch(read)
        return pool_address_int, quote_words


@dataclass(frozen=True, slots=True)
class UnanimousQuoter:
    """Quoter that combines several named ones. The quotes of all that cover the venue must be equal
    to the base unit, since each comes from exact contracts at one block.
    """

    quoters: tuple[tuple[str, Quoter], ...]

    def quote(self, leg: Leg, amount_in_raw: int, block_hash: str) -> int:
        """See Quoter."""
        out_raw_by_source: dict[str, int] = {}
        for source_name, quoter in self.quoters:
            with suppress(VenueNotCovered):
                out_raw_by_source[source_name] = quoter.quote(leg, amount_in_raw, block_hash)
        if not out_raw_by_source:
            raise NoSecondQuote(f"no second source quotes {leg.venue}", code=ErrorCode.VENUE)
        if len(set(out_raw_by_source.values())) != 1:
            quotes_text = ", ".join(
                f"{source_name} {out_raw}" for source_name, out_raw in out_raw_by_source.items()
            )
            raise NoSecondQuote(
                f"second quotes differ: {quotes_text}", code=ErrorCode.QUOTES_DIFFER
            )
        return next(iter(out_raw_by_source.values()))

    def sources(self, leg: Leg) -> tuple[str, ...]:
        """See Quoter."""
        return tuple(name for _, quoter in self.quoters for name in quoter.sources(leg))


CONTRACT_QUOTER_NAME = "the venue's contracts"
LIBRARY_QUOTER_NAME = "uniswap-python"


def build_quoter(
    transport: Transport,
    venues: Sequence[QuotedVenue],
    tiers: Mapping[str, int] = MappingProxyType({}),
) -> UnanimousQuoter:
    """Return a quoter by the venues' contracts and, if installed, by uniswap-python, which has
    independent code for routing and decoding.
    """
    quoters: list[tuple[str, Quoter]] = [
        (CONTRACT_QUOTER_NAME, ContractQuoter(transport, venues, tiers))
    ]
    if UniswapPythonQuoter.is_installed():
        quoters.append((LIBRARY_QUOTER_NAME, UniswapPythonQuoter(transport, venues)))
    return UnanimousQuoter(tuple(quoters))


@dataclass(frozen=True, slots=True)
class EvidenceGatherer:
    """Implements ports.EvidenceSource.

    `read_kill_switch` reads the kill switch as (paused, reason), after everything else; if it
    raises, `Evidence.paused` is None, which its guard refuses like a pause (T14). `read_pins` reads
    the (address, code hash) pairs of `trimtab trust`. `quoter` is None without a second source; the
    guard then refuses unless it is off. `min_operators` must agree; endpoints of one operator count
    once (T2). `screen_tokens` tests the transfers of the plan's tokens.
    """

    read_kill_switch: Callable[[], tuple[bool, str]]
    read_pins: Callable[[], Sequence[tuple[str, str]]]
    quoter: Quoter | None
    clock: Clock
    min_operators: int
    screen_tokens: Callable[[StepInput, Plan], tuple[ScreenedToken, ...]] | None = None

    def gather(self, step: StepInput, plan: Plan) -> Evidence:
        """Gather the evidence for one plan. Raises the errors of reading the pins."""
        screened_tokens = None
        if self.screen_tokens is not None and step.limits.token_screen is not None:
            screened_tokens = self.screen_tokens(step, plan)
        quotes = self._second_quotes(step, plan)
        trusted_pins = tuple(self.read_pins())
        is_paused, pause_reason = self._kill_switch()
        return Evidence(
            paused=is_paused,
            pause_reason=pause_reason,
            pinned_code_hashes=trusted_pins,
            second_quotes=quotes,
            has_quorum=len(set(step.snapshot.operators)) >= self.min_operators,
            now_s=self.clock.now_s(),
            screened_tokens=screened_tokens,
        )

    def _second_quotes(self, step: StepInput, plan: Plan) -> tuple[SecondQuote, ...]:
        """Return second quotes, or none if their guard is off."""
        if step.limits.second_quote_deviation_bps is None:
            return ()
        if self.quoter is None:
            return tuple(
                SecondQuote(leg_index, None, "no second source is configured")
                for leg_index in range(len(plan.legs))
            )
        return second_quotes(plan, step.snapshot.head.hash, self.quoter)

    def _kill_switch(self) -> tuple[bool | None, str]:
        try:
            return self.read_kill_switch()
        except TrimtabError as error:
            return None, error.message
        except Exception as error:  # whatever fails, it is unknown, and refused
            return None, failure_words(error)
