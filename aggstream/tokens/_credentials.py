"""The token of the connection that comes next, and what the service said of the ones before."""

from __future__ import annotations

import logging
import random
import time

from aggstream._base.blocking_calls import Abandoned, Job, WorkThread
from aggstream._base.stacks import place_of, trail_of
from aggstream.errors import AggStreamError, AuthenticationError, AuthenticationRejected, TokenUnavailable
from aggstream.tokens._providers import problem_with
from aggstream.tokens._token import Token
from aggstream.typing import TokenProvider

logger = logging.getLogger("aggstream")

# A provider that had no other token yet is asked again, but not all the time.
_ASK_AGAIN = 5.0
_LONGEST_PAUSE = 300.0


class Credentials:
    """Asks the provider for tokens, and sees to it that a server which refuses is asked twice at most.

    It belongs to the I/O thread; the provider runs on the work thread.
    """

    def __init__(self, provider: TokenProvider, work: WorkThread) -> None:
        self._provider = provider
        self._work = work
        # The token that the server refused last, until it accepts one.
        self._refused: Token | None = None
        self._reason = ""
        # Whether the present token was asked for because of a refusal.
        self._forced = False

    def use(self, provider: TokenProvider) -> None:
        """Take tokens from another provider from now on."""
        self._provider = provider
        self._work.forgive()
        self.accepted()

    def ask(self, stale: Token | None) -> Job[Token]:
        """Begin to ask for a token, another one than `stale`."""
        provider = self._provider
        return self._work.submit(lambda: _ask(provider, stale), "waiting for the token provider")

    def call(self, stale: Token) -> Token:
        """Ask for another token than `stale`, and wait for it; on the work thread."""
        return _ask(self._provider, stale)

    def ask_for_next(self) -> Job[Token]:
        """Begin to ask for the token of a new connection; after a refusal, for another one than was refused."""
        self._forced = self._refused is not None
        return self.ask(self._refused)

    def check(self, token: Token) -> None:
        """Refuse to send again what was refused.

        Raises:
            AuthenticationRejected: the provider has no other token.
        """
        if self._refused is not None and token.secret == self._refused.secret:
            raise AuthenticationRejected(f"{self._reason}; there is no other token: sign in again", final=True)

    def accepted(self) -> None:
        """The server took the token."""
        self._refused, self._forced = None, False

    def judge(self, error: AuthenticationRejected, token: Token) -> AuthenticationRejected:
        """Return a refusal as the last word if a forced refresh went before it; else remember the token."""
        if error.final:
            return error
        if self._forced:
            return AuthenticationRejected(f"{error}; a refreshed token did not help", final=True)
        self._refused, self._reason = token, str(error)
        return error


def refresh_in(token: Token) -> float | None:
    """Return the seconds until another token should be asked for; None: never."""
    return token.refresh_in(time.time(), random.random())


def ask_again_in(error: AggStreamError) -> float | None:
    """Return the seconds after which a provider that failed is asked again; None: it is useless."""
    if not isinstance(error, TokenUnavailable):
        return None
    return min(max(_ASK_AGAIN, error.retry_after or 0.0), _LONGEST_PAUSE) * random.uniform(1.0, 1.5)


def provider_failure(error: BaseException) -> AuthenticationError:
    """Return what a provider raised as an error of ours."""
    if isinstance(error, AuthenticationError):
        return error
    if isinstance(error, Abandoned):
        return TokenUnavailable("the token provider took longer than token_timeout")
    # What it says may hold a token, also one that nobody here has seen: the place of it is told instead.
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
