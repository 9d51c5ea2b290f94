"""When to try again, how long to wait, and when to give up."""

from __future__ import annotations

import datetime as dt
import email.utils
import math
import ssl
from collections.abc import Callable
from typing import Any

import pytest

from aggstream import (
    AggStreamError,
    AuthenticationError,
    AuthenticationRejected,
    ConfigurationError,
    ConnectFailed,
    ConnectionLost,
    DecodeError,
    HandshakeRejected,
    HeartbeatTimeout,
    LocalProtocolError,
    ReconnectGaveUp,
    ReconnectPolicy,
    RemoteProtocolError,
    ServerError,
    StateError,
    TokenUnavailable,
    TransportError,
    UserMismatch,
    WaitTimeout,
    is_retryable,
)
from aggstream._base.backoff import FullJitter, retry_after


def caused_by(error: AggStreamError, cause: BaseException) -> AggStreamError:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        (TransportError("m"), True),
        (ConnectFailed("m"), True),
        (ConnectionLost("m", code=1012), True),
        (HeartbeatTimeout("m"), True),
        (RemoteProtocolError("m"), True),
        (DecodeError("m"), True),
        (TokenUnavailable("m"), True),
        (AuthenticationRejected("m"), True),
        (AuthenticationRejected("m", final=True), False),
        (UserMismatch("m"), False),
        (AuthenticationError("m"), False),
        (ServerError("m"), False),
        (LocalProtocolError("m"), False),
        (ConfigurationError("m"), False),
        (StateError("m"), False),
        (WaitTimeout("m"), False),
        (ReconnectGaveUp("m", attempts=1), False),
        (AggStreamError("m"), False),
        (ValueError("m"), False),
        (caused_by(ConnectFailed("m"), ssl.SSLCertVerificationError("m")), False),
        (caused_by(ConnectFailed("m"), ssl.SSLEOFError("m")), True),
        (caused_by(ConnectFailed("m"), OSError("m")), True),
    ],
    ids=repr,
)
def test_which_errors_are_worth_another_attempt(error: BaseException, retryable: bool) -> None:
    assert is_retryable(error) is retryable


@pytest.mark.parametrize(
    ("status", "retryable"),
    [
        *((status, True) for status in (200, 408, 421, 425, 429, 500, 502, 503, 504, 599)),
        *((status, False) for status in (301, 302, 307, 400, 401, 403, 404, 410, 426, 451)),
    ],
)
def test_which_handshake_statuses_are_worth_another_attempt(status: int, retryable: bool) -> None:
    assert is_retryable(HandshakeRejected("m", status=status)) is retryable


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        ("120", 120.0),
        ("999999999", 999999999.0),
        ("9999999999", None),
        ("9" * 5000, None),
        ("", None),
        ("-1", None),
        ("1.5", None),
        (" 7", None),
        ("\u0667", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Wed, 99 Oct 2015", None),
        (None, None),
    ],
    ids=lambda value: ascii(value)[:20],
)
def test_a_retry_after_is_a_small_number_of_seconds(value: str | None, seconds: float | None) -> None:
    assert retry_after(value) == seconds


def test_a_retry_after_may_be_a_date() -> None:
    at = email.utils.format_datetime(dt.datetime.now(dt.timezone.utc) + dt.timedelta(hours=1), usegmt=True)
    seconds = retry_after(at)
    assert seconds is not None
    assert 3500 < seconds <= 3600


