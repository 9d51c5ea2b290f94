"""Which REST API a stream asks for what it may have missed, if any."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import attrs

from aggstream._base.service_checks import DEFAULT_REST_URL, DEFAULT_URL, check_url
from aggstream._network.proxy import choose_proxy
from aggstream._stream.options import Options
from aggstream.errors import ConfigurationError
from aggstream.rest._options import RestOptions

if TYPE_CHECKING:
    from aggstream.rest._calls import Calls


def choose_rest(
    rest: RestOptions | None, rest_url: str | None, options: Options, *, api_key: str | None, proxy: str | None
) -> Calls | None:
    """Return how the REST API is asked; None if it is not.

    The public API is asked only if the stream is the public one: the token of another service's user is not sent
    there.

    Args:
        rest: how it is spoken to; None: not at all.
        rest_url: its base; None: what `rest` says, or `AGGSTREAM_REST_URL`.
        options: the stream's.
        api_key: the app's key, as the user gave it.
        proxy: as the user gave it.

    Raises:
        ConfigurationError: it is no URL to send a token to, or REST is refused and a URL is given all the same.
    """
    if rest is not None and not isinstance(rest, RestOptions):
        raise ConfigurationError("rest must be a RestOptions, or None for no REST API")
    if rest is None:
        if rest_url is not None:
            raise ConfigurationError("rest_url is given, and rest=None: leave one of them out")
        return None
    base = rest_url or rest.url or os.environ.get("AGGSTREAM_REST_URL") or None
    if base is None:
        if options.url != DEFAULT_URL:
            return None
        base = DEFAULT_REST_URL
    # Loads an HTTP client, which a stream without REST does not need.
    from aggstream.rest._calls import Calls  # noqa: PLC0415

    check_url(base, "rest_url", plain="http", secure="https", allow_insecure=options.allow_insecure)
    return Calls(
        app_id=options.app_id,
        rest_url=base,
        options=attrs.evolve(rest, url=base),
        api_key=api_key,
        ssl_context=options.ssl_context,
        proxy=choose_proxy(proxy, base),
        limits=options.session.limits,
    )
