"""Parsers of single config values: addresses, shares, durations, gas prices, "off"."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Any, NoReturn, TypeVar, get_args
from urllib.parse import urlsplit

from eth_utils.address import (
    is_checksum_address,
    is_checksum_formatted_address,
    to_checksum_address,
)
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, PrivateAttr

from agent.calls import remedy_of_choice
from agent.config.variables import VARIABLES_KEY, Variables
from agent.errors import ConfigError
from agent.hosts import LOOPBACK_HOSTS
from agent.units import DAY_S, HOUR_S, parse_bps, parse_share_with_unit_bps, safe_label

ChoiceT = TypeVar("ChoiceT")
OFF = "off"
SIGNAL_FILE_PATTERN = r"^[\w.-]+\.py:[A-Za-z_]\w*$"
SHA256_PATTERN = r"^[0-9a-f]{64}$"
INIT_CODE_HASH_PATTERN = r"^0x[0-9a-f]{64}$"
VENUE_LABEL_PATTERN = r"^[a-z0-9_]{1,20}$"
_Parser = Callable[[object], object]
_SECONDS_BY_UNIT = {"w": 7 * DAY_S, "d(?:ays?)?": DAY_S, "h": HOUR_S, "m(?:in)?": 60, "s": 1}
_DURATION = re.compile(
    r"(?=.)"
    + r"\s*".join(
        rf"(?:([0-9]{{1,12}}(?:\.[0-9]{{1,12}})?)\s*{unit})?" for unit in _SECONDS_BY_UNIT
    )
)
"""A number for each unit, in descending order; each may be missing."""
_WEI_BY_UNIT = {"wei": 1, "gwei": 10**9}
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_PRIVATE_KEY = re.compile(r"(0x)?[0-9a-fA-F]{64}")
_KEYRING_ENTRY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}/[A-Za-z0-9][A-Za-z0-9._-]{0,59}")
_BURN_ADDRESSES = {0: "the zero address"} | dict.fromkeys(
    (0xDEAD, 0xDEAD << 144, 0xDEAD << 144 | 0x42069420694206942069), "a burn address"
)
_GAS_PRICE = re.compile(r"([0-9]{1,24}(?:\.[0-9]{1,24})?)\s*(gwei|wei)")


def without_spaces(config_value: object) -> str:
    """Return a string without its spaces; empty if the value is not a string."""
    return config_value.strip().replace(" ", "") if isinstance(config_value, str) else ""


def parse_address(address: object, field: str = "address") -> str:
    """Parse an address to its checksummed form. A wrong checksum is rejected as a likely typo, and
    an address at which coins are lost. This and the other parsers raise ConfigError naming `field`.
    """
    if address == "native":
        raise ConfigError(
            f"{field}: only an asset may be the native coin", "name its wrapped token here"
        )
    if isinstance(address, int) and not isinstance(address, bool):
        raise ConfigError(
            f"{field}: {address:#x} is a number, not an address",
            'write it in quotes, such as "0x…"',
        )
    if not isinstance(address, str) or not re.fullmatch(r"0x[0-9a-fA-F]{40}", address):
        raise ConfigError(f"{field}: {address!r} is not an address", "write 0x and 40 hex digits")
    if int(address, 16) in _BURN_ADDRESSES:
        raise ConfigError(
            f"{field}: {address} is {_BURN_ADDRESSES[int(address, 16)]}, which nobody owns",
            "write another, or leave it out",
        )
    if is_checksum_formatted_address(address) and not is_checksum_address(address):
        checksummed_address = to_checksum_address(address)
        raise ConfigError(
            f"{field}: {address} has a wrong checksum; the right form is {checksummed_address}",
            "compare each digit with its source",
        )
    return str(to_checksum_address(address))


def parse_choice(choice_text: str, field: str, choice_by_name: Mapping[str, ChoiceT]) -> ChoiceT:
    """Return the choice of a name."""
    if choice_text not in choice_by_name:
        raise ConfigError(
            f"{field}: {choice_text!r}", remedy_of_choice(choice_text, choice_by_name)
        )
    return choice_by_name[choice_text]


def parse_pairs(pairs_text: str, option: str) -> dict[str, str]:
    """Parse comma-separated SYMBOL=TEXT into text by symbol. Raises ConfigError naming the
    option.
    """
    text_by_symbol: dict[str, str] = {}
    for pair_text in pairs_text.split(","):
        symbol, equals, entry_text = (piece.strip() for piece in pair_text.partition("="))
        if not equals or not entry_text or safe_label(symbol, "") != symbol or not symbol:
            raise ConfigError(
                f"{option}: {pair_text.strip()!r} is not SYMBOL=NUMBER",
                "for example BTC=50,ETH=30,USD=20",
            )
        if symbol in text_by_symbol:
            raise ConfigError(f"{option}: {symbol} is given twice", "give each asset once")
        text_by_symbol[symbol] = entry_text
    return text_by_symbol


def parse_duration_s(duration: object, field: str = "duration") -> int:
    """Parse a duration such as "90s", "30m", "1h 30 min", "7d" or "4w" to whole seconds."""
    match = _DURATION.fullmatch(duration.strip()) if isinstance(duration, str) else None
    if match is None:
        raise ConfigError(f"{field}: {duration!r} is not a duration", "write 90s, 30m, 1h or 7d")
    seconds = sum(
        (
            Fraction(number) * unit_s
            for number, unit_s in zip(match.groups(), _SECONDS_BY_UNIT.values(), strict=True)
            if number
        ),
        Fraction(0),
    )
    if seconds.denominator != 1:
        raise ConfigError(
            f"{field}: {duration!r} is not a whole number of seconds",
            "use a smaller unit, such as 90s",
        )
    return seconds.numerator


def parse_gas_price_wei(gas_price: object, field: str = "gas price") -> int:
    """Parse a gas price such as "60 gwei" to wei."""
    match = _GAS_PRICE.fullmatch(gas_price.strip()) if isinstance(gas_price, str) else None
    if match is None:
        raise ConfigError(f"{field}: {gas_price!r} is not a gas price", "write for example 60 gwei")
    wei = Fraction(Decimal(match[1])) * _WEI_BY_UNIT[match[2]]
    if wei.denominator != 1:
        raise ConfigError(
            f"{field}: {gas_price!r} is not a whole number of wei", "round it to whole wei"
        )
    return wei.numerator


def parse_variable(variable_name: object, field: str = "variable") -> str:
    """Parse the name of an environment variable. A URL or key in its place is rejected without
    repeating it in the message.
    """
    if (
        not isinstance(variable_name, str)
        or not _VARIABLE_NAME.fullmatch(variable_name)
        or _PRIVATE_KEY.fullmatch(variable_name)
    ):
        raise ConfigError(
            f"{field}: not the name of an environment variable",
            "use letters, digits and _, such as RPC_URL_1",
        )
    return variable_name


def parse_keyring(keyring_entry: object, field: str = "keyring") -> str:
    """Parse service and name of an entry in the keyring, "trimtab/main". A key in its place is
    rejected without repeating it in the message.
    """
    if (
        not isinstance(keyring_entry, str)
        or not _KEYRING_ENTRY.fullmatch(keyring_entry)
        or any(_PRIVATE_KEY.fullmatch(part) for part in keyring_entry.split("/"))
    ):
        raise ConfigError(
            f"{field}: not the name of a keyring entry",
            "write service/name in letters, digits, . _ -, such as trimtab/main",
        )
    return keyring_entry


def _parse_plain_decimal(amount: object) -> str:
    """Validate a non-negative plain decimal. It remains text until the token's decimals are known."""
    amount_text = (
        str(amount) if isinstance(amount, int) and not isinstance(amount, bool) else amount
    )
    if isinstance(amount_text, str) and re.fullmatch(r"[0-9]+(\.[0-9]+)?", amount_text.strip()):
        return amount_text.strip()
    raise ValueError(
        f"{amount!r} is not an amount; write it in quotes as a plain decimal such as '1.5'"
    )


