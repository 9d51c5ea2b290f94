"""The REST client: it reads a user's orders and balances on request. The stream sends changes by itself."""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn, TypeVar

import attrs
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt

from aggstream._base.backoff import FullJitter, is_worth_retrying
from aggstream._base.border import border, is_raised_by_signal_handler
from aggstream._base.checks import check_count
from aggstream._base.fork_and_exit import call_in_child
from aggstream._base.greenlets import Patching
from aggstream._base.limits import Limits, check_limits
from aggstream._base.secret import Secret
from aggstream._base.service_checks import DEFAULT_REST_URL, check_app_id, check_ssl_context, check_url, setting
from aggstream._network.proxy import choose_proxy
from aggstream.errors import (
    AuthenticationError,
    AuthenticationRejected,
    ConfigurationError,
    RestError,
    StateError,
    TokenUnavailable,
)
from aggstream.events import normal_form
from aggstream.events._records import Balances, OrderRecord, OrdersPage
from aggstream.rest._calls import Calls, Unauthorized
from aggstream.rest._options import RestOptions, check_page_size
from aggstream.tokens._credentials import provider_failure
from aggstream.tokens._providers import as_provider, problem_with
from aggstream.typing import TokenSource

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["RestClient", "RestOptions"]

logger = logging.getLogger("aggstream.rest")

T = TypeVar("T")

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0


