"""Folding what is said of one order into what is known of it.

Rules, whatever comes late, twice, out of order, or with parts missing:
- A status only moves on: submitted, other statuses, partially filled, the end. An end is never undone; another end
  contradicts it.
- An amount only grows. A smaller one that is older is late; one that is newer contradicts the larger one.
- A step is as far as its newest attempt is.
- Anything else is what was said first; something else, said later, contradicts it.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, TypeVar

from aggstream._base.times import milliseconds
from aggstream.events import OrderEvent, OrderSubmitted, Source, order_event_kind
from aggstream.events._records import OrderRecord
from aggstream.orders._order import Contradiction, Order, Step

Told: TypeAlias = Literal["stream", "reconcile", "silently"]
"""How a status came to the handlers: by the socket's event, by one of ours, or not at all."""

_SUBMITTED = "submitted"
_PARTIALLY_FILLED = "partially_filled"
# A status has moved on if it has a higher rank.
_RANKS = {None: 0, _SUBMITTED: 1, _PARTIALLY_FILLED: 3}
_OTHER, _END = 2, 4
_STEP_RANKS = {"started": 0, "retrying": 1, "failed": 2, "completed": 3}
# A service in alpha can say any number of things of one order; what is kept of them must not grow with them.
_MOST_STEPS = 256
_MOST_CONTRADICTIONS = 16


# The few words that come again with each order. Bounded, because a service may say any number of them, and not
# `sys.intern`, which never forgets in some versions of Python.
_WORDS: dict[str, str] = {}
_MOST_WORDS = 1000
_LONGEST_WORD = 64
Word = TypeVar("Word", str, "str | None")


def _shared(word: Word) -> Word:
    """Return the same object for equal words, so that each is kept once and not once for each order."""
    known = None if word is None else _WORDS.get(word)
    if known is not None:
        return known
    if word is not None and len(word) <= _LONGEST_WORD and len(_WORDS) < _MOST_WORDS:
        _WORDS[word] = word
    return word


class _StepProgress:
    __slots__ = ("attempt", "error_reason", "first", "last", "state", "step_id", "step_type", "template_name")

    def __init__(self, event: OrderEvent) -> None:
        self.step_id = event.step_id
        self.step_type, self.template_name = _shared(event.step_type), _shared(event.template_name)
        self.attempt: int | None = None
        self.state = ""
        self.error_reason: str | None = None
        self.first = self.last = event.timestamp

    def fold(self, event: OrderEvent, state: str) -> None:
        attempt = self.attempt if event.attempt is None else event.attempt
        new = (attempt or 0, event.timestamp, _STEP_RANKS.get(state, 1))
        if not self.state or new >= (self.attempt or 0, self.last, _STEP_RANKS.get(self.state, 1)):
            self.attempt, self.state = attempt, _shared(state)
            self.error_reason = event.error_reason if state == "failed" else None
        self.first = min(self.first, event.timestamp)
        self.last = max(self.last, event.timestamp)

    def snapshot(self) -> Step:
        return Step(
            step_id=self.step_id,
            step_type=self.step_type,
            template_name=self.template_name,
            attempt=self.attempt,
            state=self.state,
            error_reason=self.error_reason,
            first_timestamp=self.first,
            last_timestamp=self.last,
        )


