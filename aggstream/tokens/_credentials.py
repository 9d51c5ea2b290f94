"""Gets the tokens for connections from the provider, and handles tokens that the server refuses."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable

from aggstream._base.backoff import FullJitter
from aggstream._base.blocking_calls import Abandoned, CallNotMade, Interrupted, Job, Lane
from aggstream._base.deadline import Deadline
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

    It belongs to the I/O thread, and the provider runs on the thread of a lane. It alone holds the open request to
    the provider, and it alone decides whether a refusal is final.
    """

    def __init__(self, provider: TokenProvider, lane: Lane, *, timeout: float) -> None:
        """Make the credentials of a client.

        Args:
            provider: the provider of tokens.
            lane: makes the calls of the provider, one at a time.
            timeout: the seconds that one call of the provider may take.
        """
        self._provider = provider
        self._lane = lane
        self._timeout = timeout
        # The request for a newer token during a live connection, and its deadline.
        self._job: Job[Token] | None = None
        self._deadline = Deadline(None)
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
        self._lane.forgive()
        self.accepted()

    # --- for a new connection ---------------------------------------------------------------------------

    def next_token(self, wait: Callable[[Job[Token], Deadline], Token], *, insists: bool = False) -> Token:
        """Return the token for a new connection. After a refusal, return another token than the refused token.

        Args:
            wait: waits for the provider's answer until a deadline, and returns the token.
            insists: True: if the provider has no other token, return the refused token: the refusal may pass.

        Raises:
            AuthenticationError: the provider returned no token, or only the refused token.
            Interrupted: another thread ended the waiting.
        """
        self._is_forced = self._refused is not None
        job = self._ask(self._refused)
        try:
            token = wait(job, Deadline(self._timeout))
        except Interrupted:
            raise
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
            self._deadline = Deadline(self._timeout)

    def answer(self) -> Token | AuthenticationError | None:
        """Return the result of `request`: a token or an error. Return None if there is no result yet.

        Each result is returned only once. The method counts failures for `ask_again_in`.
        """
        job = self._job
        if job is None or not (job.done or self._deadline.expired()):
            return None
        self._job = None
        try:
            token = job.result() if job.done else job.abandon()
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
        """Return the latest monotonic time for the next call of `answer`; None if no request is open."""
        return None if self._job is None else self._deadline.at

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
        return self._lane.submit(lambda: _ask(provider, stale))


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
