"""A token provider that gets new access tokens from the service with a refresh token."""

from __future__ import annotations

import contextlib
import logging
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import urllib3

from aggstream._base.border import border, is_raised_by_signal_handler, raise_interruption_in
from aggstream._base.checks import check_seconds
from aggstream._base.fork_and_exit import call_in_child
from aggstream._base.greenlets import Patching
from aggstream._base.json_text import Parser, to_json
from aggstream._base.limits import Limits
from aggstream._base.secret import MASK, Secret
from aggstream._base.service_checks import (
    DEFAULT_REST_URL,
    KEY_REFUSED,
    app_id_header,
    check_app_id,
    check_headers,
    check_path,
    check_ssl_context,
    check_url,
    is_about_key,
    key_headers,
    setting,
)
from aggstream._base.stacks import place_of
from aggstream._base.strict import strict_converter
from aggstream._network.http import exchange, make_http, retry_after_of, words_of
from aggstream._network.proxy import choose_proxy
from aggstream.errors import (
    AuthenticationError,
    AuthenticationRejected,
    DecodeError,
    TokenUnavailable,
)
from aggstream.tokens._providers import checked_token, problem_with
from aggstream.tokens._token import expiry

__all__ = ["RefreshingToken", "TokenPair"]

logger = logging.getLogger("aggstream.tokens")

_LARGEST_ANSWER = 65536
# A token that expires within these seconds may be refused, because it expires on its way to the service.
_ABOUT_TO_EXPIRE = 1.0
_OK = 200
_UNAUTHORIZED = 401
_TEMPORARY_STATUSES = frozenset({408, 425, 429})


@attrs.frozen
class TokenPair:
    """An access token, and the refresh token for getting the next access token."""

    access_token: str = attrs.field(repr=lambda _: MASK)
    refresh_token: str = attrs.field(repr=lambda _: MASK)


@attrs.frozen
class _User:
    id: str | None = None


@attrs.frozen
class _RefreshAnswer:
    """The body of the answer. Source: assumed; the reference shows it only for the same call of the admin API."""

    accessToken: str  # noqa: N815  (the service's name)
    refreshToken: str | None = None  # noqa: N815
    user: _User | None = None


_converter = strict_converter(detailed_validation=False)
# Used once here: cattrs makes its functions at the first use, and then swallows what a signal handler raises.
_converter.structure({"accessToken": "", "refreshToken": "", "user": {"id": ""}}, _RefreshAnswer)
_parser = Parser(Limits())


def _default_body(refresh_token: str) -> Mapping[str, Any]:
    return {"refreshToken": refresh_token}