class OrderState:
    """The state of one order, folded out of events and records. Not thread-safe: its owner holds a lock."""

    __slots__ = (
        "_amounts_at",
        "_contradictions",
        "_error_rank",
        "_facts",
        "_first",
        "_from_rest",
        "_last",
        "_rank",
        "_snapshot",
        "_steps",
        "_told",
        "is_known",
        "is_terminal",
        "order_id",
        "status",
    )

    def __init__(self, order_id: str) -> None:
        self.order_id = order_id
        self.is_known = False
        """True once anything was said of it."""
        self.status: str | None = None
        self.is_terminal = False
        """True if nothing more happens to the order."""
        self._rank = 0
        self._facts: dict[str, Any] = {}
        # The names of the facts that REST told first, and "status"; all others are the stream's. There may be a
        # hundred thousand orders, so what most of them do not have takes no place.
        self._from_rest: frozenset[str] = frozenset()
        self._steps: dict[str, _StepProgress] = {}
        self._contradictions: tuple[Contradiction, ...] = ()
        # By status, and for a partial fill its amount as well, which only grows: the last one alone is kept.
        self._told: dict[str, tuple[int | None, Told]] = {}
        self._amounts_at: int | None = None
        self._error_rank = -1
        self._first: int | None = None
        self._last: int | None = None
        self._snapshot: Order | None = None

    @property
    def was_told_by_rest(self) -> bool:
        """True if the handlers have the order's end from a reconciliation."""
        return self.status is not None and self._told.get(self.status, (None, ""))[1] == "reconcile"

    @property
    def last_timestamp(self) -> int | None:
        """Of the latest thing that was told: milliseconds since the epoch, by the service's clock."""
        return self._last

    def fold_submitted(self, event: OrderSubmitted) -> None:
        """Take an `order_submitted`."""
        self._hear(event.timestamp)
        source = event.source
        told = {
            "venue": event.venue,
            "side": event.side,
            "price": event.price,
            "size": event.size,
            "outcome_id": event.outcome_id,
        }
        if not self._facts:  # it is what is heard first of nearly every order
            told.update(venue=_shared(event.venue), side=_shared(event.side))
            self._facts = told
        elif not told.items() <= self._facts.items():
            for name, value in told.items():
                self._fact(name, value, source, event.timestamp)
        self._mark_told(_SUBMITTED, None, "stream")
        self._move(_SUBMITTED, source, event.timestamp)

    def fold_event(self, event: OrderEvent) -> bool:
        """Take an `order_event`.

        Returns:
            True if it only repeats a status that a reconciliation has delivered before.
        """
        self._snapshot = None
        if self._last is None or event.timestamp > self._last or event.timestamp < (self._first or 0):
            self._hear(event.timestamp)
        source = event.source
        # Most events repeat these.
        facts = self._facts
        if event.venue != facts.get("venue"):
            self._fact("venue", _shared(event.venue), source, event.timestamp)
        if event.dag_run_id != facts.get("dag_run_id"):
            self._fact("dag_run_id", event.dag_run_id, source, event.timestamp)
        kind = order_event_kind(event.event)
        family = None if kind is None else kind.family
        status = event.sub_event
        if family == "step":
            self._step(event, status.removeprefix("step_"))
        elif family == "run":
            self._run(event, status.removeprefix("dag_"))
        elif family == "terminal" or source == "reconcile":
            status = _shared(status)
            self._amounts(event.filled_amount_raw, event.remaining_amount_raw, source, event.timestamp)
            self._error(event.error_reason, _END, source)
            how = self._how_told(status, event.filled_amount_raw)
            if how != "reconcile":
                self._mark_told(status, event.filled_amount_raw, source)
            self._move(status, source, event.timestamp)
            return how == "reconcile" and source == "stream"
        return False

    def fold_record(self, record: OrderRecord, status: str, *, deliver: bool) -> bool:
        """Take what REST says of the order.

        Args:
            record: the order.
            status: its status, by the name that an `order_event` would have.
            deliver: whether the handlers should be told if it is news.

        Returns:
            True if the handlers were not told of this status before and are to be told now.
        """
        updated = milliseconds(record.updated_at)
        moves_on = _rank(status) >= self._rank and (
            self.status != status or (record.filled_amount_raw or 0) > (self._facts.get("filled_amount_raw") or 0)
        )
        how = self._how_told(status, record.filled_amount_raw)
        # That it was submitted goes without saying once it has been told of something later.
        is_late = status == _SUBMITTED and (updated or 0) < (self._last or 0)
        self._hear(updated)
        self._hear(milliseconds(record.created_at))
        self._fact("venue", _shared(record.venue), "reconcile", updated)
        self._fact("side", _shared(record.side), "reconcile", updated)
        self._fact("amount_raw", record.amount_raw, "reconcile", updated)
        self._fact("execution_price", record.execution_price, "reconcile", updated)
        filled, amount = record.filled_amount_raw, record.amount_raw
        remaining = amount - filled if amount is not None and filled is not None and amount >= filled else None
        self._amounts(filled, remaining, "reconcile", updated)
        self._error(record.error_message, _OTHER, "reconcile")
        contradicts = self._move(status, "reconcile", updated)
        is_news = how in (None, "silently") and (moves_on or contradicts or how == "silently") and not is_late
        if is_news:
            self._mark_told(status, record.filled_amount_raw, "reconcile" if deliver else "silently")
        return is_news and deliver

    def snapshot(self) -> Order:
        """Return what is known; the same object as long as nothing changes."""
        if self._snapshot is None:
            self._snapshot = Order(
                order_id=self.order_id,
                status=self.status,
                steps=tuple(step.snapshot() for step in self._steps.values()),
                first_timestamp=self._first,
                last_timestamp=self._last,
                sources=self._sources(),
                contradictions=self._contradictions,
                **self._facts,
            )
        return self._snapshot

    # --- inside -----------------------------------------------------------------------------------------

    def _came_from(self, name: str, source: Source) -> None:
        if source == "reconcile":
            self._from_rest |= {name}
        elif self._from_rest:
            self._from_rest -= {name}

    def _sources(self) -> dict[str, Source]:
        names = self._facts if self.status is None else (*self._facts, "status")
        return {name: "reconcile" if name in self._from_rest else "stream" for name in names}

    def _hear(self, timestamp: int | None) -> None:
        self._snapshot = None
        self.is_known = True
        if timestamp is None:
            return
        if self._last is None or timestamp > self._last:
            self._last = timestamp
        if self._first is None or timestamp < self._first:
            self._first = timestamp

    def _how_told(self, status: str, filled: int | None) -> Told | None:
        """Return how the handlers were told of a status; of one that can be taken on again, with this amount."""
        found = self._told.get(status)
        return found[1] if found is not None and (_rank(status) == _END or found[0] == filled) else None

    def _mark_told(self, status: str, filled: int | None, how: Told) -> None:
        before = self._told.get(status)
        if before is None or (before[0] or 0) <= (filled or 0):
            self._told[status] = (filled, how)

    def _move(self, status: str, source: Source, timestamp: int | None) -> bool:
        """Move on to a status; return True if it contradicts the end that is known."""
        if status == self.status:
            return False
        rank = _rank(status)
        if self._rank == _END:
            return rank == _END and self._contradict("status", self.status, status, source, timestamp)
        if rank >= self._rank:
            self.status, self._rank, self.is_terminal = status, rank, rank == _END
            self._came_from("status", source)
        return False

    def _fact(self, name: str, value: object, source: Source, timestamp: int | None) -> None:
        known = self._facts.get(name)
        if value is None or known == value:
            return
        if known is None:
            self._facts[name] = value
            self._came_from(name, source)
        else:
            self._contradict(name, known, value, source, timestamp)

    def _amounts(self, filled: int | None, remaining: int | None, source: Source, timestamp: int | None) -> None:
        if filled is None:
            return
        known = self._facts.get("filled_amount_raw")
        if known is not None and filled < known:
            if source == "stream" and timestamp is not None and timestamp > (self._amounts_at or timestamp):
                self._contradict("filled_amount_raw", known, filled, source, timestamp)
            return
        if known != filled:
            self._facts["filled_amount_raw"] = filled
            self._facts.pop("remaining_amount_raw", None)
            self._came_from("filled_amount_raw", source)
            self._amounts_at = timestamp
        if remaining is not None and "remaining_amount_raw" not in self._facts:
            self._facts["remaining_amount_raw"] = remaining
            self._came_from("remaining_amount_raw", source)

    def _error(self, reason: str | None, rank: int, source: Source) -> None:
        """Take a reason; that of the order's status says more than that of its run."""
        if reason is not None and rank > self._error_rank:
            self._error_rank = rank
            self._facts["error_reason"] = reason
            self._came_from("error_reason", source)

    def _run(self, event: OrderEvent, state: str) -> None:
        known = self._facts.get("run_state")
        if known != state and known in (None, "started"):
            self._facts["run_state"] = _shared(state)
            self._came_from("run_state", event.source)
        self._error(event.error_reason, 0, event.source)

    def _step(self, event: OrderEvent, state: str) -> None:
        key = event.step_id or event.step_type or ""
        step = self._steps.get(key)
        if step is None:
            if len(self._steps) >= _MOST_STEPS:
                return
            step = self._steps[key] = _StepProgress(event)
        step.fold(event, state)

    def _contradict(self, name: str, kept: object, refused: object, source: Source, timestamp: int | None) -> bool:
        """Keep a contradiction; return True if it is a new one."""
        found = Contradiction(field=name, kept=str(kept), refused=str(refused), source=source, timestamp=timestamp)
        if any((c.field, c.refused) == (name, found.refused) for c in self._contradictions):
            return False
        # The end is what a verdict depends on, so a contradiction of it always finds a place.
        if len(self._contradictions) < _MOST_CONTRADICTIONS or name == "status":
            self._contradictions += (found,)
        return True


def _rank(status: str | None) -> int:
    kind = None if status is None else order_event_kind(status)
    return _END if kind is not None and kind.is_terminal else _RANKS.get(status, _OTHER)
