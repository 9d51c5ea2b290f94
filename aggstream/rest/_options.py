"""The options of the REST API."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import attrs

from aggstream._base.border import border_at_init
from aggstream._base.checks import check_count, count, flag, seconds
from aggstream._base.secret import Secret
from aggstream._base.service_checks import check_headers, check_path, check_url
from aggstream.errors import ConfigurationError
from aggstream.events import normal_form, order_event_kind

LARGEST_PAGE = 100
"""The largest number of orders that the service returns in one page."""

_RESERVED_HEADERS = {
    "x-app-id": "use app_id=",
    "accept": "the client sets it",
    "accept-encoding": "the client sets it",
    "content-length": "the client sets it",
    "transfer-encoding": "the client sets it",
}


def check_page_size(value: Any, name: str) -> int:
    """Check the number of orders in a page, and return it.

    Raises:
        ConfigurationError: the service does not return pages of that size.
    """
    if check_count(value, name) > LARGEST_PAGE:
        raise ConfigurationError(f"{name} must be a whole number from 1 to {LARGEST_PAGE}, got {value!a}")
    return int(value)


def _headers(value: Mapping[str, str | Secret] | None) -> Mapping[str, Secret]:
    # attrs.evolve() passes the converted value, in which the texts are secrets already.
    texts: Any = value
    if isinstance(value, Mapping):
        texts = {name: text.reveal() if isinstance(text, Secret) else text for name, text in value.items()}
    checked = check_headers(texts)
    for name in checked:
        if name.lower() in _RESERVED_HEADERS:
            raise ConfigurationError(f"headers: {name} cannot be given here: {_RESERVED_HEADERS[name.lower()]}")
    return MappingProxyType(checked)


def _status_names(value: Mapping[str, str]) -> Mapping[str, str]:
    if not isinstance(value, Mapping) or not all(
        isinstance(text, str) and text for item in value.items() for text in item
    ):
        raise ConfigurationError(
            'status_names must map statuses of the service to names of events, like {"done": "filled"}'
        )
    for status, name in value.items():
        if order_event_kind(normal_form(status)) is not None:
            raise ConfigurationError(
                f"status_names: aggstream knows {status!a} already: name only statuses it does not"
            )
        kind = order_event_kind(normal_form(name))
        if kind is None or kind.family != "terminal":
            raise ConfigurationError(f"status_names: {name!a} is no status that aggstream knows, like 'filled'")
    return MappingProxyType({normal_form(status): normal_form(name) for status, name in value.items()})


def _check_url(_: object, field: attrs.Attribute[Any], value: Any) -> None:
    if value is not None:
        # The user of the options checks later whether the URL may be unencrypted.
        check_url(value, field.name, plain="http", secure="https", allow_insecure=True)


@border_at_init
@attrs.frozen(kw_only=True)
class RestOptions:
    """The options of the REST API. Sizes are in bytes, times in seconds.

    Raises:
        ConfigurationError: an option cannot work.
    """

    url: str | None = attrs.field(default=None, validator=_check_url)
    """The base URL of the API; None: the environment variable `AGGSTREAM_REST_URL`, or the public URL."""
    orders_path: str = attrs.field(
        default="/execution/orders", validator=lambda _, field, value: check_path(value, field.name)
    )
    """The path of the orders, below the base URL."""
    balances_path: str = attrs.field(
        default="/execution/balances", validator=lambda _, field, value: check_path(value, field.name)
    )
    """The path of the balances, below the base URL."""
    headers: Mapping[str, Secret] = attrs.field(default=None, converter=_headers)
    """Further headers, given as texts. aggstream never shows their values. Some apps need `x-app-api-key`."""
    timeout: float = seconds(10.0)
    """The time for connecting, and again for the whole answer, from the request to the last byte."""
    page_size: int = attrs.field(default=100, validator=lambda _, field, value: check_page_size(value, field.name))
    """The number of orders in one page, from 1 to 100."""
    max_pages: int = count(100)
    """The largest number of pages that the stream reads when it searches for missed orders."""
    attempts: int = count(4)
    """The largest number of attempts that `RestClient` makes for one GET with the same token."""
    answer_size: int = count(4 << 20)
    """The largest size of an answer's body."""
    status_names: Mapping[str, str] = attrs.field(factory=dict, converter=_status_names)
    """Maps statuses that aggstream does not know to statuses that it knows, like `{"settled": "filled"}`. The
    spelling of a status does not matter. The mapping is also for the messages of the stream."""
    amounts_in_one_unit: bool = flag(default=False)
    """True: an order's `amountRaw` and `filledAmountRaw` have the same unit, so aggstream may compare them. The
    service's reference does not say so: the amount of a purchase may be in money."""
