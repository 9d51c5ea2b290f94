"""How the REST API is spoken to."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import attrs

from aggstream._base.checks import check_count, count, flag, seconds, without_frames
from aggstream._base.secret import Secret
from aggstream._base.service_checks import check_headers, check_path, check_url
from aggstream.errors import ConfigurationError
from aggstream.events import normal_form

LARGEST_PAGE = 100
"""The most orders that the service gives in one page."""

_OURS = {
    "x-app-id": "use app_id=",
    "accept": "the client sets it",
    "accept-encoding": "the client sets it",
    "content-length": "the client sets it",
    "transfer-encoding": "the client sets it",
}


def check_page_size(value: Any, name: str) -> int:
    """Return how many orders a page may have.

    Raises:
        ConfigurationError: the service gives none of that size.
    """
    if check_count(value, name) > LARGEST_PAGE:
        raise ConfigurationError(f"{name} must be a whole number from 1 to {LARGEST_PAGE}, got {value!a}")
    return int(value)


def _headers(value: Mapping[str, str | Secret] | None) -> Mapping[str, Secret]:
    # attrs.evolve() hands back what stands in the options.
    texts: Any = value
    if isinstance(value, Mapping):
        texts = {name: text.reveal() if isinstance(text, Secret) else text for name, text in value.items()}
    checked = check_headers(texts)
    for name in checked:
        if name.lower() in _OURS:
            raise ConfigurationError(f"headers: {name} cannot be given here: {_OURS[name.lower()]}")
    return MappingProxyType(checked)


def _status_names(value: Mapping[str, str]) -> Mapping[str, str]:
    if not isinstance(value, Mapping) or not all(
        isinstance(text, str) and text for item in value.items() for text in item
    ):
        raise ConfigurationError(
            'status_names must map statuses of the service to names of events, like {"done": "filled"}'
        )
    return MappingProxyType({normal_form(status): name for status, name in value.items()})


def _check_url(_: object, field: attrs.Attribute[Any], value: Any) -> None:
    if value is not None:
        # Whether it may be unencrypted is for those to say who use the options.
        check_url(value, field.name, plain="http", secure="https", allow_insecure=True)


@without_frames
@attrs.frozen(kw_only=True)
class RestOptions:
    """How the REST API is spoken to. Sizes are in bytes, times in seconds.

    Raises:
        ConfigurationError: an option that cannot work.
    """

    url: str | None = attrs.field(default=None, validator=_check_url)
    """The API's base; None: `AGGSTREAM_REST_URL`, or the public one."""
    orders_path: str = attrs.field(
        default="/execution/orders", validator=lambda _, field, value: check_path(value, field.name)
    )
    """Where the orders are."""
    balances_path: str = attrs.field(
        default="/execution/balances", validator=lambda _, field, value: check_path(value, field.name)
    )
    """Where the balances are."""
    headers: Mapping[str, Secret] = attrs.field(default=None, converter=_headers)
    """Further headers, given as texts and never shown: `x-app-api-key`, which apps can be set up to need."""
    timeout: float = seconds(10.0)
    """For connecting, and then again for the answer, from the request to the last byte."""
    page_size: int = attrs.field(default=100, validator=lambda _, field, value: check_page_size(value, field.name))
    """Orders asked for at a time, from 1 to 100."""
    max_pages: int = count(100)
    """The most pages that one look back at what was missed may take."""
    attempts: int = count(4)
    """How often `RestClient` tries one GET with the same token."""
    answer_size: int = count(4 << 20)
    """The largest answer."""
    status_names: Mapping[str, str] = attrs.field(factory=dict, converter=_status_names)
    """The names of order events for statuses that aggstream does not know, in any writing; for the stream's
    messages as well as for REST."""
    amounts_in_one_unit: bool = flag(default=False)
    """Whether an order's `amountRaw` and `filledAmountRaw` count the same thing, so that they can be compared.
    Nothing says so: a purchase may be stated in money."""
