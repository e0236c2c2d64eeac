"""Lossless JSON of the model's types. Data that do not fit are rejected with their path."""

from __future__ import annotations

import json
import re
import types
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from enum import Enum
from fractions import Fraction
from typing import Any, TypeVar, Union, get_args, get_origin, overload

from cattrs import Converter, transform_error
from cattrs.errors import ForbiddenExtraKeysError, IterableValidationError, IterableValidationNote
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from agent.amm import POOL_KINDS
from agent.errors import ConfigError
from agent.foreign_text import read_json
from agent.layers.states import LIQUIDITY_ACTIONS, LIQUIDITY_POSITIONS, PART_TYPES, PARTS
from agent.model import (
    AccountAction,
    Decision,
    ExitFailures,
    FuturesAction,
    LayerAction,
    OptimalityGap,
    Plan,
    Pool,
    RestingAction,
    Schedule,
    SkippedItem,
    StepRequest,
    Trigger,
)

T = TypeVar("T")

TAG = "type"
"""Key of the class name of a union member."""
_FIRST_UNSAFE_INT = 2**53
"""Integers of this size and above are written as strings, since other JSON readers round them."""
_UNIONS: tuple[Any, ...] = (
    LIQUIDITY_POSITIONS,
    Decision,
    Trigger,
    Schedule,
    StepRequest,
    FuturesAction,
    AccountAction,
    RestingAction,
)
_INTEGER = re.compile(r"-?[0-9]{1,4000}")
_FRACTION = re.compile(r"(-?[0-9]{1,4000})/([0-9]{1,4000})")
_MAX_QUOTED_LENGTH = 60
_STORED_KEYS: dict[type, dict[str, Any]] = {
    Plan: {"gap": override(rename="gap_bps")},
    ExitFailures: {"approval_cycle_count": override(rename="approval_step_count")},
    SkippedItem: {"is_below_floor": override(omit=True)},
}
"""Keys in JSON, where they differ from the fields; a field may have none."""


def to_jsonable(model_value: object) -> Any:
    """Return `model_value` as dicts, lists, strings, booleans and integers.

    Fractions become "a/b", integers of 2^53 and above decimal strings, enums their value; members
    of a union get their tag under "type". Raises TypeError for bytes and floats: signed bytes are
    never written (T8), amounts are exact.
    """
    return _converter.unstructure(model_value)


@overload
def from_jsonable(cls: type[T], json_value: object) -> T: ...
@overload
def from_jsonable(cls: Any, json_value: object) -> Any: ...
def from_jsonable(cls: Any, json_value: object) -> Any:
    """Return the value of type `cls`, a class or union of the model, from `json_value`. Raises
    ConfigError with the path of the first error.
    """
    try:
        return _converter.structure(json_value, cls)
    except Exception as error:
        faults = transform_error(error, format_exception=_fault_text)
        others_text = f" and {len(faults) - 1} more" if len(faults) > 1 else ""
        raise ConfigError(
            f"{faults[0]}{others_text}",
            "write the file with this version, for example by plan --save-input",
        ) from None


def dumps(model_value: object) -> str:
    """Return canonical JSON of `model_value`: sorted keys, no spaces, ASCII; equal values give
    equal text.
    """
    return json.dumps(
        to_jsonable(model_value), sort_keys=True, separators=(",", ":"), allow_nan=False
    )


@overload
def loads(cls: type[T], json_text: str) -> T: ...
@overload
def loads(cls: Any, json_text: str) -> Any: ...
def loads(cls: Any, json_text: str) -> Any:
    """Read the output of `dumps`. Raises ConfigError for invalid JSON, repeated keys, and data that
    do not fit `cls`.
    """
    try:
        json_value = read_json(json_text)
    except ValueError as error:
        raise ConfigError(
            f"not readable as JSON: {error}", "use a file written by trimtab"
        ) from None
    return from_jsonable(cls, json_value)


def loads_optional(cls: type[T], json_text: str | None) -> T | None:
    """Read the output of `dumps` like `loads`; return None for None."""
    return None if json_text is None else loads(cls, json_text)


def json_field(json_value: object, field_name: str) -> Any:
    """Return a field of parsed JSON; None if it is absent or the value is not an object."""
    return json_value.get(field_name) if isinstance(json_value, Mapping) else None