class RefreshingToken:
    """A provider that keeps a session alive with a refresh token, over REST.

    The service rotates refresh tokens: a refresh returns a new pair of tokens, and the old refresh token is no
    longer valid. So the provider makes one refresh at a time. It does not repeat a failed refresh by itself. It
    calls `save` with the new pair before it uses the pair.

    The provider is thread-safe, and several clients may share it.
    """

    @border
    def __init__(
        self,
        refresh_token: str,
        *,
        access_token: str | None = None,
        app_id: str | None = None,
        api_key: str | None = None,
        rest_url: str | None = None,
        save: Callable[[TokenPair], object] | None = None,
        load: Callable[[], TokenPair | None] | None = None,
        lock: contextlib.AbstractContextManager[Any] | None = None,
        path: str = "/auth/token/refresh",
        headers: Mapping[str, str] | None = None,
        body: Callable[[str], Mapping[str, Any]] = _default_body,
        timeout: float = 10.0,
        ssl_context: ssl.SSLContext | None = None,
        allow_insecure: bool = False,
        proxy: str | None = "environment",
    ) -> None:
        """Make a provider.

        Args:
            refresh_token: the refresh token of the session.
            access_token: the present access token; None: the first `get_token` makes a refresh.
            app_id: the app's id, for the header `x-app-id`; None: the environment variable `AGGSTREAM_APP_ID`.
            api_key: the app's key; None: `AGGSTREAM_API_KEY`, if it is set. Only some apps need one.
            rest_url: the REST API's base URL; None: `AGGSTREAM_REST_URL`, or the public URL.
            save: stores a new pair for the next start. The provider calls `save` with each new pair before it uses
                the pair. If `save` raises, the provider keeps the pair, and calls `save` again before it uses it.
            load: returns the stored pair. The provider calls it before each refresh, because another process may
                have made a refresh.
            lock: a lock between processes that share the session, for example a file lock. The provider holds it
                during a refresh.
            path: the path of the refresh call (assumed).
            headers: further headers.
            body: returns the JSON body of the refresh call for a refresh token (assumed).
            timeout: the seconds for connecting, and again for the whole answer.
            ssl_context: the TLS settings, for a private certificate authority.
            allow_insecure: True: accept an `http://` URL of another machine.
            proxy: as for `Client`.

        Raises:
            ConfigurationError: an option cannot work.
        """
        # The arguments with tokens are checked first and deleted, because a traceback may show local variables.
        self._access = None if access_token is None else checked_token(access_token)
        self._refresh = checked_token(refresh_token)
        further = check_headers(headers)
        key = key_headers(api_key, further, "headers")
        del access_token, refresh_token, headers, api_key
        app_id = check_app_id(setting(app_id, "app_id"))
        rest_url = setting(rest_url, "rest_url", default=DEFAULT_REST_URL)
        check_url(rest_url, "rest_url", plain="http", secure="https", allow_insecure=allow_insecure)
        self._url = rest_url.rstrip("/") + check_path(path, "path")
        self._headers = {
            "x-app-id": app_id_header(app_id),
            "content-type": Secret("application/json"),
            "accept": Secret("application/json"),
            **further,
            **key,
        }
        self._patching = Patching()
        # Guards the tokens and `_unsaved`, so that there is one refresh at a time. `save`, `load` and `lock` run
        # while it is held, so they must not ask this provider for a token.
        self._mutex = threading.Lock()
        call_in_child(self, RefreshingToken._reset)
        self._unsaved = False
        self._save = save
        self._load = load
        self._lock = contextlib.nullcontext() if lock is None else lock
        self._body = body
        # `make_http` makes no retries, because a repeated refresh can revoke the session. It follows no redirects,
        # because the token would go with them.
        self._timeout = check_seconds(timeout, "timeout")
        self._ssl_context = check_ssl_context(ssl_context)
        self._proxy = choose_proxy(proxy, rest_url)
        self._http = make_http(self._timeout, self._ssl_context, self._proxy)

    def _reset(self) -> None:
        self._patching = Patching()
        self._mutex = threading.Lock()
        self._http = make_http(self._timeout, self._ssl_context, self._proxy)

    @border
    def get_token(self, *, stale: str | None = None) -> str:
        """Return an access token, and make a refresh first if that is necessary.

        The method blocks, and runs on the calling thread.

        Args:
            stale: a token that the service has refused, or that expires soon. If the provider still has this
                token, it makes a refresh.

        Raises:
            TokenUnavailable: the refresh failed, but may work later.
            AuthenticationRejected: the service refused the refresh; the user must sign in again.
        """
        unwanted = None if stale is None else Secret(stale)
        del stale  # a traceback may show local variables
        if self._patching.is_outdated():
            self._reset()
        with self._mutex:
            if self._unsaved:
                self._store()
            if not self._is_good(unwanted):
                with self._lock:
                    self._reload()
                    if not self._is_good(unwanted):
                        self._refresh_now()
            assert self._access is not None  # a successful refresh has set it
            return self._access.reveal()

    def _is_good(self, unwanted: Secret | None) -> bool:
        if self._access is None or self._access == unwanted:
            return False
        expires = expiry(self._access.reveal())
        return expires is None or expires - time.time() >= _ABOUT_TO_EXPIRE

    def _reload(self) -> None:
        pair: object = self._load() if self._load is not None else None
        if pair is None:
            return
        if not isinstance(pair, TokenPair):
            kind = type(pair).__name__
            del pair  # it may hold tokens, and a traceback may show local variables
            raise TokenUnavailable(f"load() must return a TokenPair or None, got {kind}")
        if pair.refresh_token != self._refresh.reveal():
            problem = self._use_pair(pair, is_saved=True)
            if problem is not None:
                raise TokenUnavailable(f"load() returned a pair that cannot be used: {problem}")

    def _use_pair(self, pair: TokenPair, *, is_saved: bool) -> str | None:
        """Use a pair from now on; return None, or why the pair cannot be used.

        Args:
            pair: the tokens.
            is_saved: False: `save` must be called with the pair, if there is such a function.
        """
        problem = problem_with(pair.access_token) or problem_with(pair.refresh_token)
        if problem is None:
            access, refresh = Secret(pair.access_token), Secret(pair.refresh_token)
            unsaved = not is_saved and self._save is not None
            # In one step, because a signal handler may raise before any other: no pair is used unsaved.
            self._access, self._refresh, self._unsaved = access, refresh, unsaved
        return problem

    def _refresh_now(self) -> None:
        failure = self._exchange()
        if failure is not None:
            # The error is raised here, because the frames of `_exchange` hold tokens.
            raise failure
        logger.debug("RefreshingToken: the access token was refreshed")
        if self._unsaved:
            self._store()

    def _exchange(self) -> AuthenticationError | None:
        """Make the refresh call and use the new pair; return None, or the error of the call."""
        try:
            body = to_json(self._body(self._refresh.reveal())).encode()
        except Exception as error:  # its traceback holds the token, so only its type is shown
            if is_raised_by_signal_handler(error):
                raise
            return TokenUnavailable(f"body() gave no JSON: {type(error).__name__}")
        answer = exchange(self._http, "POST", self._url, self._headers, body=body, largest=_LARGEST_ANSWER)
        self._http.clear()  # the next call is minutes away, so no connection is kept
        if isinstance(answer, urllib3.exceptions.HTTPError):
            said = f"the refresh call to {self._url} failed: {words_of(answer)}"
            return TokenUnavailable(said, retry_after=retry_after_of(answer))
        if answer.status != _OK:
            is_about_app = answer.status == _UNAUTHORIZED and is_about_key(answer.body)
            return _refusal(answer.status, answer.retry_after, is_about_app=is_about_app)
        if answer.body is None:
            return TokenUnavailable("the answer of the refresh call is too large")
        try:
            pair = _converter.structure(_parser.parse(answer.body.decode()), _RefreshAnswer)
            new = TokenPair(pair.accessToken, pair.refreshToken or self._refresh.reveal())
            problem = self._use_pair(new, is_saved=False)
        except Exception as error:  # its text may hold tokens, so only its type is shown
            raise_interruption_in(error)
            problem = str(error) if isinstance(error, DecodeError) else type(error).__name__
        if problem is None:
            return None
        return TokenUnavailable(f"the answer of the refresh call is not understood: {problem}")

    def _store(self) -> None:
        assert self._save is not None
        assert self._access is not None
        try:
            self._save(TokenPair(self._access.reveal(), self._refresh.reveal()))
        except Exception as error:
            if is_raised_by_signal_handler(error):
                raise
            raise TokenUnavailable(
                f"save() failed with {type(error).__name__} at {place_of(error)} (the exception itself is "
                "error.__cause__): the new tokens are kept, but not used until save() works"
            ) from error
        self._unsaved = False


def _refusal(status: int, wait: float | None, *, is_about_app: bool) -> AuthenticationError:
    said = f"the refresh call was answered with HTTP status {status}"
    if is_about_app:
        return AuthenticationRejected(f"{said}: {KEY_REFUSED}", final=True)
    if status >= 500 or status in _TEMPORARY_STATUSES:  # noqa: PLR2004
        return TokenUnavailable(said, retry_after=wait)
    if status in (400, 401, 403):
        return AuthenticationRejected(f"{said}: the session is over, the user must sign in again", final=True)
    return AuthenticationRejected(f"{said}: look at the options path, body and rest_url", final=True)
