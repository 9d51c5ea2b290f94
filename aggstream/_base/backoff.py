"""When to try again, and whether at all: every pause of the library between two attempts is computed here."""

from __future__ import annotations

import random
import ssl
import sys
import time
from collections.abc import Callable

import attrs
from tenacity import RetryCallState, Retrying, retry_base, retry_if_exception
from tenacity.wait import wait_base

from aggstream._base.border import border_at_init, is_raised_by_signal_handler, raise_interruption_in
from aggstream.errors import (
    AggStreamError,
    AuthenticationRejected,
    ConfigurationError,
    HandshakeRejected,
    ProxyRejected,
    ReconnectGaveUp,
    RemoteProtocolError,
    RestError,
    ServerError,
    TokenUnavailable,
    TransportError,
    UserMismatch,
)

__all__ = ["FullJitter", "ReconnectPolicy", "is_retryable", "is_worth_retrying", "retry_after"]

# Of the statuses that blame the request, these are about the moment and not about the request itself.
_PASSING_STATUSES = frozenset({408, 421, 425, 429})
_MOST_DIGITS = 9
# More would only overflow.
_MOST_DOUBLINGS = 64


def is_retryable(error: BaseException) -> bool:
    """Return True if connecting again may help: what `ReconnectPolicy.decide` is by default.

    Fatal are: an app id or an origin that is refused (a 3xx or 4xx status, an error before `connected`), a
    token that is refused after it was refreshed, a token of another user, a proxy that does not let us through,
    and a certificate that does not verify. The rest of what the network and the token provider can do is worth
    another attempt.
    """
    if isinstance(error, (AuthenticationRejected, ProxyRejected)):
        return not error.final
    if isinstance(error, HandshakeRejected):
        return error.status >= 500 or error.status < 300 or error.status in _PASSING_STATUSES  # noqa: PLR2004
    if isinstance(error.__cause__, ssl.SSLCertVerificationError):
        return False
    return isinstance(error, (TransportError, RemoteProtocolError, TokenUnavailable))


def is_refusal(error: BaseException) -> bool:
    """Return True if the service refuses what the client is set to: app, origin, token, user, certificate, path.

    Once a stream was signed in with the same settings, such an error may pass: see `ReconnectPolicy.fatal_after`.
    """
    kinds = (AuthenticationRejected, HandshakeRejected, ProxyRejected, ServerError, UserMismatch)
    if isinstance(error.__cause__, ssl.SSLCertVerificationError):
        return True
    return isinstance(error, kinds) and not is_retryable(error)


def is_worth_retrying(error: BaseException) -> bool:
    """Return True if the same call of the REST API may have an answer a little later.

    That is so if no answer came, or one about the moment: status 408, 421, 425, 429 or above 499. It is not if the
    service's certificate does not verify, or a proxy does not let us through.
    """
    if not isinstance(error, RestError) or is_raised_by_signal_handler(error):
        return False
    cause = error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError) or (isinstance(cause, ProxyRejected) and cause.final):
        return False
    return error.status is None or error.status in _PASSING_STATUSES or error.status >= 500  # noqa: PLR2004


@border_at_init
@attrs.frozen(kw_only=True)
class ReconnectPolicy:
    """The rules for connecting again. Pauses are random between 0 and a bound that doubles ("full jitter").

    The count starts afresh only after a connection stayed live for `healthy_after`, so that a server which
    accepts and drops is not asked more often than one that is down.

    Attributes:
        initial: the first bound, in seconds.
        maximum: the highest bound, and the longest `Retry-After` that is waited for, in seconds.
        healthy_after: how long a connection must have been live to end an outage, in seconds.
        max_attempts: attempts in one outage after which to give up; None: never.
        max_time: seconds since an outage began after which to give up; None: never.
        fatal_after: how long a refusal of app, origin, token, user, certificate or path is tried again once the
            stream was signed in, in seconds. Before that it is fatal at once; with 0, always.
        decide: called on the `aggstream-io` thread with what ended an attempt or a connection; True: try again.
            A function of your own also decides about what `fatal_after` is about.
    """

    initial: float = 1.0
    maximum: float = 60.0
    healthy_after: float = 10.0
    max_attempts: int | None = None
    max_time: float | None = None
    fatal_after: float = 300.0
    decide: Callable[[AggStreamError], bool] = is_retryable

    def __attrs_post_init__(self) -> None:
        """Refuse what cannot work.

        Raises:
            ConfigurationError: a number is out of range.
        """
        for name in ("initial", "maximum", "healthy_after", "max_time", "fatal_after"):
            value = getattr(self, name)
            optional = name == "max_time" and value is None
            if not optional and not (isinstance(value, (int, float)) and 0 <= value <= sys.float_info.max):
                raise ConfigurationError(f"reconnect: {name} must be a number of seconds, not below 0")
        if not 0 < self.initial <= self.maximum:
            raise ConfigurationError("reconnect: initial must be above 0 and not above maximum (seconds)")
        if self.max_time == 0:
            raise ConfigurationError("reconnect: max_time must be above 0, or None (seconds)")
        if self.max_attempts is not None and (type(self.max_attempts) is not int or self.max_attempts < 1):
            raise ConfigurationError("reconnect: max_attempts must be a whole number, 1 or more, or None")
        if not callable(self.decide):
            raise ConfigurationError("reconnect: decide must be a function of one error")

    def outage(
        self,
        *,
        attempts: Callable[[], int],
        may_pass: Callable[[AggStreamError], bool] = lambda error: False,
    ) -> Attempts:
        """Begin the attempts of one outage.

        Args:
            attempts: returns how often connecting was tried in this outage.
            may_pass: returns True if a refusal is tried again all the same. It is called with every error.
        """

        def gave_up(state: RetryCallState) -> None:
            error = _error_of(state)
            tried = attempts()
            raise ReconnectGaveUp(f"gave up after {tried} attempts: {error}", attempts=tried) from error

        def stop(state: RetryCallState) -> bool:
            too_often = self.max_attempts is not None and attempts() >= self.max_attempts
            elapsed = state.seconds_since_start or 0.0
            return too_often or (self.max_time is not None and elapsed >= self.max_time)

        def is_retried(error: AggStreamError) -> bool:
            passes = may_pass(error)
            return self.decide(error) or (passes and self.decide is is_retryable)

        return Attempts(
            retry=retry_if_exception(lambda error: isinstance(error, AggStreamError) and is_retried(error)),
            stop=stop,
            wait=FullJitter(self.initial, self.maximum),
            gave_up=gave_up,
        )


