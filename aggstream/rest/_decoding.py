"""Decodes answers of the REST API to records. As in `_codec`, a value of a wrong type is an error.

Four rules differ from `_codec`:
- null means the same as a missing field.
- An entry with an error is left out, and its error is in `problems`, with its path. The other entries stay.
- The types of `executionPrice`, `balance` and `chainId` are not public, so numbers and texts are both accepted.
- A date is for people to read, so a date that is not valid becomes None.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Generic, TypeAlias, TypeVar

import attrs
from cattrs import AttributeValidationNote, ClassValidationError
from cattrs.gen import make_dict_structure_fn, override

from aggstream._base.border import is_raised_by_signal_handler, raise_interruption_in
from aggstream._base.field_names import kind_of, wire_name
from aggstream._base.json_text import Parser
from aggstream._base.limits import Limits
from aggstream._base.strict import strict_converter, structure_decimal, structure_raw_amount, structure_str
from aggstream.errors import DecodeError
from aggstream.events._records import Balances, CashBalance, ChainBalance, OrderRecord, OrdersPage, VenueBalance

__all__ = ["decode_balances", "decode_orders_page"]

T = TypeVar("T")

# Many more entries than a page has. The limit is needed because each bad entry makes an error object, and a body
# may hold millions of entries.
_MOST_ENTRIES = 10_000
_DEFAULT = Parser(Limits())
_DATE = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:[.,]([0-9]{1,6})[0-9]{0,12})?"
    r"(?:([Zz])|([+-][0-9]{2}):?([0-9]{2}))"
)
_NUMBER = re.compile(r"-?[0-9]{1,64}(?:\.[0-9]{1,64})?")


def decode_orders_page(data: str | bytes, parser: Parser = _DEFAULT) -> OrdersPage:
    """Return the page that an answer of `GET /execution/orders` holds.

    Args:
        data: the answer's body.
        parser: the JSON parser, with its limits.

    Raises:
        DecodeError: the body is not a page of orders, or does not name the next page. The error holds the path of
            the problem, and no values.
    """
    payload = _parse(data, parser)
    if payload.get("data") is None:
        raise DecodeError("missing", path="$.data")
    orders, problems = _read_all(payload, "data", _read_order)
    return OrdersPage(orders=orders, problems=problems, next_cursor=_next_cursor(payload))


def decode_balances(data: str | bytes, parser: Parser = _DEFAULT) -> Balances:
    """Return the balances in an answer of `GET /execution/balances`.

    The arguments are the same as for `decode_orders_page`.

    Raises:
        DecodeError: the body does not hold balances. The error holds the path of the problem, and no values.
    """
    payload = _parse(data, parser)
    if payload.get("cash") is None and payload.get("positions") is None:
        raise DecodeError("neither cash nor positions")
    cash, cash_problems = _read_all(payload, "cash", _read_cash)
    positions, problems = _read_all(payload, "positions", _POSITION.read)
    return Balances(cash=cash, positions=positions, problems=cash_problems + problems, raw=payload)


def parse_date(text: object) -> dt.datetime | None:
    """Return an ISO 8601 date with time and zone as a datetime in UTC, cut to microseconds; None if not valid."""
    match = _DATE.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        return None
    date, time, fraction, is_utc, hours, minutes = match.groups()
    zone = "+00:00" if is_utc else f"{hours}:{minutes}"
    try:
        # Every version of Python understands this form.
        moment = dt.datetime.fromisoformat(f"{date}T{time}.{fraction or '':0<6}{zone}")
        return moment.astimezone(dt.timezone.utc)
    except (ValueError, OverflowError) as error:  # the 13th month, or a year after the last one of datetime
        raise_interruption_in(error)
        return None


# --- the whole answer -----------------------------------------------------------------------------------


def _parse(data: str | bytes, parser: Parser) -> dict[str, Any]:
    try:
        text = data if isinstance(data, str) else data.decode()
    except UnicodeDecodeError as error:
        raise_interruption_in(error)
        raise DecodeError("not UTF-8") from None
    return _object(parser.parse(text), "$")


def _object(value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DecodeError(f"expected an object, got {kind_of(value)}", path=path)
    return value


def _entries(payload: Mapping[str, Any], name: str, path: str) -> list[tuple[Any, str]]:
    """Return the entries of an array, each with its path; an empty list if the array is missing."""
    path = f"{path}.{name}"
    entries = payload.get(name)
    if entries is None:
        return []
    if not isinstance(entries, list):
        raise DecodeError(f"expected an array, got {kind_of(entries)}", path=path)
    if len(entries) > _MOST_ENTRIES:
        raise DecodeError(f"more than {_MOST_ENTRIES} entries", path=path)
    return [(entry, f"{path}[{number}]") for number, entry in enumerate(entries)]


def _read_all(
    payload: Mapping[str, Any], name: str, read: Callable[[Any, str], T]
) -> tuple[tuple[T, ...], tuple[DecodeError, ...]]:
    """Return the records of the entries that can be read, and the errors of the other entries."""
    understood, problems = [], []
    for entry, path in _entries(payload, name, "$"):
        try:
            understood.append(read(entry, path))
        except DecodeError as error:
            raise_interruption_in(error)
            problems.append(error.with_traceback(None))  # its frames hold the whole answer
    return tuple(understood), tuple(problems)


def _next_cursor(payload: Mapping[str, Any]) -> str | None:
    cursor, has_more = payload.get("nextCursor"), payload.get("hasMore")
    if has_more is not None and not isinstance(has_more, bool):
        raise DecodeError(f"expected a boolean, got {kind_of(has_more)}", path="$.hasMore")
    if cursor is not None and not isinstance(cursor, str):
        raise DecodeError(f"expected a string, got {kind_of(cursor)}", path="$.nextCursor")
    if has_more and not cursor:
        raise DecodeError("missing, though there are more orders", path="$.nextCursor")
    return structure_str(cursor, str) if cursor and has_more is not False else None


# --- one entry ------------------------------------------------------------------------------------------


def _structure_date(value: object, _: object) -> dt.datetime | None:
    return parse_date(value)


def _structure_number(value: object, _: object) -> Decimal:
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return Decimal(value)
    return structure_decimal(value, Decimal)


def _structure_balance(value: object, _: object) -> str | None:
    return str(value) if isinstance(value, Decimal) else structure_raw_amount(value, str)


Hook: TypeAlias = "Callable[[object, object], object]"

_CONVERTER = strict_converter(detailed_validation=True)
# Fields that a `_Reader` leaves empty. `_read_order` and `_read_cash` fill them.
_OWN_FIELDS = {"raw", "chains", "named_as", "in_one_unit"}


class _Reader(Generic[T]):
    """Reads records of one class from JSON objects."""

    def __init__(self, cls: type[T], fields: Mapping[str, tuple[str, Hook | None]]) -> None:
        """Make a reader. This takes milliseconds, so it is done at import.

        Args:
            cls: the class of the records.
            fields: the fields with special rules, by their names in the class. A rule is the service's name of the
                field, and a function that converts the value. The function is None if the field's type is enough.
        """
        made: Any = cls
        attrs.resolve_types(made)
        self._names: dict[str, str] = {}
        overrides: dict[str, Any] = {}
        for field in attrs.fields(made):
            wire, hook = fields.get(field.name, (wire_name(field.name), None))
            self._names[field.name] = wire
            overrides[field.name] = override(rename=wire, struct_hook=hook)
        for name in _OWN_FIELDS & overrides.keys():
            overrides[name] = override(omit=True)
        self._structure: Callable[[Any, Any], T] = make_dict_structure_fn(made, _CONVERTER, **overrides)

    def read(self, value: Any, path: str) -> T:
        """Return the record for a JSON value.

        Raises:
            DecodeError: the value is not an object, or a field is missing or has a wrong type.
        """
        present = {name: item for name, item in _object(value, path).items() if item is not None}
        try:
            return self._structure(present, None)
        except ClassValidationError as group:
            _raise_interruption_in(group)
            problem = group.exceptions[0]
            [note] = (n for n in getattr(problem, "__notes__", ()) if isinstance(n, AttributeValidationNote))
            words = "missing" if isinstance(problem, KeyError) else str(problem)
            where = f"{path}.{self._names[note.name]}"
        raise DecodeError(words, path=where)


def _raise_interruption_in(group: ClassValidationError) -> None:
    # cattrs takes every exception for an error of a field, and notes the field on it.
    for problem in group.exceptions:
        if is_raised_by_signal_handler(problem):
            notes = getattr(problem, "__notes__", [])
            notes[:] = [note for note in notes if not isinstance(note, AttributeValidationNote)]
    raise_interruption_in(group)


# A name with a point means a field of an inner object. `_read_order` makes these names.
_ORDER = _Reader(
    OrderRecord,
    {
        "amount_text": ("amountRaw", structure_raw_amount),
        "quoted_price_text": ("quotedPriceRaw", structure_raw_amount),
        "quoted_cost_text": ("quotedCostRaw", structure_raw_amount),
        "filled_amount_text": ("filledAmountRaw", structure_raw_amount),
        "execution_price": ("executionPrice", _structure_number),
        "created_at": ("createdAt", _structure_date),
        "updated_at": ("updatedAt", _structure_date),
        "market_id": ("venueMarket.id", None),
        "question": ("venueMarket.question", None),
        "outcome_label": ("venueMarketOutcome.label", None),
        "outcome_title": ("venueMarketOutcome.title", None),
    },
)
_CHAIN = _Reader(
    ChainBalance,
    {
        "balance_text": ("balanceRaw", structure_raw_amount),
        "last_synced_at": ("lastSyncedAt", _structure_date),
    },
)
_CASH = _Reader(CashBalance, {"total_text": ("totalRaw", structure_raw_amount)})
_POSITION = _Reader(VenueBalance, {"balance_text": ("balance", _structure_balance)})


def _read_order(value: Any, path: str) -> OrderRecord:
    payload = _object(value, path)
    flat = dict(payload)
    for name in ("venueMarket", "venueMarketOutcome"):
        if payload.get(name) is not None:
            inner = _object(payload[name], f"{path}.{name}")
            flat.update({f"{name}.{key}": item for key, item in inner.items()})
    return attrs.evolve(_ORDER.read(flat, path), raw=payload)


def _read_cash(value: Any, path: str) -> CashBalance:
    payload = _object(value, path)
    # One bad chain makes the whole entry bad, because a list without that chain would look complete.
    chains = tuple(_CHAIN.read(entry, where) for entry, where in _entries(payload, "chains", path))
    return attrs.evolve(_CASH.read(payload, path), chains=chains)