def _parse_switch(on_or_off: object) -> bool | None:
    """Return True for "on" and None for "off"."""
    if on_or_off == "on":
        return True
    if on_or_off == OFF:
        return None
    raise ValueError(f"{on_or_off!r} is neither 'on' nor 'off'")


def to_value_error(error: ConfigError) -> ValueError:
    """Return the error in pydantic's form, with the remedy and without the field's name, which
    pydantic adds.
    """
    return ValueError(
        "; ".join(filter(None, (error.message.removeprefix("value: "), error.remedy)))
    )


def _validator_of(parse: _Parser) -> _Parser:
    """Make a pydantic validator from a parser of this module."""

    def validate(config_value: object) -> object:
        try:
            return parse(config_value)
        except ConfigError as error:
            raise to_value_error(error) from None

    return validate


def _or_off(parse: _Parser) -> _Parser:
    def validate(config_value: object) -> object:
        return None if config_value == OFF else parse(config_value)

    return validate


PAGE_ADDRESS = re.compile(r"(https?://[A-Za-z0-9.:-]+(/[A-Za-z0-9._~/-]*)?)?")


def _require_page_address(page_address: str) -> str:
    if not PAGE_ADDRESS.fullmatch(page_address):
        raise ValueError("it is not the address of a page; write https://NAME, no user, no query")
    return page_address


