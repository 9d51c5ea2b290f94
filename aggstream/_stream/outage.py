"""What is told of an outage while it lasts: less and less often, because a line that comes again hides others."""

from __future__ import annotations

import logging
import time

from aggstream.errors import AggStreamError, AuthenticationError, ConnectFailed, TransportError

logger = logging.getLogger("aggstream.stream")

# The first attempts are logged each, then only when an outage has lasted twice as long as at the last line.
_FIRST = 3
_LONGEST_SILENCE = 3600.0
_LONG = 60.0


class Outage:
    """The time without a connection that stays live. Written by the I/O thread, read by any."""

    def __init__(self, name: str, healthy_after: float = 0.0) -> None:
        """Begin before the first connection.

        Args:
            name: begins the log lines.
            healthy_after: seconds for which a connection must have been live to end an outage. A server that
                accepts and drops must not look like one that serves.
        """
        self._name = name
        self._healthy_after = healthy_after
        # When the present connection went live, in monotonic seconds; None if there is none.
        self._live_since: float | None = None
        self._has_been_live = False
        self._since: float | None = None
        self._failures = 0
        self._log_at = 0.0

    def ended(self) -> None:
        """Note that a connection is live."""
        self._has_been_live = True
        self._live_since = time.monotonic()

    def failed(self, error: AggStreamError, delay: float, now: float) -> None:
        """Note that an attempt has failed, or that a connection was lost.

        Args:
            error: why.
            delay: seconds until the next attempt.
            now: monotonic seconds.
        """
        live_since, self._live_since = self._live_since, None
        if live_since is not None and time.monotonic() - live_since >= self._healthy_after:
            self._since = None
            self._failures = 0
            self._log_at = 0.0
        if self._since is None:
            self._since = now
        self._failures += 1
        lasts = now - self._since
        if self._failures <= _FIRST:
            logger.warning("%s: next attempt in %.1f s: %s", self._name, delay, error)
        elif lasts >= self._log_at:
            said = "%s: not connected for %.0f s, after %d failures; next attempt in %.1f s: %s; %s"
            logger.warning(said, self._name, lasts, self._failures, delay, error, self._remedy(error))
        else:
            logger.debug("%s: next attempt in %.1f s: %s", self._name, delay, error)
            return
        self._log_at = lasts + min(max(lasts, _LONG), _LONGEST_SILENCE)

    def problem(self, error: AggStreamError | None) -> str | None:
        """Return in words what the matter is and what to do, if it lasts for long; else None.

        Args:
            error: the last error.
        """
        since = self._since
        lasts = 0.0 if since is None else time.monotonic() - since
        if error is None or lasts < _LONG or self._live_since is not None:
            return None
        return f"not connected for {lasts:.0f} s, after {self._failures} failures: {error}; {self._remedy(error)}"

    def _remedy(self, error: AggStreamError) -> str:
        if isinstance(error, AuthenticationError):
            return "look at the token function, and whether the user must sign in again"
        if isinstance(error, ConnectFailed) and not self._has_been_live:
            return "look at url, at the network, and at proxies: no connection ever came about"
        if isinstance(error, TransportError):
            return "look at the network, and at the service's status"
        return "look at what the error names"