# --- the policy -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"initial": 0},
        {"initial": -1},
        {"initial": 61},
        {"initial": 2, "maximum": 1},
        {"initial": math.nan},
        {"maximum": math.nan},
        {"healthy_after": -1},
        {"max_attempts": 0},
        {"max_attempts": -1},
        {"max_time": 0},
        {"max_time": -0.5},
        {"decide": None},
        {"decide": "always"},
    ],
    ids=repr,
)
def test_a_policy_that_cannot_work_is_refused_and_names_the_option(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=f"reconnect: .*{next(reversed(options))}"):
        ReconnectPolicy(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"initial": "1"},
        {"maximum": None},
        {"maximum": math.inf},
        {"initial": math.inf, "maximum": math.inf},
        {"healthy_after": math.nan},
        {"healthy_after": "10"},
        {"max_time": math.nan},
        {"max_attempts": 1.5},
        {"max_attempts": "3"},
    ],
    ids=repr,
)
def test_a_policy_refuses_what_is_no_finite_number(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        ReconnectPolicy(**options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"initial": 60.0},
        {"initial": 0.001, "maximum": 0.001},
        {"healthy_after": 0},
        {"max_attempts": 1, "max_time": 0.1},
        {"decide": lambda error: False},
    ],
)
def test_policies_that_work(options: dict[str, Any]) -> None:
    ReconnectPolicy(**options)


# --- the loop -------------------------------------------------------------------------------------------


class Outage:
    """An outage: what each attempt raises, and what was waited for."""

    def __init__(self, policy: ReconnectPolicy, failure: Callable[[int], AggStreamError | None]) -> None:
        self.attempts = 0
        self.pauses: list[float] = []
        self._policy = policy
        self._failure = failure

    def run(self) -> str:
        attempts = self._policy.outage(attempts=lambda: self.attempts)
        while True:
            self.attempts += 1
            error = self._failure(self.attempts)
            if error is None:
                return "connected"
            self.pauses.append(attempts.failed(error))


def test_the_first_attempt_waits_for_nothing() -> None:
    outage = Outage(ReconnectPolicy(), lambda attempt: None)
    assert outage.run() == "connected"
    assert outage.pauses == []


def test_pauses_lie_between_zero_and_a_bound_that_doubles_up_to_the_maximum() -> None:
    policy = ReconnectPolicy(initial=1.0, maximum=60.0)
    largest = [0.0] * 12
    for _ in range(200):
        outage = Outage(policy, lambda attempt: ConnectFailed("m") if attempt <= 12 else None)
        outage.run()
        assert len(outage.pauses) == 12
        for number, pause in enumerate(outage.pauses):
            assert 0 <= pause <= min(60.0, 2.0**number)
        largest = [max(pair) for pair in zip(largest, outage.pauses, strict=True)]
    # Of 200 random pauses one is in the upper half of its range, but for one time in 2**200.
    for number, pause in enumerate(largest):
        assert pause > min(60.0, 2.0**number) / 2


def test_pauses_differ_at_the_maximum_too() -> None:
    outage = Outage(ReconnectPolicy(initial=60.0), lambda attempt: ConnectFailed("m") if attempt <= 50 else None)
    outage.run()
    assert len(set(outage.pauses)) == 50
    assert min(outage.pauses) < 30 < max(outage.pauses)


def test_an_outage_of_thousands_of_attempts_goes_on() -> None:
    outage = Outage(ReconnectPolicy(), lambda attempt: ConnectFailed("m") if attempt <= 2000 else None)
    assert outage.run() == "connected"
    assert max(outage.pauses) <= 60.0


@pytest.mark.parametrize(
    "error",
    [HandshakeRejected("m", status=503, retry_after=20.0), TokenUnavailable("m", retry_after=20.0)],
    ids=lambda error: type(error).__name__,
)
def test_a_retry_after_is_honoured(error: AggStreamError) -> None:
    outage = Outage(ReconnectPolicy(), lambda attempt: error if attempt == 1 else None)
    outage.run()
    assert outage.pauses == [20.0]


@pytest.mark.parametrize("asked", [61.0, 86_400.0, 1e300])
def test_a_retry_after_is_capped_at_the_maximum(asked: float) -> None:
    error = HandshakeRejected("m", status=429, retry_after=asked)
    outage = Outage(ReconnectPolicy(maximum=60.0), lambda attempt: error if attempt == 1 else None)
    outage.run()
    assert outage.pauses == [60.0]


