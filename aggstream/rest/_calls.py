"""Single calls of the REST API. A call makes one attempt, never sleeps, and gets its token from the caller."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from typing import TypeVar
from urllib.parse import urlencode

import attrs
import urllib3

from aggstream._base.border import raise_interruption_in
from aggstream._base.fork_and_exit import call_in_child
from aggstream._base.json_text import Parser
from aggstream._base.limits import Limits
from aggstream._base.resources import why_no_descriptors
from aggstream._base.secret import Secret
from aggstream._base.service_checks import KEY_REFUSED, app_id_header, is_about_key, key_headers
from aggstream._network.http import Answer, exchange, make_http, retry_after_of, words_of
from aggstream._network.proxy import Proxy
from aggstream.errors import DecodeError, ProxyRejected, RestError
from aggstream.events._records import Balances, OrdersPage
from aggstream.rest._decoding import decode_balances, decode_orders_page
from aggstream.rest._options import RestOptions

__all__ = ["Calls", "Unauthorized"]

T = TypeVar("T", OrdersPage, Balances)

_KEPT_CONNECTIONS = 8
_OK = 200
_REDIRECTS = range(300, 400)
_UNAUTHORIZED = 401
_HINTS = {
    400: "look at rest_url and at the options of the REST API",
    403: "look at app_id and api_key: the app may be set up to need a key, and a key is of one app",
    404: "look at rest_url, orders_path and balances_path",
    405: "look at rest_url, orders_path and balances_path",
}


class Unauthorized(RestError):
    """The service refuses the token (HTTP status 401). A call with another token may work."""


class Calls:
    """The calls of the REST API for one app. Every method blocks, and may be called in any thread.

    Connections stay open for later calls until `close`.
    """

    def __init__(
        self,
        *,
        app_id: str,
        rest_url: str,
        options: RestOptions,
        api_key: str | None = None,
        ssl_context: ssl.SSLContext | None,
        proxy: Proxy | None,
        limits: Limits,
    ) -> None:
        """Prepare the calls, without opening a connection.

        Args:
            app_id: the app's id.
            rest_url: the API's base URL, which the caller has checked.
            options: the options of the REST API.
            api_key: the app's key; None: the environment variable `AGGSTREAM_API_KEY`, if it is set.
            ssl_context: the TLS settings, for a private certificate authority; None: the system's authorities.
            proxy: the proxy to connect through; None: connect directly.
            limits: the limits. The calls use only the limits of JSON.

        Raises:
            ConfigurationError: the app id or the key cannot be sent in a header.
        """
        key = key_headers(api_key, options.headers, "the headers of RestOptions")
        del api_key  # a traceback may show local variables
        self.options = options
        self.base = rest_url.rstrip("/")
        self._headers: Mapping[str, Secret] = {
            "x-app-id": app_id_header(app_id),
            "accept": Secret("application/json"),
            **options.headers,
            **key,
        }
        self._parser = Parser(limits)
        self._ssl_context = ssl_context
        self._proxy = proxy
        self._reset()
        call_in_child(self, Calls._reset)

    def _reset(self) -> None:
        # A forked child needs its own connections, because the inherited ones belong to the parent.
        self._http = make_http(self.options.timeout, self._ssl_context, self._proxy, connections=_KEPT_CONNECTIONS)

    def orders_page(
        self, token: Secret, *, status: str | None = None, cursor: str | None = None, limit: int | None = None
    ) -> OrdersPage:
        """Return a page of the user's orders.

        Args:
            token: the user's access token.
            status: return only orders with this status; None: all orders.
            cursor: `next_cursor` of the previous page; None: return the first page.
            limit: the number of orders, from 1 to 100; None: `page_size` of the options.

        Raises:
            Unauthorized: the service refuses the token.
            RestError: the API gave no usable answer. `is_worth_retrying` tells whether a new attempt may help.
        """
        query = {"limit": str(self.options.page_size if limit is None else limit)}
        if status is not None:
            query["status"] = status
        if cursor is not None:
            query["cursor"] = cursor
        return self._get(token, self.options.orders_path, query, decode_orders_page)

    def balances(self, token: Secret) -> Balances:
        """Return the user's balances. The argument and the errors are the same as for `orders_page`."""
        return self._get(token, self.options.balances_path, {}, decode_balances)

    def close(self) -> None:
        """Close the connections that no call uses. A later call opens a new connection."""
        self._http.clear()

    def _get(self, token: Secret, path: str, query: Mapping[str, str], decode: Callable[[bytes, Parser], T]) -> T:
        outcome = self._outcome(token, path, query, decode)
        if isinstance(outcome, RestError):
            # The error is raised here, because the frames of `_outcome` hold the user's data.
            raise outcome
        return outcome

    def _outcome(
        self, token: Secret, path: str, query: Mapping[str, str], decode: Callable[[bytes, Parser], T]
    ) -> T | RestError:
        what = f"GET {self.base}{path}"
        url = self.base + path
        if query:
            url += ("&" if "?" in path else "?") + urlencode(query)
        headers = {**self._headers, "authorization": Secret(f"Bearer {token.reveal()}")}
        answer = exchange(self._http, "GET", url, headers, largest=self.options.answer_size)
        if isinstance(answer, urllib3.exceptions.HTTPError):
            return _failure(what, answer)
        if answer.status != _OK:
            return _refusal(what, answer)
        problem = "it is compressed, and the request did not allow that" if answer.is_compressed else None
        if answer.body is None:
            problem = f"it is larger than answer_size ({self.options.answer_size})"
        elif problem is None:
            try:
                return _dated(decode(answer.body, self._parser), answer.date_ms)
            except DecodeError as error:
                raise_interruption_in(error)
                problem = str(error)
        return RestError(f"the answer of {what} cannot be used: {problem}", status=_OK)


def _dated(decoded: T, date_ms: int | None) -> T:
    return attrs.evolve(decoded, date_ms=date_ms)


def _failure(what: str, error: urllib3.exceptions.HTTPError) -> RestError:
    cause = error.args[-1] if error.args else None
    words = words_of(error)
    # Many servers that speak TLS answer what is not TLS with silence.
    if isinstance(cause, ConnectionResetError) and " http://" in what:
        words += ": if the server speaks TLS at this port, is it https://?"
    failure = RestError(f"{what} failed: {words}", retry_after=retry_after_of(error))
    if isinstance(cause, ssl.SSLCertVerificationError) and (why := why_no_descriptors()) is not None:
        return RestError(f"{what} failed: the certificate cannot be checked: {why}")
    if isinstance(cause, (ssl.SSLCertVerificationError, ProxyRejected)):
        # The traceback is removed, because its frames hold the request's headers.
        failure.__cause__ = cause.with_traceback(None)
    return failure


def _refusal(what: str, answer: Answer) -> RestError:
    status = answer.status
    said = f"{what} was answered with HTTP status {status}"
    if status == _UNAUTHORIZED and is_about_key(answer.body):
        return RestError(f"{said}: {KEY_REFUSED}", status=status)
    if status == _UNAUTHORIZED:
        return Unauthorized(f"{said}: the token is refused", status=status, retry_after=answer.retry_after)
    hint = "redirects are not followed: look at rest_url" if status in _REDIRECTS else _HINTS.get(status)
    return RestError(said if hint is None else f"{said}: {hint}", status=status, retry_after=answer.retry_after)
