"""What goes wrong on demand."""

from __future__ import annotations

from typing import Any

from aggstream.simulator._host import Host


class Switches(Host):
    """What `Simulator` is made of that makes things go wrong."""

    def push(self, frame: str | dict[str, Any], *, user_id: str | None = None) -> int:
        """Send any frame, right or wrong; it is not entered into the books.

        Args:
            frame: a text, sent as it is, or an object, sent as JSON.
            user_id: whose connections get it; None for all, the unauthenticated as well.

        Returns:
            How many connections it was sent to.

        Raises:
            ValueError: what cannot be written as JSON or UTF-8. TypeError as well, as `json.dumps` raises it.
        """
        return self._wait(self._service.push, frame, user_id)

    def drop(
        self,
        *,
        user_id: str | None = None,
        code: int = 1001,
        reason: str = "going away",
        abort: bool = False,
    ) -> int:
        """End connections. What happens from now on does not reach them.

        Args:
            user_id: whose connections; None for all.
            code: the close code, sent after all that was queued before it.
            reason: the reason that goes with the code, at most 123 bytes.
            abort: reset the connection (TCP RST) instead, with what is queued lost.

        Returns:
            How many connections were ended.

        Raises:
            ValueError: a code that a server does not close with, or a reason too long.
        """
        return self._call(self._service.drop, user_id, code, reason, abort)

    def refuse_tokens(self, n: int = 1) -> None:
        """Refuse the next `n` authentications, by message or in the query, whatever their tokens."""
        self._call(self._service.refuse_tokens, n)

    def refuse_connections(self, n: int = 1, status: int = 503, retry_after: int | None = None) -> None:
        """Answer the next `n` handshakes with an HTTP error, and a Retry-After of so many seconds."""
        self._call(self._service.refuse_connections, n, status, retry_after)

    def refuse_refreshes(self, n: int = 1, status: int = 503) -> None:
        """Answer the next `n` token refreshes with an HTTP error; their refresh tokens stay unspent."""
        self._call(self._service.refuse_refreshes, n, status)

    def refuse_rest(self, n: int | None = 1, status: int = 503, retry_after: int | None = None) -> None:
        """Answer the next `n` calls of /execution/* with an HTTP error, and a Retry-After of so many seconds.

        None refuses all of them, until `refuse_rest(0)`.
        """
        self._call(self._service.rest.refuse, n, status, retry_after)

    def stall_rest(self, stalled: bool = True) -> None:
        """Accept the calls of /execution/* and hold their answers back, or let all go that were held back.

        An answer is made when the call comes, and tells of what was then. Stopping the simulator lets all go.
        """
        self._call(self._service.rest.stall, stalled)

    def drop_rest(self, n: int = 1) -> None:
        """Reset the connection (TCP RST) in the middle of the next `n` answers of /execution/*, errors as well."""
        self._call(self._service.rest.drop, n)

    def freeze_rest(self, frozen: bool = True) -> None:
        """Answer /execution/* from what is now, as a replica that lags, or from what is then again.

        Freezing again moves on to the state of that moment. Tokens are always judged by what is.
        """
        self._call(self._service.freeze_rest, frozen)

    def set_order(
        self, order_id: str, *, status: str | None = None, filled_raw: int | None = None, error: str | None = None
    ) -> None:
        """Let REST say something of an order that no event tells of, whatever becomes of the order.

        Each call takes the place of the one before; with nothing given, REST tells the truth again. The stream
        goes on as if nothing had been said.

        Args:
            order_id: an order that was submitted, of any user.
            status: any text; None leaves the true one.
            filled_raw: any number of base units, sensible or not; None leaves the true one.
            error: any text; None leaves the true one.

        Raises:
            ValueError: REST does not tell of such an order at all.
        """
        self._call(self._service.player.set_order, order_id, status=status, filled_raw=filled_raw, error=error)

    def stall_heartbeats(self, stalled: bool = True) -> None:
        """Send no heartbeats, or send them again."""
        self._call(self._service.stall_heartbeats, stalled)

    def stall(self, stalled: bool = True) -> None:
        """Let the connections open now look half-open: TCP stands, nothing is read, written or ponged.

        What is emitted meanwhile counts as sent, as a server believes, and is sent when the stall ends.
        Connections made later are well.
        """
        self._call(self._service.stall, stalled)

    def expire_tokens(self, user_id: str | None = None) -> None:
        """Let all access tokens issued so far expire, to that user or to all. Refresh tokens stay good."""
        self._call(self._service.expire_tokens, user_id)
