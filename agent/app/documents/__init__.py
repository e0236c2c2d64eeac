"""Field types of JSON documents, and `fill`, which fills a document from an object by its
declaration.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from functools import cache
from operator import attrgetter
from types import NoneType
from typing import (
    Annotated,
    Any,
    NotRequired,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

from pydantic import Field
from typing_extensions import TypedDict, is_typeddict

from agent.figures import FIGURE_FORMAT_KEY
from agent.units import decimal_text, utc_text, value_text

T = TypeVar("T")
Conversion = Callable[[Any, Any], object]
"""Function of an attribute's value and the portfolio that names its tokens and numeraire."""


@dataclass(frozen=True, slots=True)
class ConvertedBy:
    """Annotation of a field type: the conversion of its value."""

    convert: Conversion


@dataclass(frozen=True, slots=True)
class FromAttributes:
    """Paths of the attributes that a field shows, if their names differ from the field's."""

    paths: tuple[str, ...]

    def __init__(self, *paths: str) -> None:
        object.__setattr__(self, "paths", paths)


def fill(
    document_type: type[T], source_object: object, portfolio: Any = None, /, **given_fields: object
) -> T:
    """Return a document of type `document_type`. A field's value comes from `given_fields`, else
    from the attribute of `source_object` with the field's name, converted.

    `portfolio` provides token names and the numeraire of values. Optional keys come from
    `given_fields` only. Nothing is validated: a report of a completed action must not fail.
    """
    document: dict[str, object] = {}
    for field_name, read_attribute, convert in _fields(document_type):  # type: ignore[arg-type]
        if field_name in given_fields:
            document[field_name] = given_fields[field_name]
        elif read_attribute is not None:
            attribute_value = read_attribute(source_object)
            document[field_name] = (
                None if attribute_value is None else convert(attribute_value, portfolio)
            )
    return document  # type: ignore[return-value]


@cache
def _fields(
    document_type: Hashable, /
) -> list[tuple[str, Callable[[object], Any] | None, Conversion]]:
    """Return (name, getter of the attribute, conversion) of each field; the getter of an optional
    field is None.
    """
    field_readers: list[tuple[str, Callable[[object], Any] | None, Conversion]] = []
    for field_name, type_hint in get_type_hints(document_type, include_extras=True).items():
        paths = next(
            (
                annotation.paths
                for annotation in getattr(type_hint, "__metadata__", ())
                if isinstance(annotation, FromAttributes)
            ),
            (field_name,),
        )
        field_readers.append(
            (
                field_name,
                None if get_origin(type_hint) is NotRequired else attrgetter(*paths),
                _conversion(type_hint),
            )
        )
    return field_readers


def _conversion(type_hint: Any) -> Conversion:
    for annotation in reversed(getattr(type_hint, "__metadata__", ())):  # the outermost comes last
        if isinstance(annotation, ConvertedBy):
            return annotation.convert
    if is_typeddict(type_hint):
        return lambda attribute_value, portfolio: (
            attribute_value
            if isinstance(attribute_value, dict)
            else fill(type_hint, attribute_value, portfolio)
        )
    argument_conversions = [
        _conversion(type_argument)
        for type_argument in get_args(type_hint)[:1]
        if type_argument is not NoneType
    ]
    if get_origin(type_hint) is list:
        return lambda attribute_values, portfolio: [
            argument_conversions[0](attribute_value, portfolio)
            for attribute_value in attribute_values
        ]
    return (
        argument_conversions[0]
        if argument_conversions and get_origin(type_hint) is not dict
        else _enum_value_or_same
    )


def _enum_value_or_same(enum_or_other: Any, _: Any) -> object:
    return enum_or_other.value if isinstance(enum_or_other, Enum) else enum_or_other


def money_text(value: Fraction, portfolio: Any) -> str:
    """Return a value as a decimal string of numeraire coins."""
    return value_text(value, portfolio.numeraire.decimals)


def _amount_text(raw_and_token: tuple[int, str], portfolio: Any) -> str:
    raw, token = raw_and_token
    return decimal_text(raw, portfolio.token(token).decimals)


def shown(label: str = "", figure: str = "") -> Any:
    """Declare how tables and pages show a field: its label, if it is not the field's name in words,
    and its format (agent.figures), if it is not that of its type.
    """
    options: dict[str, Any] = {"json_schema_extra": {FIGURE_FORMAT_KEY: figure}} if figure else {}
    if label:
        options["title"] = label[:1].upper() + label[1:]
    return Field(**options)


def one_of(*permitted_texts: str) -> Any:
    """Restrict text to these values."""
    return Field(pattern=f"^({'|'.join(permitted_texts)})$")


Raw = Annotated[
    str,
    Field(pattern=r"^-?[0-9]+$"),
    shown(figure="number"),
    ConvertedBy(lambda raw, _: str(raw)),
]
"""Base units, as text: JSON numbers would be rounded by some parsers."""
RoundedRaw = Annotated[Raw, ConvertedBy(lambda raw, _: str(round(raw)))]
DECIMAL_PATTERN = r"^-?[0-9]+(\.[0-9]+)?$"
DecimalText = Annotated[str, Field(pattern=DECIMAL_PATTERN), shown(figure="amount")]
"""An amount or ratio as text, without exponent."""
PriceText = Annotated[DecimalText, shown(figure="price")]
"""A price as text, without exponent."""
Money = Annotated[
    str, Field(pattern=DECIMAL_PATTERN), shown(figure="money"), ConvertedBy(money_text)
]
"""A value in the numeraire, as text."""
StartTime = TypedDict("StartTime", {"from": int})
"""Start of a period, Unix seconds. Keys that are words of Python cannot be fields of a class."""
StartDate = TypedDict("StartDate", {"from": str})
TotalReturn = TypedDict("TotalReturn", {"return": DecimalText})
SmallMoney = Annotated[Money, shown(figure="cost")]
"""A value that may be below a cent, such as a cost."""
SignedDecimal = Annotated[DecimalText, shown(figure="cost+")]
SignedMoney = Annotated[Money, shown(figure="cost+")]
Count = Annotated[int, shown(figure="number")]
Number = Annotated[float, ConvertedBy(lambda number, _: float(number))]
TimeText = Annotated[str, ConvertedBy(lambda seconds, _: utc_text(seconds))]
Symbol = Annotated[str, ConvertedBy(lambda token, portfolio: portfolio.token(token).label)]
"""Display name of a token, from its address."""
Address = Annotated[str, Field(pattern=r"^0x[0-9a-fA-F]{40}$")]
PoolAddress = Annotated[str, Field(pattern=r"^0x([0-9a-fA-F]{40}|[0-9a-fA-F]{64})$")]
"""A pool's contract, or its PoolId in Uniswap V4."""
TokenSymbol = Annotated[Symbol, FromAttributes("token")]
TokenAddress = Annotated[
    str, Field(pattern=r"^(native|0x[0-9a-fA-F]{40})$"), FromAttributes("token")
]
Amount = Annotated[
    DecimalText,
    ConvertedBy(_amount_text),
    FromAttributes("raw", "token"),
]
"""Whole coins, from base units and token."""
Hash = Annotated[str, Field(pattern=r"^0x[0-9a-f]{64}$")]
TxHash = Annotated[str, Field(pattern=r"^(0x([0-9a-f]{32}|[0-9a-f]{64}))?$")]
"""Hash of a transaction; empty while it is not signed."""
