"""A user's orders and balances, for a program that asks; the stream is for one that wants to be told."""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt

from aggstream._base.backoff import FullJitter, is_worth_retrying
from aggstream._base.checks import check_count, quiet
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
    """Asks the REST API for one user's orders and balances.

    Every method blocks, and may be called in any thread. What the network or a busy service spoils is tried again
    after a random pause that grows; a token that is refused is replaced once. Use it in a `with` statement, or
    `close()` it. A forked child may use it as well: it makes connections of its own.
    """

    @quiet
    def __init__(
        self,
        *,
        app_id: str | None = None,
        token: TokenSource | None = None,
        rest_url: str | None = None,
        options: RestOptions | None = None,
        ssl_context: ssl.SSLContext | None = None,
        allow_insecure: bool = False,
        proxy: str | None = "environment",
        limits: Limits | None = None,
    ) -> None:
        """Make a client. Nothing is connected before the first call.

        Args:
            app_id: the app's id; None: the environment variable `AGGSTREAM_APP_ID`.
            token: the user's access token, a function that returns one, or a `TokenProvider`; None:
                `AGGSTREAM_TOKEN`. It is asked at the first call, on the calling thread, and again once the
                service refuses what it gave.
            rest_url: the REST API's base; None: the `url` of the options, `AGGSTREAM_REST_URL`, or the public one.
            options: how the API is spoken to; None: the defaults of `RestOptions`.
            ssl_context: for a private certificate authority; None: the system's authorities.
            allow_insecure: take an `http://` URL of another machine; the token is then sent for all to read.
            proxy: as for `Client`.
            limits: those of JSON (`json_depth`, `number_digits`, `number_exponent`) count; None: the defaults.

        Raises:
            ConfigurationError: an option is missing or cannot work; says which and what would.
        """
        # First of all, and then forgotten: a traceback may show the locals of its frames.
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
            ssl_context=check_ssl_context(ssl_context),
            proxy=choose_proxy(proxy, url),
            limits=check_limits(limits),
        )
        self._token: Secret | None = None
        self._patching = Patching()
        self._closed = threading.Event()
        self._begin_anew()
        call_in_child(self, RestClient._begin_anew)

    def _begin_anew(self) -> None:
        # Guards `_token`, and with it that the provider is asked by one thread at a time, as it may expect. The
        # provider runs under it, so it must not use this client.
        self._one_at_a_time = threading.Lock()
        was_closed, self._closed = self._closed.is_set(), threading.Event()
        if was_closed:
            self._closed.set()

    def __repr__(self) -> str:
        if not hasattr(self, "_closed"):  # its constructor refused an option
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
        """Close the connections, and end the pauses between attempts. It may be called again."""
        self._closed.set()
        self._calls.close()

    def orders_page(
        self, *, status: str | None = None, cursor: str | None = None, limit: int | None = None
    ) -> OrdersPage:
        """Return one page of the user's orders.

        Args:
            status: only orders with this status, as the service writes it; None: all.
            cursor: `next_cursor` of the page before; None: the first page.
            limit: how many orders, from 1 to 100; None: `page_size` of the options.

        Returns:
            The page. What is wrong with orders that could not be understood is in its `problems`.

        Raises:
            RestError: the API gave no answer that can be used, `attempts` times if that was worth it.
            AuthenticationRejected: the token is refused, and so is another one, or there is no other.
            TokenUnavailable: the token provider gave no token.
            ConfigurationError: an argument that cannot work.
            StateError: the client is closed.
        """
        if limit is not None:
            check_page_size(limit, "limit")
        for name, value in (("status", status), ("cursor", cursor)):
            if value is not None and (not isinstance(value, str) or not value):
                raise ConfigurationError(f"{name} must be a text that is not empty, or None")
        return self._call(lambda token: self._calls.orders_page(token, status=status, cursor=cursor, limit=limit))

    def orders(self, *, status: str | None = None, max_pages: int | None = None) -> Iterator[OrderRecord]:
        """Return the user's orders, page by page as they are taken; each page is a call that blocks.

        An order that cannot be understood is logged and left out; `orders_page` tells of it in the page.

        Args:
            status: only orders with this status, as the service writes it; None: all.
            max_pages: end after so many pages; None: after the last one.

        Raises:
            RestError: while iterating, as the others: as `orders_page`, or if the pages go round in a circle.
            ConfigurationError: at once: `max_pages` is not above 0.
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
                left_out = "RestClient: %d orders of a page are not understood, and left out; the first: %s"
                logger.warning(left_out, len(page.problems), page.problems[0])
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
            The balances. What is wrong with entries that could not be understood is in their `problems`.

        Raises:
            AggStreamError: as `orders_page`.
        """
        return self._call(self._calls.balances)

    # --- one call ---------------------------------------------------------------------------------------

    def _call(self, get: Callable[[Secret], T]) -> T:
        self._refuse_closed()
        self._patching.check("this RestClient")
        try:
            return self._answer(get)
        finally:
            if self._closed.is_set():  # meanwhile, by another thread: no connection is left behind
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
        with self._one_at_a_time:
            if self._token is None:
                self._token = self._ask(None)
            return self._token

    def _other_token(self, refused: Secret, reason: str) -> Secret:
        with self._one_at_a_time:
            # Another thread may have been refused before this one.
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
        except Exception as error:  # whatever a user's function raises
            raise provider_failure(error) from error
        problem = problem_with(text)
        if problem is not None:
            del text  # a traceback may show the locals of its frames
            raise TokenUnavailable(problem)
        return Secret(text)


def _log_pause(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome is not None else None
    logger.info("RestClient: %s; trying again in %.1f s", error, state.upcoming_sleep)