def test_a_short_retry_after_does_not_shorten_the_pauses() -> None:
    error = HandshakeRejected("m", status=503, retry_after=0.0)
    outage = Outage(ReconnectPolicy(initial=60.0), lambda attempt: error if attempt <= 20 else None)
    outage.run()
    assert max(outage.pauses) > 10.0


def test_max_attempts_gives_up_with_the_last_error_as_the_cause() -> None:
    errors = [ConnectFailed(str(number)) for number in range(3)]
    outage = Outage(ReconnectPolicy(max_attempts=3), lambda attempt: errors[attempt - 1])
    with pytest.raises(ReconnectGaveUp) as caught:
        outage.run()
    assert caught.value.attempts == outage.attempts == 3
    assert caught.value.__cause__ is errors[2]
    assert len(outage.pauses) == 2
    assert "3 attempts" in str(caught.value)


def test_max_time_gives_up_with_the_last_error_as_the_cause() -> None:
    error = ConnectFailed("m")
    outage = Outage(ReconnectPolicy(max_time=1e-9), lambda attempt: error)
    with pytest.raises(ReconnectGaveUp) as caught:
        outage.run()
    assert caught.value.__cause__ is error
    assert outage.pauses == []


@pytest.mark.parametrize(
    "error",
    [
        UserMismatch("m"),
        ServerError("m"),
        HandshakeRejected("m", status=403),
        AuthenticationRejected("m", final=True),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_is_fatal_is_raised_as_it_is_at_once(error: AggStreamError) -> None:
    outage = Outage(ReconnectPolicy(max_attempts=5), lambda attempt: error)
    with pytest.raises(type(error)) as caught:
        outage.run()
    assert caught.value is error
    assert outage.attempts == 1
    assert outage.pauses == []


def test_what_is_fatal_later_is_raised_as_it_is_too() -> None:
    error = UserMismatch("m")
    outage = Outage(ReconnectPolicy(), lambda attempt: ConnectFailed("m") if attempt < 4 else error)
    with pytest.raises(UserMismatch):
        outage.run()
    assert outage.attempts == 4


def test_a_user_decides_what_is_fatal() -> None:
    seen: list[AggStreamError] = []

    def decide(error: AggStreamError) -> bool:
        seen.append(error)
        return isinstance(error, UserMismatch)

    errors: list[AggStreamError] = [UserMismatch("m"), ConnectFailed("m")]
    outage = Outage(ReconnectPolicy(decide=decide), lambda attempt: errors[attempt - 1])
    with pytest.raises(ConnectFailed):
        outage.run()
    assert seen == errors


def test_each_outage_begins_with_short_pauses_again() -> None:
    policy = ReconnectPolicy(initial=0.5, maximum=60.0)
    for _ in range(50):
        outage = Outage(policy, lambda attempt: ConnectFailed("m") if attempt == 1 else None)
        outage.run()
        assert outage.pauses[0] <= 0.5


# --- the one backoff ------------------------------------------------------------------------------------


def test_the_bound_of_a_pause_doubles_up_to_the_maximum_and_never_overflows() -> None:
    pauses = FullJitter(0.5, 60.0, lambda: 1.0)
    assert [pauses.pause(failures) for failures in (1, 2, 3, 7, 8, 9)] == [0.5, 1.0, 2.0, 32.0, 60.0, 60.0]
    assert pauses.pause(10**9) == 60.0


@pytest.mark.parametrize(("asked", "pause"), [(None, 0.0), (0.0, 0.0), (7.5, 7.5), (3600.0, 60.0)])
def test_a_pause_may_be_nothing_but_is_not_shorter_than_the_server_asks_for_up_to_the_maximum(
    asked: float | None, pause: float
) -> None:
    assert FullJitter(0.5, 60.0, lambda: 0.0).pause(5, asked) == pause
