"""Reads from the REST API what a catch-up asks for: one call at a time, on a thread that may block."""

from __future__ import annotations

import logging
import time

from aggstream._base.blocking_calls import CallNotMade, CallQueue, Job
from aggstream._base.moments import moment
from aggstream._stream.catch_up import CatchUp, Read, ReadBalances
from aggstream._stream.pace import Turn
from aggstream.errors import AggStreamError, AuthenticationRejected, RestError
from aggstream.events._records import Balances, OrdersPage
from aggstream.rest import _snapshot as _balance_snapshot  # noqa: F401  (for the catch_up, before there are threads)
from aggstream.rest._calls import Calls, Unauthorized
from aggstream.tokens._credentials import Credentials, provider_failure
from aggstream.tokens._token import Token

logger = logging.getLogger("aggstream.stream")


class RestReader:
    """Belongs to the I/O thread."""

    def __init__(
        self,
        catch_up: CatchUp,
        calls: Calls,
        credentials: Credentials,
        queue: CallQueue,
        turn: Turn,
        *,
        longest_call: float,
        name: str,
    ) -> None:
        """Make a reader that reads nothing yet.

        Args:
            catch_up: asks, and takes the answers.
            calls: makes the requests.
            credentials: get another token if REST refuses the one that it is given.
            queue: makes the calls.
            turn: says when the service may be asked.
            longest_call: seconds after which a call is given up. It has time-outs of its own; a name look-up or a
                token function may hang all the same.
            name: begins the log lines.
        """
        self._name = name
        self._is_failing = False
        self._catch_up = catch_up
        self._calls = calls
        self._credentials = credentials
        self._queue = queue
        self._turn = turn
        self._longest_call = longest_call
        self._job: Job[OrdersPage | Balances] | None = None
        self._read: Read | None = None
        self._is_open = False

    def step(self, token: Token) -> None:
        """Hand in an answer that has come, and begin what is to be read next.

        Args:
            token: the one that the stream uses; REST takes the same.
        """
        now, wall_ns = moment(), time.time_ns()
        if self._job is not None and self._read is not None:
            if self._job.done:
                self._answer(self._job, self._read, now, wall_ns)
                self._job = self._read = None
                self._is_open = True
            elif not self._catch_up.awaits(self._read):
                self.abandon()
            elif self._job.check(self._longest_call):
                given_up = self._read
                self.abandon()
                self._failed(given_up, RestError(f"no answer came within {self._longest_call:g} s"), now)
        if self._job is None:
            if not self._catch_up.wants_answer:
                self.close()
            elif self._turn.use(self._catch_up.urgency) and (read := self._catch_up.request()) is not None:
                self._read = read
                self._job = self._queue.submit(lambda: self._call(read, token))

    def abandon(self) -> None:
        """Wait for no answer any more."""
        if self._job is not None:
            self._job.leave()
            self._is_open = True
        self._job = self._read = None

    def close(self) -> None:
        """Let go of the connections, if there are any: the next call is minutes away, or never."""
        if self._is_open:
            self._is_open = False
            self._queue.submit(self._calls.close)

    def next_deadline(self) -> float | None:
        """Return when `step` should be called at the latest, in monotonic seconds; None: no call goes on."""
        return None if self._job is None else self._job.deadline(self._longest_call)

    def _answer(self, job: Job[OrdersPage | Balances], read: Read, now: float, wall_ns: int) -> None:
        try:
            answer = job.result()
        except AggStreamError as error:
            self._failed(read, error, now)
        except CallNotMade as error:
            self._failed(read, RestError(f"REST was not asked: {error}"), now)
        except BaseException as error:  # the token provider's: it is asked for a token there
            self._failed(read, provider_failure(error), now)
        else:
            if self._is_failing:
                self._is_failing = False
                logger.info("%s: the REST API answers again", self._name)
            if isinstance(answer, Balances):
                self._catch_up.balances_received(read, answer, now, wall_ns)
            else:
                self._catch_up.page_received(read, answer, now, wall_ns)

    def _failed(self, read: Read, error: AggStreamError, now: float) -> None:
        if not self._is_failing:  # the repetitions are no news
            self._is_failing = True
            logger.warning("%s: the REST API does not tell what was missed: %s", self._name, error)
        self._turn.hold(error)
        self._catch_up.read_failed(read, error, now)

    # --- on the lane's thread ---------------------------------------------------------------------------

    def _call(self, read: Read, token: Token) -> OrdersPage | Balances:
        try:
            return self._with_any_token(read, token)
        finally:
            if not self._catch_up.awaits(read):  # given up meanwhile, and nobody else will see to it
                self._calls.close()

    def _with_any_token(self, read: Read, token: Token) -> OrdersPage | Balances:
        try:
            return self._once(read, token)
        except Unauthorized:
            pass
        fresh = self._credentials.call(token)
        if fresh.secret == token.secret:
            raise AuthenticationRejected("the REST API refused the token, and there is no other one")
        try:
            return self._once(read, fresh)
        except Unauthorized:
            raise AuthenticationRejected("the REST API refused a refreshed token as well") from None

    def _once(self, read: Read, token: Token) -> OrdersPage | Balances:
        if isinstance(read, ReadBalances):
            return self._calls.balances(token.secret)
        return self._calls.orders_page(token.secret, status=read.status, cursor=read.cursor)