class Attempts:
    """The attempts of one outage. tenacity decides whether there is another one, and after which pause.

    The pause itself is its caller's: nothing sleeps here.
    """

    def __init__(
        self,
        *,
        retry: retry_base,
        stop: Callable[[RetryCallState], bool],
        wait: wait_base,
        gave_up: Callable[[RetryCallState], None],
    ) -> None:
        """Begin the first attempt.

        Args:
            retry: decides whether an error may pass.
            stop: decides whether it was tried often and long enough.
            wait: computes the pauses.
            gave_up: raises what follows when `stop` has returned True.
        """
        self._pause = 0.0
        self._attempts = iter(
            Retrying(retry=retry, stop=stop, wait=wait, sleep=self._note, retry_error_callback=gave_up)
        )
        self._attempt = next(self._attempts)

    def failed(self, error: AggStreamError) -> float:
        """End the present attempt, and begin the next one.

        Args:
            error: why it has failed.

        Returns:
            The seconds after which the next attempt is to be made.

        Raises:
            AggStreamError: the error itself, if it is fatal.
            ReconnectGaveUp: a limit of the policy is reached.
        """
        with self._attempt:
            raise error
        self._attempt = next(self._attempts)  # type: ignore[unreachable]  # tenacity takes the error
        return self._pause

    def _note(self, seconds: float) -> None:
        self._pause = seconds


def retry_after(value: str | None) -> float | None:
    """Return the seconds that a `Retry-After` header asks for, given as a number or as a date; None if neither."""
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        return float(value) if len(value) <= _MOST_DIGITS else None
    try:
        # Not with the others: it loads a third of the package for mail, for one header that hardly ever comes.
        from email.utils import parsedate_to_datetime  # noqa: PLC0415

        until = parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError) as error:
        raise_interruption_in(error)
        return None
    return max(0.0, until - time.time())


class FullJitter(wait_base):
    """Pauses that are random between 0 and a bound that doubles, but at least as long as the server asked for.

    It is the one backoff of the library: a wait rule of tenacity, or asked for a pause by its own caller.
    """

    def __init__(self, first: float, most: float, random: Callable[[], float] = random.random) -> None:
        """Make one.

        Args:
            first: the bound after the first failure, in seconds.
            most: the highest bound, and the longest `Retry-After` that is waited for, in seconds.
            random: returns numbers between 0 and 1.
        """
        self._first = first
        self._most = most
        self._random = random

    def pause(self, failures: int, retry_after: float | None = None) -> float:
        """Return a pause in seconds.

        Args:
            failures: how often it has failed in a row, from 1.
            retry_after: the seconds that the server asked for; None if it did not.
        """
        bound = min(self._first * 2.0 ** min(failures - 1, _MOST_DOUBLINGS), self._most)
        return max(bound * self._random(), min(retry_after or 0.0, self._most))

    def __call__(self, retry_state: RetryCallState) -> float:
        """Return the pause after a failed attempt, for tenacity."""
        assert retry_state.outcome is not None
        asked = getattr(retry_state.outcome.exception(), "retry_after", None)
        return self.pause(retry_state.attempt_number, asked)


def _error_of(state: RetryCallState) -> AggStreamError:
    assert state.outcome is not None
    error = state.outcome.exception()
    assert isinstance(error, AggStreamError)
    return error
