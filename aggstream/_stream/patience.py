"""How long the stream tries again after errors that usually do not pass, once it has been signed in."""

from __future__ import annotations

from aggstream._base.backoff import is_refusal
from aggstream.errors import AggStreamError, AuthenticationError


class Patience:
    """Tells whether a refusal is fatal. It belongs to the I/O thread.

    Before the first sign-in a refusal means that something is set wrongly: it is fatal at once. After it, the same
    settings have worked, so it may pass: a page of maintenance, a token that is renewed late, one wrong server
    among several. It is fatal only when nothing else was heard for `fatal_after`.

    Another user has another token, so a refusal of that one is again fatal at once. App, origin, path and
    certificate stay those that have worked.
    """

    def __init__(self, fatal_after: float) -> None:
        """Begin before the first sign-in.

        Args:
            fatal_after: seconds.
        """
        self._has_user = False
        self._has_worked = False
        self._fatal_after = fatal_after
        self._refused_since: float | None = None
        self._error: AggStreamError | None = None

    @property
    def has_signed_in(self) -> bool:
        """True once the present user was signed in."""
        return self._has_user

    @has_signed_in.setter
    def has_signed_in(self, value: bool) -> None:
        self._has_user = value
        self._has_worked = self._has_worked or value

    def forget(self) -> None:
        """Begin anew with another user."""
        self._has_user = False
        self._refused_since = None

    def succeeded(self) -> None:
        """Note that a connection has been live for a while, or that a new token was accepted."""
        self._refused_since = None

    def has_for(self, error: AggStreamError, now: float) -> bool:
        """Note an error at a moment, in monotonic seconds; return True if it is a refusal that may still pass."""
        if not is_refusal(error):
            self._refused_since = None
            return False
        if not (self._has_user if isinstance(error, AuthenticationError) else self._has_worked):
            return False
        if self._refused_since is None:
            self._refused_since = now
        self._error = error
        return now - self._refused_since < self._fatal_after

    def problem(self, now: float, live_since: float | None = None) -> str | None:
        """Return in words what is refused, and when that is fatal; None if nothing is.

        Args:
            now: the present moment, in monotonic seconds.
            live_since: the moment at which the present connection went live; None: it is not live. What was
                refused before that is refused no more.
        """
        since = self._refused_since
        if since is None or (live_since is not None and since <= live_since):
            return None
        left = max(0.0, since + self._fatal_after - now)
        return f"refused for {now - since:.0f} s, which ends the stream in {left:.0f} s: {self._error}"
