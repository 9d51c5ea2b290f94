"""The token of the connection that comes next, and what the service said of the ones before."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable

from aggstream._base.backoff import FullJitter
from aggstream._base.blocking_calls import Abandoned, Interrupted, Job, WorkThread
from aggstream._base.deadline import Deadline
from aggstream._base.stacks import place_of, trail_of
from aggstream.errors import AuthenticationError, AuthenticationRejected, TokenUnavailable
from aggstream.tokens._providers import problem_with
from aggstream.tokens._token import Token
from aggstream.typing import TokenProvider

logger = logging.getLogger("aggstream.tokens")

# Between two questions to a provider that fails, in seconds.
_FIRST_PAUSE, _LONGEST_PAUSE = 10.0, 300.0


class Credentials:
    """Asks the provider for tokens, and sees to it that a server which refuses is asked twice at most.

    It belongs to the I/O thread; the provider runs on the work thread. It is the one owner of the question that is
    open, and of what a refusal means.
    """

    def __init__(self, provider: TokenProvider, work: WorkThread, *, timeout: float) -> None:
        """Make one.

        Args:
            provider: returns tokens.
            work: the thread on which the provider is called.
            timeout: seconds that the provider may take.
        """
        self._provider = provider
        self._work = work
        self._timeout = timeout
        # The question for a newer token while a connection is live, and when its time is over.
        self._job: Job[Token] | None = None
        self._deadline = Deadline(None)
        # The token that the server refused last, until it accepts one.
        self._refused: Token | None = None
        self._reason = ""
        # True if the present token was asked for because of a refusal.
        self._is_forced = False
        self._pauses = FullJitter(_FIRST_PAUSE, _LONGEST_PAUSE)
        self._failures = 0

    def use(self, provider: TokenProvider) -> None:
        """Take tokens from another provider from now on: another user's."""
        self.cancel()
        self._provider = provider
        self._work.forgive()
        self.accepted()

    # --- for a new connection ---------------------------------------------------------------------------

    def next_token(self, wait: Callable[[Job[Token], Deadline], Token]) -> Token:
        """Return the token for a new connection; after a refusal, another one than was refused.

        Args:
            wait: waits for the provider, until a deadline.

        Raises:
            AuthenticationError: the provider has none, or only the one that was refused.
            Interrupted: the waiting was ended.
        """
        self._is_forced = self._refused is not None
        job = self._ask(self._refused)
        try:
            token = wait(job, Deadline(self._timeout))
        except Interrupted:
            raise
        except BaseException as error:  # whatever it was, it is the provider's
            failure = provider_failure(error)
            raise failure from failure.__cause__
        if self._refused is not None and token.secret == self._refused.secret:
            raise AuthenticationRejected(f"{self._reason}; there is no other token: sign in again", final=True)
        return token

    def accepted(self) -> None:
        """Note that the server took the token."""
        self._refused, self._is_forced = None, False

    def judge(self, error: AuthenticationRejected, token: Token) -> AuthenticationRejected:
        """Return a refusal as the last word if a forced refresh went before it; else remember the token."""
        if error.final:
            return error
        if self._is_forced:
            return AuthenticationRejected(f"{error}; a refreshed token did not help", final=True)
        self._refused, self._reason = token, str(error)
        return error

    # --- for a live connection --------------------------------------------------------------------------

    def request(self, stale: Token) -> None:
        """Begin to ask for another token than `stale`, if that is not asked for already."""
        if self._job is None:
            self._job = self._ask(stale)
            self._deadline = Deadline(self._timeout)

    def answer(self) -> Token | AuthenticationError | None:
        """Return, once, what came of `request`: a token, or why there is none; None if there is no answer yet.

        A failure is counted, for `ask_again_in`.
        """
        job = self._job
        if job is None or not (job.done or self._deadline.expired()):
            return None
        self._job = None
        try:
            token = job.result() if job.done else job.abandon()
        except BaseException as error:  # whatever it was, it is the provider's
            self._failures += 1
            return provider_failure(error)
        self._failures = 0
        return token

    def ask_again_in(self, error: AuthenticationError) -> float | None:
        """Return the seconds after which a provider that failed is asked again; None: it is useless."""
        if not isinstance(error, TokenUnavailable):
            return None
        return self._pauses.pause(self._failures, error.retry_after)

    def cancel(self) -> None:
        """Wait no longer for what was requested."""
        if self._job is not None:
            self._job.leave()
            self._job = None

    def next_deadline(self) -> float | None:
        """Return when `answer` should be called if nothing happens before, in monotonic seconds; None: no need."""
        return None if self._job is None else self._deadline.at

    # --- for REST, on the work thread -------------------------------------------------------------------

    def call(self, stale: Token) -> Token:
        """Ask for another token than `stale`, and wait for it. It is called on the work thread."""
        return _ask(self._provider, stale)

    def _ask(self, stale: Token | None) -> Job[Token]:
        provider = self._provider
        return self._work.submit(lambda: _ask(provider, stale), "waiting for the token provider")


def refresh_in(token: Token) -> float | None:
    """Return the seconds until another token should be asked for; None: never."""
    return token.refresh_in(time.time(), random.random())


def provider_failure(error: BaseException) -> AuthenticationError:
    """Return what a provider raised as an error of ours."""
    if isinstance(error, AuthenticationError):
        return error
    if isinstance(error, Abandoned):
        return TokenUnavailable("the token provider took longer than token_timeout")
    # The error's words may hold a token, also one that was not seen here: its place is told instead.
    kind = type(error).__name__
    logger.debug("aggstream: the token provider failed with %s, on this way:\n%s", kind, trail_of(error))
    failure = TokenUnavailable(
        f"the token provider failed with {kind} at {place_of(error)} (the exception itself is error.__cause__)"
    )
    failure.__cause__ = error
    return failure


def _ask(provider: TokenProvider, stale: Token | None) -> Token:
    text = provider.get_token(stale=None if stale is None else stale.secret.reveal())
    problem = problem_with(text)
    if problem is not None:
        del text  # a traceback may show the locals of its frames
        raise TokenUnavailable(problem)
    return Token.of(text)