def is_base_url(url: str) -> bool:
    """Return whether the text is an https URL, or an http URL on this machine, to which a path can
    be appended (no query, fragment or trailing slash).
    """
    url_parts = urlsplit(url)
    is_local = url_parts.scheme == "http" and url_parts.hostname in LOOPBACK_HOSTS
    is_plain = not (set("?#") & set(url) or url.endswith("/"))
    return bool(is_plain and url_parts.hostname and (url_parts.scheme == "https" or is_local))


Address = Annotated[str, BeforeValidator(_validator_of(lambda v: parse_address(v, "value")))]
AddressOrOff = Annotated[
    str | None, BeforeValidator(_or_off(_validator_of(lambda v: parse_address(v, "value"))))
]
Weight = Annotated[int, BeforeValidator(_validator_of(lambda v: parse_bps(v, "value")))]
"""A target weight. A bare fraction is allowed (R1.1), because the sum of weights, 100 %, reveals a
wrong unit.
"""
Share = Annotated[
    int, BeforeValidator(_validator_of(lambda v: parse_share_with_unit_bps(v, "value")))
]
"""A share with its unit."""
Duration = Annotated[int, BeforeValidator(_validator_of(lambda v: parse_duration_s(v, "value")))]
Variable = Annotated[str, BeforeValidator(_validator_of(lambda v: parse_variable(v, "value")))]
KeyringName = Annotated[str, BeforeValidator(_validator_of(lambda v: parse_keyring(v, "value")))]
PageAddress = Annotated[str, AfterValidator(_require_page_address)]
"""The http or https address of a web page, without user and query, or empty."""
PlainDecimal = Annotated[str, BeforeValidator(_parse_plain_decimal)]
ShareOrOff = Annotated[
    int | None,
    BeforeValidator(_or_off(_validator_of(lambda v: parse_share_with_unit_bps(v, "value")))),
]
DurationOrOff = Annotated[
    int | None, BeforeValidator(_or_off(_validator_of(lambda v: parse_duration_s(v, "value"))))
]
GasPrice = Annotated[int, BeforeValidator(_validator_of(lambda v: parse_gas_price_wei(v, "value")))]
GasPriceOrOff = Annotated[
    int | None, BeforeValidator(_or_off(_validator_of(lambda v: parse_gas_price_wei(v, "value"))))
]
Switch = Annotated[bool | None, BeforeValidator(_parse_switch)]
DecimalOrOff = Annotated[str | None, BeforeValidator(_or_off(_parse_plain_decimal))]


class ConfigTable(BaseModel):
    """A table of trimtab.toml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a config cannot be pickled: its endpoint URLs are secrets")


def inner_tables(annotation: Any) -> Iterator[type[ConfigTable]]:
    """Yield the tables of a field, alternatives and items of lists included."""
    if isinstance(annotation, type) and issubclass(annotation, ConfigTable):
        yield annotation
    for part in get_args(annotation):
        yield from inner_tables(part)


class VariableTable(ConfigTable):  # noqa: PLW1641  pydantic hashes the fields
    """A table that names variables. It carries those of its config."""

    _variables: Variables = PrivateAttr(default_factory=Variables)

    def model_post_init(self, context: object) -> None:
        """Keep the variables of the validation's context; without one no variable is set."""
        if isinstance(context, dict):
            self._variables = context.get(VARIABLES_KEY, self._variables)

    def __eq__(self, other: object) -> bool:
        """Return whether the fields are equal. The file has no variables, so that other ones are no
        edit of it.
        """
        return type(self) is type(other) and self.__dict__ == other.__dict__

    def variable(self, name: str | None) -> str:
        """Return the value of a variable; empty if it is not set, or without a name."""
        return self._variables.get(name or "", "")

    def required_variable(self, key: str, name: str | None, remedy: str) -> str:
        """Return the value of the variable that `key` names. Raises ConfigError, with the remedy,
        if it is not set.
        """
        value = self.variable(name)
        if not value:
            raise ConfigError(f"{key}: environment variable {name} is not set", remedy)
        return value