def _fault_text(error: BaseException, expected_type: type | None) -> str:
    if (
        isinstance(error, ValueError)
        and isinstance(expected_type, type)
        and issubclass(expected_type, Enum)
    ):
        value_text, _, _ = str(error).partition(" is not a valid ")
        names = ", ".join(sorted(repr(member.value) for member in expected_type))
        return f"{value_text} is none of {names}"
    if isinstance(error, KeyError):
        return f"required field {error.args[0]!r} is missing"
    if isinstance(error, ForbiddenExtraKeysError):
        return f"unknown field {', '.join(sorted(map(repr, error.extra_fields)))}"
    return str(error) or "it has another form"


def _quoted(json_value: object) -> str:
    quoted_text = repr(json_value)
    return (
        quoted_text
        if len(quoted_text) <= _MAX_QUOTED_LENGTH
        else quoted_text[:_MAX_QUOTED_LENGTH] + "…"
    )


def _write_int(number: int) -> int | str:
    return number if abs(number) < _FIRST_UNSAFE_INT else str(number)


def _read_int(json_value: object, _type: object) -> int:
    if isinstance(json_value, int) and not isinstance(json_value, bool):
        return json_value
    if isinstance(json_value, str) and _INTEGER.fullmatch(json_value):
        return int(json_value)
    raise ValueError(f"{_quoted(json_value)} is not an integer")


def _read_bool(json_value: object, _type: object) -> bool:
    if isinstance(json_value, bool):
        return json_value
    raise ValueError(f"{_quoted(json_value)} is neither true nor false")


def _read_str(json_value: object, _type: object) -> str:
    if isinstance(json_value, str):
        return json_value
    raise ValueError(f"{_quoted(json_value)} is not text")


def _read_fraction(json_value: object, _type: object) -> Fraction:
    match = _FRACTION.fullmatch(json_value) if isinstance(json_value, str) else None
    if match is None or int(match[2]) == 0:
        raise ValueError(f"{_quoted(json_value)} is not a fraction such as 3/2")
    return Fraction(int(match[1]), int(match[2]))


def _refuse_type(unwritable_value: object) -> None:
    raise TypeError(f"a value of type {type(unwritable_value).__name__} is never written")


def _is_union_member(cls: Any) -> bool:
    return (
        cls in POOL_KINDS.values()
        or cls in PARTS
        or cls in PART_TYPES
        or any(cls in get_args(union) for union in _UNIONS)
    )


def _is_plain_dataclass(cls: Any) -> bool:
    return isinstance(cls, type) and is_dataclass(cls) and not _is_union_member(cls)


def _is_tuple(cls: Any) -> bool:
    origin: object = get_origin(cls)
    return origin is tuple


def _is_tagged_union(cls: Any) -> bool:
    member_types = [
        member_type for member_type in get_args(cls) if member_type is not types.NoneType
    ]
    return (
        get_origin(cls) in (Union, types.UnionType)
        and bool(member_types)
        and all(map(_is_union_member, member_types))
    )