class RestClient:
    """Reads one user's orders and balances from the REST API.

    Every method blocks, and may be called in any thread. If the network fails or the service is busy, the client
    tries again after a random pause, and the pauses grow. If the service refuses the token, the client asks the
    token provider once for another token. Use the client in a `with` statement, or call `close()`. A forked child
    process may use the client as well, because the child opens its own connections.
    """

    @border
    def __init__(
        self,
        *,
        app_id: str | None = None,
        token: TokenSource | None = None,
        api_key: str | None = None,
        rest_url: str | None = None,
        options: RestOptions | None = None,
        ssl_context: ssl.SSLContext | None = None,
        allow_insecure: bool = False,
        proxy: str | None = "environment",
        limits: Limits | None = None,
    ) -> None:
        """Make a client. The client opens no connection before the first call.

        Args:
            app_id: the app's id; None: the environment variable `AGGSTREAM_APP_ID`.
            token: the user's access token, a function that returns the token, or a `TokenProvider`; None:
                `AGGSTREAM_TOKEN`. The client calls the function or the provider on the calling thread: at the
                first request, and again when the service refuses the token.
            api_key: the app's key; None: `AGGSTREAM_API_KEY`, if it is set. Only some apps need one.
            rest_url: the REST API's base URL; None: the `url` of the options, `AGGSTREAM_REST_URL`, or the public
                URL.
            options: the options of the REST API; None: the defaults of `RestOptions`.
            ssl_context: the TLS settings, for a private certificate authority; None: the system's authorities.
            allow_insecure: True: accept an `http://` URL of another machine. Then the network can read the token.
            proxy: as for `Client`.
            limits: the limits of JSON (`json_depth`, `number_digits`, `number_exponent`). The client uses no other
                limits; None: the defaults.

        Raises:
            ConfigurationError: an option is missing or cannot work. The error says which one, and what would work.
        """
        # The token is checked first and deleted, because a traceback may show local variables.
        self._provider = as_provider(setting(None, "token") if token is None else token)
        del token
        if options is not None and not isinstance(options, RestOptions):
            raise ConfigurationError("options must be a RestOptions, or None for the default ones")
        options = options or RestOptions()
        url = setting(rest_url if rest_url is not None else options.url, "rest_url", default=DEFAULT_REST_URL)
        self._app_id = check_app_id(setting(app_id, "app_id"))
        self._calls = Calls(
            app_id=self._app_id,
            rest_url=check_url(url, "rest_url", plain="http", secure="https", allow_insecure=allow_insecure),
            options=options,
            api_key=api_key,
            ssl_context=check_ssl_context(ssl_context),
            proxy=choose_proxy(proxy, url),
            limits=check_limits(limits),
        )
        self._token: Secret | None = None
        self._patching = Patching()
        self._closed = threading.Event()
        self._reset()
        call_in_child(self, RestClient._reset)

    def _reset(self) -> None:
        # Guards `_token`, and lets only one thread at a time call the provider. The provider runs while it is
        # held, so the provider must not use this client.
        self._mutex = threading.Lock()
        was_closed, self._closed = self._closed.is_set(), threading.Event()
        if was_closed:
            self._closed.set()

    def __repr__(self) -> str:
        if not hasattr(self, "_closed"):  # the constructor raised an error
            return "<aggstream.RestClient, not made>"
        closed = ", closed" if self._closed.is_set() else ""
        return f"<aggstream.RestClient of app {self._app_id!a} at {self._calls.base}{closed}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a REST client cannot be pickled: make one in the process that uses it")

    def __enter__(self) -> Self:
        self._refuse_closed()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections, and end the pauses between attempts. The method may be called again."""
        self._closed.set()
        self._calls.close()

    def orders_page(
        self, *, status: str | None = None, cursor: str | None = None, limit: int | None = None
    ) -> OrdersPage:
        """Return one page of the user's orders.

        Args:
            status: return only orders with this status, as the service writes it; None: all orders.
            cursor: `next_cursor` of the previous page; None: return the first page.
            limit: the number of orders, from 1 to 100; None: `page_size` of the options.

        Returns:
            The page. The errors of orders that the client could not read are in its `problems`.

        Raises:
            RestError: the API gave no usable answer, after `attempts` attempts if a new attempt could help.
            AuthenticationRejected: the service refuses the token, and the provider has no other token, or the
                service refuses the other token as well.
            TokenUnavailable: the token provider returned no token.
            ConfigurationError: an argument cannot work.
            StateError: the client is closed.
        """
        if limit is not None:
            check_page_size(limit, "limit")
        for name, value in (("status", status), ("cursor", cursor)):
            if value is not None and (not isinstance(value, str) or not value):
                raise ConfigurationError(f"{name} must be a text that is not empty, or None")
        page = self._call(lambda token: self._calls.orders_page(token, status=status, cursor=cursor, limit=limit))
        names, one_unit = self._calls.options.status_names, self._calls.options.amounts_in_one_unit
        if not names and not one_unit:
            return page
        orders = (
            attrs.evolve(order, named_as=names.get(normal_form(order.status), ""), in_one_unit=one_unit)
            for order in page.orders
        )
        return attrs.evolve(page, orders=tuple(orders))

    def orders(self, *, status: str | None = None, max_pages: int | None = None) -> Iterator[OrderRecord]:
        """Return an iterator over the user's orders. The iterator blocks each time it reads the next page.

        The iterator logs and leaves out an order that it cannot read. `orders_page` returns such errors instead.

        Args:
            status: return only orders with this status, as the service writes it; None: all orders.
            max_pages: the largest number of pages to read; None: read all pages.

        Raises:
            RestError: raised while iterating, as by `orders_page`, or if the service sends the same cursor twice.
            AggStreamError: raised while iterating, as by `orders_page`.
            ConfigurationError: raised at once if `max_pages` is not above 0.
        """
        if max_pages is not None:
            check_count(max_pages, "max_pages")
        return self._orders(status, max_pages)

    def _orders(self, status: str | None, max_pages: int | None) -> Iterator[OrderRecord]:
        cursor: str | None = None
        seen: set[str] = set()
        while max_pages is None or len(seen) < max_pages:
            page = self.orders_page(status=status, cursor=cursor)
            if page.problems:
                text = "RestClient: %d orders of a page cannot be read and are left out; the first error: %s"
                logger.warning(text, len(page.problems), page.problems[0])
            yield from page.orders
            cursor = page.next_cursor
            if cursor is None:
                return
            if cursor in seen:
                raise RestError("the pages of orders go round in a circle: a cursor came twice", status=200)
            seen.add(cursor)

    def balances(self) -> Balances:
        """Return the user's balances.

        Returns:
            The balances. The errors of entries that the client could not read are in their `problems`.

        Raises:
            AggStreamError: the errors are the same as for `orders_page`.
        """
        return self._call(self._calls.balances)

    # --- one call ---------------------------------------------------------------------------------------

    @border
    def _call(self, get: Callable[[Secret], T]) -> T:
        self._refuse_closed()
        self._patching.check("this RestClient")
        try:
            return self._answer(get)
        finally:
            if self._closed.is_set():  # another thread closed the client during this call
                self._calls.close()

    def _answer(self, get: Callable[[Secret], T]) -> T:
        token = self._present_token()
        try:
            return self._retrying()(get, token)
        except Unauthorized as error:
            reason = str(error)
        token = self._other_token(token, reason)
        try:
            return self._retrying()(get, token)
        except Unauthorized as error:
            reason = str(error)
        raise AuthenticationRejected(f"{reason}; a refreshed token did not help: sign in again", final=True)

    def _retrying(self) -> Retrying:
        return Retrying(
            retry=retry_if_exception(is_worth_retrying),
            stop=stop_after_attempt(self._calls.options.attempts),
            wait=FullJitter(_FIRST_PAUSE, _LONGEST_PAUSE),
            sleep=self._pause,
            before_sleep=_log_pause,
            reraise=True,
        )

    def _pause(self, seconds: float) -> None:
        if self._closed.wait(seconds):
            self._refuse_closed()

    def _refuse_closed(self) -> None:
        if self._closed.is_set():
            raise StateError("this RestClient is closed: make another one")

    # --- the token --------------------------------------------------------------------------------------

    def _present_token(self) -> Secret:
        with self._mutex:
            if self._token is None:
                self._token = self._ask(None)
            return self._token

    def _other_token(self, refused: Secret, reason: str) -> Secret:
        with self._mutex:
            # Another thread may have replaced the refused token already.
            if self._token is None or self._token == refused:
                self._token = self._ask(refused)
            if self._token == refused:
                raise AuthenticationRejected(f"{reason}; there is no other token: sign in again", final=True)
            return self._token

    def _ask(self, stale: Secret | None) -> Secret:
        try:
            text = self._provider.get_token(stale=None if stale is None else stale.reveal())
        except AuthenticationError:
            raise
        except Exception as error:  # a user's function may raise anything
            if is_raised_by_signal_handler(error):
                raise
            raise provider_failure(error) from error
        problem = problem_with(text)
        if problem is not None:
            del text  # a traceback may show local variables
            raise TokenUnavailable(problem)
        return Secret(text)


def _log_pause(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome is not None else None
    logger.info("RestClient: %s; trying again in %.1f s", error, state.upcoming_sleep)
