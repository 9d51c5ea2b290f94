"""Gets the tokens for connections from the provider, and handles tokens that the server refuses."""

from __future__ import annotations

import logging
import random
import time

from aggstream._base.backoff import FullJitter
from aggstream._base.blocking_calls import Abandoned, CallNotMade, CallQueue, Job
from aggstream._base.stacks import place_of, trail_of
from aggstream.errors import AuthenticationError, AuthenticationRejected, TokenUnavailable
from aggstream.tokens._providers import problem_with
from aggstream.tokens._token import Token
from aggstream.typing import TokenProvider

logger = logging.getLogger("aggstream.tokens")

# The shortest and the longest pause before a provider that failed is asked again, in seconds.
_FIRST_PAUSE, _LONGEST_PAUSE = 10.0, 300.0


class Credentials:
    """Asks the provider for tokens. After the server refuses a token, it allows one attempt with a new token.

    It belongs to the I/O thread, and the provider runs on a thread of a lane. It alone holds the open request to
    the provider, and it alone decides whether a refusal is final.
    """

    def __init__(self, provider: TokenProvider, calls: CallQueue, *, timeout: float) -> None:
        """Make the credentials of a stream.

        Args:
            provider: the provider of tokens.
            calls: makes the calls of the provider, one at a time.
            timeout: the seconds that one call of the provider may take.
        """
        self._provider = provider
        self._calls = calls
        self._timeout = timeout
        # The open request: for a new connection, or for a newer token during a live one.
        self._job: Job[Token] | None = None
        # The token that the server refused last; None after the server has accepted a token.
        self._refused: Token | None = None
        self._reason = ""
        # True if the present token was requested because the server had refused a token.
        self._is_forced = False
        self._pauses = FullJitter(_FIRST_PAUSE, _LONGEST_PAUSE)
        self._failures = 0

    def use(self, provider: TokenProvider) -> None:
        """Use another provider from now on, for the tokens of another user."""
        self.cancel()
        self._provider = provider
        self._calls.forgive()
        self.accepted()

    # --- for a new connection ---------------------------------------------------------------------------

    def request_first(self) -> None:
        """Request the token for a new connection from the provider. After a refusal, request another token."""
        self._is_forced = self._refused is not None
        self._job = self._ask(self._refused)

    def first_token(self, *, insists: bool = False) -> Token | None:
        """Return the token for a new connection; None if the provider has not answered yet.

        Args:
            insists: True: if the provider has no other token, return the refused token: the refusal may pass.

        Raises:
            AuthenticationError: the provider returned no token, or only the refused token.
        """
        if not self._is_due():
            return None
        try:
            token = self._take()
        except BaseException as error:  # any exception of the provider
            failure = provider_failure(error)
            raise failure from failure.__cause__
        if self._refused is not None and token.secret == self._refused.secret and not insists:
            raise AuthenticationRejected(f"{self._reason}; there is no other token: sign in again", final=True)
        return token

    def accepted(self) -> None:
        """Note that the server accepted the token."""
        self._refused, self._is_forced = None, False

    def judge(self, error: AuthenticationRejected, token: Token) -> AuthenticationRejected:
        """Remember a refused token; return the error, which is final after a second refusal in a row."""
        if error.final:
            return error
        if self._is_forced:
            return AuthenticationRejected(f"{error}; a refreshed token did not help", final=True)
        self._refused, self._reason = token, str(error)
        return error

    # --- for a live connection --------------------------------------------------------------------------

    def request(self, stale: Token) -> None:
        """Request another token than `stale` from the provider, unless a request is open already."""
        if self._job is None:
            self._job = self._ask(stale)

    def answer(self) -> Token | AuthenticationError | None:
        """Return the result of `request`: a token or an error. Return None if there is no result yet.

        Each result is returned only once. The method counts failures for `ask_again_in`.
        """
        if not self._is_due():
            return None
        try:
            token = self._take()
        except BaseException as error:  # any exception of the provider
            self._failures += 1
            return provider_failure(error)
        self._failures = 0
        return token

    def ask_again_in(self, error: AuthenticationError, *, may_pass: bool = False) -> float | None:
        """Return the seconds until the failed provider is asked again; None if asking again cannot help.

        Args:
            error: the failure.
            may_pass: True: ask again also if the provider has said that it has no token.
        """
        if not (may_pass or isinstance(error, TokenUnavailable)):
            return None
        return self._pauses.pause(self._failures, getattr(error, "retry_after", None))

    def cancel(self) -> None:
        """Cancel the open request, if there is one."""
        if self._job is not None:
            self._job.leave()
            self._job = None

    def next_deadline(self) -> float | None:
        """Return the latest monotonic time at which to look for an answer; None if no request is open."""
        return None if self._job is None else self._job.deadline(self._timeout)

    def _is_due(self) -> bool:
        job = self._job
        return job is not None and (job.done or job.check(self._timeout))

    def _take(self) -> Token:
        """End the open request, and return its token, or raise what the provider has raised."""
        job, self._job = self._job, None
        assert job is not None
        return job.result() if job.done else job.abandon()

    # --- for REST ---------------------------------------------------------------------------------------

    def call(self, stale: Token) -> Token:
        """Ask the provider for another token than `stale`, and wait for it on a thread that may block.

        Raises:
            AuthenticationError: the provider returned no token.
        """
        try:
            return self._ask(stale).wait(self._timeout)
        except BaseException as error:  # any exception of the provider
            failure = provider_failure(error)
            raise failure from failure.__cause__

    def _ask(self, stale: Token | None) -> Job[Token]:
        provider = self._provider
        return self._calls.submit(lambda: _ask(provider, stale))


def refresh_in(token: Token) -> float | None:
    """Return the seconds until the client should ask for another token; None if it should not ask by itself."""
    return token.refresh_in(time.time(), random.random())


def provider_failure(error: BaseException) -> AuthenticationError:
    """Turn an exception of a provider into an exception of aggstream, and return it."""
    if isinstance(error, AuthenticationError):
        return error
    if isinstance(error, Abandoned):
        return TokenUnavailable(f"the token provider took longer than token_timeout: {error}")
    if isinstance(error, CallNotMade):
        return TokenUnavailable(f"the token provider was not called: {error}", retry_after=error.retry_after)
    # The text of the exception may hold a token, even a token that aggstream does not know. So only the place in
    # the code is shown.
    kind = type(error).__name__
    logger.debug("aggstream: the token provider failed with %s in these calls:\n%s", kind, trail_of(error))
    failure = TokenUnavailable(
        f"the token provider failed with {kind} at {place_of(error)} (the exception itself is error.__cause__)"
    )
    failure.__cause__ = error
    return failure


def _ask(provider: TokenProvider, stale: Token | None) -> Token:
    text = provider.get_token(stale=None if stale is None else stale.secret.reveal())
    problem = problem_with(text)
    if problem is not None:
        del text  # a traceback may show local variables
        raise TokenUnavailable(problem)
    return Token.of(text)