def _build_converter() -> Converter:
    converter = Converter(forbid_extra_keys=True)
    converter.register_unstructure_hook(int, _write_int)
    converter.register_unstructure_hook(bool, lambda model_value: model_value)
    converter.register_unstructure_hook(
        Fraction, lambda model_value: f"{model_value.numerator}/{model_value.denominator}"
    )
    converter.register_unstructure_hook(bytes, _refuse_type)
    converter.register_unstructure_hook(float, _refuse_type)
    converter.register_structure_hook(int, _read_int)
    converter.register_structure_hook(bool, _read_bool)
    converter.register_structure_hook(str, _read_str)
    converter.register_structure_hook(Fraction, _read_fraction)
    converter.register_unstructure_hook(OptimalityGap, lambda gap: converter.unstructure(gap.bps))
    converter.register_structure_hook(
        OptimalityGap,
        lambda json_value, _: OptimalityGap.of_bps(_read_fraction(json_value, Fraction)),
    )
    converter.register_unstructure_hook_factory(
        _has_stored_keys,
        lambda cls: make_dict_unstructure_fn(cls, converter, **_STORED_KEYS[cls]),
    )
    converter.register_unstructure_hook_factory(
        lambda cls: cls is Pool, lambda _: converter.unstructure
    )
    converter.register_unstructure_hook_factory(
        _is_union_member, lambda cls: _tagged_writer(cls, converter)
    )
    converter.register_unstructure_hook_factory(
        lambda cls: cls in PARTS, lambda _: converter.unstructure
    )
    converter.register_unstructure_hook_factory(
        lambda cls: cls is LayerAction, lambda _: converter.unstructure
    )
    converter.register_structure_hook_factory(_is_tuple, lambda cls: _list_reader(cls, converter))
    converter.register_structure_hook_factory(
        _is_plain_dataclass, lambda cls: _object_reader(cls, converter)
    )
    converter.register_structure_hook_factory(
        _has_stored_keys,
        lambda cls: _dict_reader(make_dict_structure_fn(cls, converter, **_STORED_KEYS[cls])),
    )
    converter.register_structure_hook_factory(
        lambda cls: cls is LayerAction,
        lambda _: lambda json_value, _: converter.structure(json_value, LIQUIDITY_ACTIONS),
    )
    converter.register_structure_hook_factory(
        lambda cls: cls is Pool, lambda _: _member_reader(tuple(POOL_KINDS.values()), converter)
    )
    converter.register_structure_hook_factory(
        _is_union_member, lambda cls: _member_reader((cls,), converter)
    )
    converter.register_structure_hook_factory(
        _is_tagged_union, lambda union: _member_reader(get_args(union), converter)
    )
    return converter


def _has_stored_keys(cls: Any) -> bool:
    return isinstance(cls, type) and cls in _STORED_KEYS


def _tagged_writer(cls: Any, converter: Converter) -> Callable[[Any], dict[str, Any]]:
    write_fields: Callable[[Any], dict[str, Any]] = make_dict_unstructure_fn(cls, converter)
    return lambda member: {TAG: cls.__name__, **write_fields(member)}


def _object_reader(cls: Any, converter: Converter) -> Callable[[Any, Any], Any]:
    return _dict_reader(make_dict_structure_fn(cls, converter))


def _dict_reader(read_fields: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def read(json_value: Any, target_type: Any) -> Any:
        if not isinstance(json_value, dict):
            raise ValueError(f"{_quoted(json_value)} is not an object")
        return read_fields(json_value, target_type)

    return read


def _list_reader(cls: Any, converter: Converter) -> Callable[[Any, Any], tuple[Any, ...]]:
    """Return a reader of tuples; cattrs would read the text "abc" as the tuple ("a", "b", "c")."""
    type_args = get_args(cls)

    def read(json_list: Any, target_type: Any) -> tuple[Any, ...]:
        if not isinstance(json_list, list | tuple):
            raise ValueError(f"{_quoted(json_list)} is not a list")
        member_types = type_args[:1] * len(json_list) if type_args[-1] is Ellipsis else type_args
        if len(member_types) != len(json_list):
            raise ValueError(f"{len(json_list)} entries instead of {len(member_types)}")
        entries = []
        entry_errors = []
        for index, (member_type, entry) in enumerate(zip(member_types, json_list, strict=True)):
            try:
                entries.append(converter.structure(entry, member_type))
            except Exception as error:
                error.add_note(IterableValidationNote(f"entry {index}", index, member_type))
                entry_errors.append(error)
        if entry_errors:
            raise IterableValidationError("bad entries", entry_errors, target_type)
        return tuple(entries)

    return read


def _member_reader(
    types_or_part_bases: tuple[Any, ...], converter: Converter
) -> Callable[[Any, Any], Any]:
    member_types = [
        member_type for cls in types_or_part_bases for member_type in PARTS.get(cls, (cls,))
    ]
    readers = {
        cls.__name__: (_object_reader(cls, converter), cls)
        for cls in member_types
        if cls is not types.NoneType
    }

    def read(json_value: Any, _target: Any) -> Any:
        if json_value is None and types.NoneType in types_or_part_bases:
            return None
        tag = json_field(json_value, TAG)
        if not isinstance(tag, str) or tag not in readers:
            raise ValueError(
                f"{_quoted(tag or json_value)} is none of {', '.join(sorted(readers))}"
            )
        reader, cls = readers[tag]
        return reader(
            {
                field_name: field_value
                for field_name, field_value in json_value.items()
                if field_name != TAG
            },
            cls,
        )

    return read


_converter = _build_converter()
