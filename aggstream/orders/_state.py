"""Folding what is said of one order into what is known of it.

Rules, whatever comes late, twice, out of order, or with parts missing:
- A status only moves on: submitted, other statuses, partially filled, the end. An end is never undone; another end
  contradicts it.
- An amount only grows, in whatever event it stands. A smaller one that is older is late; one that is newer
  contradicts the larger one. An amount that cannot be read is not known.
- The amounts of an end are compared with its word, and with each other.
- A step is as far as its newest attempt is.
- Anything else is what was said first; something else, said later, contradicts it.

Beside what is known stands what the handlers were told: it only grows as well.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, TypeVar

import attrs

from aggstream._base.times import milliseconds
from aggstream.events import (
    ORDER_EVENTS,
    OrderEvent,
    OrderEventKind,
    OrderSubmitted,
    Source,
    Verdict,
    order_event_kind,
)
from aggstream.events._amounts import is_unreadable, raw_amount
from aggstream.events._records import OrderRecord
from aggstream.events._statuses import PROGRESS
from aggstream.orders._order import AmountsDoubt, Contradiction, Order, Step

Telling: TypeAlias = Literal["now", "never", "later"]
"""What becomes of a record that REST tells: handlers are told of it now, or never, because it is history or late,
or they are owed it: the stream or a later look tells them."""

_SUBMITTED = "submitted"
_PARTIALLY_FILLED = "partially_filled"
# A status has moved on if it has a higher rank.
_RANKS = {None: 0, _SUBMITTED: 1, "pending": 1, _PARTIALLY_FILLED: 3}
_OTHER, _END = 2, 4
# Handlers were told more by a higher one of these. Of the words before the first fill none tells more than
# another.
_TOLD_RANKS = {_PARTIALLY_FILLED: 2}
_TOLD_OF, _TOLD_END = 1, 3
# A service in alpha can say any number of things of one order; what is kept of them must not grow with them.
_MOST_STEPS = 256
_AMOUNTS = ("filled_amount_raw", "remaining_amount_raw")
_MOST_CONTRADICTIONS = 16
_MOST_TEXTS = 16
# Milliseconds between a change's `updatedAt` and its message, at most. Assumed.
_MESSAGE_AFTER_MS = 5000
_NO_TEXTS: frozenset[str] = frozenset()


# The few words that come again with each order are kept once, and not once for each order.
# Bounded, because a service may say any number of words. And not `sys.intern`, which in some versions of Python
# never forgets.
_WORDS: dict[str, str] = {}
_TEXTS: dict[frozenset[str], frozenset[str]] = {}
_MOST_WORDS = 1000
_LONGEST_WORD = 64
Word = TypeVar("Word", str, "str | None")


def _shared_word(word: Word) -> Word:
    """Return the same object for equal words."""
    known = None if word is None else _WORDS.get(word)
    if known is not None:
        return known
    if word is not None and len(word) <= _LONGEST_WORD and len(_WORDS) < _MOST_WORDS:
        _WORDS[word] = word
    return word


def _shared_words(texts: frozenset[str]) -> frozenset[str]:
    """Return the same object for equal sets of words, because nearly all orders end by one of a few words."""
    known = _TEXTS.get(texts)
    if known is None and len(_TEXTS) < _MOST_WORDS and all(len(text) <= _LONGEST_WORD for text in texts):
        _TEXTS[texts] = texts
    return texts if known is None else known


_STEP_RANKS = {"started": 0, "retrying": 1, "failed": 2, "completed": 3}


class _StepProgress:
    """The state of one step: as far as its newest attempt is."""

    __slots__ = ("attempt", "error_reason", "first", "last", "state", "step_id", "step_type", "template_name")

    def __init__(self, event: OrderEvent) -> None:
        self.step_id = event.step_id
        self.step_type, self.template_name = _shared_word(event.step_type), _shared_word(event.template_name)
        self.attempt: int | None = None
        self.state = ""
        self.error_reason: str | None = None
        self.first = self.last = event.timestamp

    def fold(self, event: OrderEvent, state: str) -> None:
        """Take an event of the step, which says its state."""
        attempt = self.attempt if event.attempt is None else event.attempt
        new = (attempt or 0, event.timestamp, _STEP_RANKS.get(state, 1))
        if not self.state or new >= (self.attempt or 0, self.last, _STEP_RANKS.get(self.state, 1)):
            self.attempt, self.state = attempt, _shared_word(state)
            self.error_reason = event.error_reason if state == "failed" else None
        self.first = min(self.first, event.timestamp)
        self.last = max(self.last, event.timestamp)

    def snapshot(self) -> Step:
        """Return what is known of the step."""
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
        "_amounts_doubt",
        "_contradictions",
        "_doubted",
        "_end_has_amounts",
        "_error_rank",
        "_facts",
        "_first",
        "_from_rest",
        "_last",
        "_rank",
        "_rest_told",
        "_snapshot",
        "_steps",
        "_told_filled",
        "_told_rank",
        "_told_texts",
        "_unknown_at",
        "_unreadable",
        "_unreadable_at",
        "_was_partly_filled",
        "is_known",
        "is_terminal",
        "is_unlisted",
        "order_id",
        "status",
        "unknown_status",
    )

    def __init__(self, order_id: str) -> None:
        self.order_id = order_id
        self.is_known = False
        """True once anything was said of it."""
        self.status: str | None = None
        self.is_terminal = False
        """True if nothing more happens to the order."""
        self.unknown_status: str | None = None
        """The last thing that was said of its status, if nobody knows the word; else None."""
        self.is_unlisted = False
        """True if the last look at REST did not list it, although it was known to be open."""
        self._rank = 0
        self._facts: dict[str, Any] = {}
        # The names of the facts that REST told first, and "status"; all others are the stream's. There may be a
        # hundred thousand orders, so what most of them do not have takes no place.
        self._from_rest: frozenset[str] = frozenset()
        self._steps: dict[str, _StepProgress] = {}
        self._contradictions: tuple[Contradiction, ...] = ()
        self._amounts_at: int | None = None
        # An amount that cannot be read, and when it was said; None once a newer one can be read.
        self._unreadable: str | None = None
        self._unreadable_at = 0
        self._unknown_at = 0
        # True if an amount was said together with an end that means "filled".
        self._end_has_amounts = False
        self._was_partly_filled = False
        # Why the amounts of the end are no ground for a verdict; and how much was filled, of how much in all, by
        # the message that says so.
        self._amounts_doubt: AmountsDoubt = ""
        self._doubted: tuple[int | None, int | None] = (None, None)
        # What the handlers were told: how far the order is, how much is filled, and by which texts that have no
        # rank: words of ends, words that nobody knows, amounts that cannot be read.
        self._told_rank = 0
        self._told_filled = 0
        self._told_texts = _NO_TEXTS
        # The statuses that handlers were told by REST, each with its amount: None if it came without one.
        self._rest_told: dict[str, int | None] | None = None
        self._error_rank = -1
        self._first: int | None = None
        self._last: int | None = None
        self._snapshot: Order | None = None

    @property
    def end_told_by_rest(self) -> tuple[str, int | None] | None:
        """The order's end and its amount, if the handlers have them from REST; else None."""
        if self._rest_told is None or self.status not in self._rest_told or not self.is_terminal:
            return None
        return self.status, self._rest_told[self.status]

    @property
    def last_timestamp(self) -> int | None:
        """Of the latest thing that was told: milliseconds since the epoch, by the service's clock."""
        return self._last

    @property
    def is_open(self) -> bool:
        """True if it is known not to have ended. If nobody knows the last word about it, that is not known."""
        return not self.is_terminal and self.unknown_status is None

    @property
    def has_doubtful_amounts(self) -> bool:
        """True if the order has ended, and the amounts of its end are no ground for a verdict."""
        return self.is_terminal and self._doubt_of_end() != ""

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
            told.update(venue=_shared_word(event.venue), side=_shared_word(event.side))
            self._facts = told
        elif not told.items() <= self._facts.items():
            for name, value in told.items():
                self._fact(name, value, source, event.timestamp)
        if not self._told_rank:
            self._told_rank = _TOLD_OF
        self._move(_SUBMITTED, source, event.timestamp)

    def fold_event(self, event: OrderEvent) -> bool:
        """Take an `order_event`.

        Returns:
            True if it only repeats a status that REST has delivered before, with no more than its amount.
        """
        self._snapshot = None
        if self._last is None or event.timestamp > self._last or event.timestamp < (self._first or 0):
            self._hear(event.timestamp)
        self.is_unlisted = False
        source = event.source
        # Most events repeat these.
        facts = self._facts
        if event.venue != facts.get("venue"):
            self._fact("venue", _shared_word(event.venue), source, event.timestamp)
        if event.dag_run_id != facts.get("dag_run_id"):
            self._fact("dag_run_id", event.dag_run_id, source, event.timestamp)
        filled_text, remaining_text = event.filled_amount_text, event.remaining_amount_text
        if filled_text is not None or remaining_text is not None:
            self._amounts(filled_text, remaining_text, source, event.timestamp)
        name = event.named_as or event.event
        kind = PROGRESS.get(name) or ORDER_EVENTS.get(name) or order_event_kind(name)
        family = None if kind is None else kind.family
        if family == "step":
            self._step(event, event.sub_event.removeprefix("step_"))
        elif family == "run":
            self._run(event, event.sub_event.removeprefix("dag_"))
        else:
            return self._fold_status(event, kind)
        if not self._told_rank:
            self._told_rank = _TOLD_OF
        return False

    def _fold_status(self, event: OrderEvent, kind: OrderEventKind | None) -> bool:
        status = _shared_word(event.sub_event)
        source, filled_text = event.source, event.filled_amount_text
        is_repeat = self._rest_told is not None and source == "stream" and self._repeats(status, filled_text)
        if not is_repeat:
            self._mark_told(status, kind, filled_text, by_rest=source == "reconcile")
        if event.error_reason is not None:
            self._error(event.error_reason, _END, source)
        self._take_status(status, kind, source, event.timestamp)
        if kind is not None and kind.is_terminal:
            self._check_end(
                status, kind.verdict, filled_text, event.remaining_amount_text, source, event.timestamp
            )
        return is_repeat

    def says_more(self, status: str, filled_text: str | None) -> bool:
        """Return True if a status, or its amount, is more than the handlers were told.

        Args:
            status: its normal form.
            filled_text: `filledAmountRaw` as received.
        """
        kind = order_event_kind(status)
        filled = raw_amount(filled_text)
        if filled is not None and filled > self._told_filled:
            return True
        if is_unreadable(filled_text) and filled_text not in self._told_texts:
            return True
        rank = _told_rank(status, kind)
        if rank != self._told_rank:
            return rank > self._told_rank  # else REST trails
        return _has_no_rank(status, kind) not in (None, *self._told_texts)

    def fold_record(self, record: OrderRecord, status: str, *, telling: Telling, one_unit: bool = False) -> None:
        """Take what REST says of the order.

        Args:
            record: the order.
            status: the normal form of its status.
            telling: whether the handlers are told of it.
            one_unit: whether `amountRaw` and `filledAmountRaw` count the same thing, so that they can be compared.
        """
        kind = order_event_kind(status)
        updated = milliseconds(record.updated_at)
        self._hear(updated)
        self._hear(milliseconds(record.created_at))
        self.is_unlisted = False
        self._fact("venue", _shared_word(record.venue), "reconcile", updated)
        self._fact("side", _shared_word(record.side), "reconcile", updated)
        for name in ("amount_raw", "quoted_price_raw", "quoted_cost_raw", "execution_price"):
            self._fact(name, getattr(record, name), "reconcile", updated)
        filled_text = record.filled_amount_text
        remaining_text = attrs.evolve(record, in_one_unit=True).remaining_text if one_unit else None
        if filled_text is not None:
            self._amounts(filled_text, remaining_text, "reconcile", updated)
        self._error(record.error_message, _OTHER, "reconcile")
        if telling != "later":
            self._mark_told(status, kind, filled_text, by_rest=telling == "now")
        self._take_status(_shared_word(status), kind, "reconcile", updated)
        if kind is not None and kind.is_terminal:
            self._check_end(status, kind.verdict, filled_text, remaining_text, "reconcile", updated)

    def settle_debt(self) -> None:
        """Take everything that is known for told: what was owed has lapsed."""
        filled = self._facts.get("filled_amount_raw")
        if self.status is not None:
            kind = order_event_kind(self.status)
            self._mark_told(self.status, kind, None if filled is None else str(filled), by_rest=False)

    def confirm_amounts(self, filled: int | None) -> None:
        """Note that the last look at REST says this of how much is filled.

        If the word of the end and its amounts disagree, and REST says the same amounts, they are what is true. And
        what REST says takes the place of an amount that cannot be read, whose message may be younger by a moment.
        """
        if filled is None or filled < self._facts.get("filled_amount_raw", 0):
            return
        if self._doubt_of_end() == "unreadable":
            self._amounts_doubt, self._unreadable, self._snapshot = "", None, None
        doubted, _ = self._doubted
        if self._amounts_doubt == "disagree" and doubted in (None, filled):
            self._amounts_doubt = "confirmed"
            self._snapshot = None

    def set_unlisted(self) -> None:
        """Note that the last look at REST did not list the order, although it is known to be open."""
        self.is_unlisted = True

    def snapshot(self) -> Order:
        """Return what is known; the same object as long as nothing changes."""
        if self._snapshot is None:
            self._snapshot = Order(
                order_id=self.order_id,
                status=self.status,
                unknown_status=self.unknown_status,
                unreadable_amount=self._unreadable,
                amounts_doubt=self._doubt_of_end(),
                was_partly_filled=self._was_partly_filled,
                steps=tuple(step.snapshot() for step in self._steps.values()),
                first_timestamp=self._first,
                last_timestamp=self._last,
                sources=self._sources(),
                contradictions=self._contradictions,
                **self._told_facts(),
            )
        return self._snapshot

    def _told_facts(self) -> dict[str, Any]:
        """Return what is known, without amounts that are not those of the end.

        An order that was filled by its word alone has filled more than was said before. How much is not known.
        """
        kind = None if self.status is None else order_event_kind(self.status)
        if kind is None or kind.verdict is not Verdict.FILLED or self._end_has_amounts:
            return self._facts
        if self._facts.get("remaining_amount_raw") == 0:
            return self._facts
        return {name: value for name, value in self._facts.items() if name not in _AMOUNTS}

    # --- what handlers were told ------------------------------------------------------------------------

    def _mark_told(
        self, status: str, kind: OrderEventKind | None, filled_text: str | None, *, by_rest: bool
    ) -> None:
        rank = _told_rank(status, kind)
        self._told_rank = max(self._told_rank, rank)
        filled = None if filled_text is None else raw_amount(filled_text)
        if filled is not None and filled > self._told_filled:
            self._told_filled = filled
        if kind is None or kind.is_terminal or (filled is None and filled_text is not None):
            self._remember_texts(_has_no_rank(status, kind), filled_text if filled is None else None)
        if by_rest:
            told = self._rest_told = self._rest_told or {}
            before = told.get(status)
            told[_shared_word(status)] = filled if before is None or filled is None else max(before, filled)

    def _remember_texts(self, *texts: str | None) -> None:
        new = {text for text in texts if text is not None}
        if not new <= self._told_texts and len(self._told_texts) < _MOST_TEXTS:
            self._told_texts = _shared_words(self._told_texts | new)

    def _repeats(self, status: str, filled_text: str | None) -> bool:
        """Return True if REST has told the same status, with at least as much of its amount."""
        assert self._rest_told is not None
        if status not in self._rest_told:
            return False
        if filled_text is None:
            return True
        filled, told = raw_amount(filled_text), self._rest_told[status]
        if filled is None:
            return filled_text in self._told_texts
        return told is not None and filled <= told

    # --- inside -----------------------------------------------------------------------------------------

    def _came_from(self, name: str, source: Source) -> None:
        if source == "reconcile":
            self._from_rest |= {name}
        elif self._from_rest:
            self._from_rest -= {name}

    def _sources(self) -> dict[str, Source]:
        facts = self._told_facts()
        names = facts if self.status is None else (*facts, "status")
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

    def _take_status(
        self, status: str, kind: OrderEventKind | None, source: Source, timestamp: int | None
    ) -> None:
        if kind is None:
            self.unknown_status = status
            self._unknown_at = timestamp or 0
        elif self.unknown_status is not None:
            # A message is younger than the change that it tells of, and REST gives the time of the change.
            at = (timestamp or 0) + (_MESSAGE_AFTER_MS if source == "reconcile" else 0)
            if kind.is_terminal or at >= self._unknown_at:
                self.unknown_status = None
        if status == _PARTIALLY_FILLED:
            self._was_partly_filled = True
        self._move(status, source, timestamp)

    def _move(self, status: str, source: Source, timestamp: int | None) -> None:
        """Move on to a status, unless the order is further already."""
        if status == self.status:
            return
        rank = _rank(status)
        if self._rank == _END:
            if rank == _END and not _means_the_same(status, self.status):
                self._contradict("status", self.status, status, source, timestamp)
        elif rank >= self._rank:
            self.status, self._rank, self.is_terminal = status, rank, rank == _END
            self._came_from("status", source)

    def _fact(self, name: str, value: object, source: Source, timestamp: int | None) -> None:
        known = self._facts.get(name)
        if value is None or known == value:
            return
        if known is None:
            self._facts[name] = value
            self._came_from(name, source)
        else:
            self._contradict(name, known, value, source, timestamp)

    def _amounts(
        self, filled_text: str | None, remaining_text: str | None, source: Source, timestamp: int | None
    ) -> None:
        filled = raw_amount(filled_text)
        if filled is None:
            self._note_unreadable(filled_text, timestamp)
            return
        if self._unreadable is not None and timestamp is not None and timestamp >= self._unreadable_at:
            self._unreadable = None
        known = self._facts.get("filled_amount_raw")
        if known is not None and filled < known:
            self._refuse_smaller(known, filled, source, timestamp)
            return
        if known != filled:
            self._facts["filled_amount_raw"] = filled
            self._facts.pop("remaining_amount_raw", None)
            self._came_from("filled_amount_raw", source)
            self._amounts_at = timestamp
        remaining = None if remaining_text is None else raw_amount(remaining_text)
        if remaining is None or remaining == (before := self._facts.get("remaining_amount_raw")):
            return
        if before is None or (timestamp is not None and timestamp > (self._amounts_at or timestamp)):
            self._facts["remaining_amount_raw"] = remaining
            self._came_from("remaining_amount_raw", source)
            self._amounts_at = timestamp

    def _note_unreadable(self, text: str | None, timestamp: int | None) -> None:
        if text is not None and (timestamp is None or timestamp >= self._unreadable_at):
            self._unreadable, self._unreadable_at = text, timestamp or 0

    def _refuse_smaller(self, known: int, filled: int, source: Source, timestamp: int | None) -> None:
        """Take an amount for late, or for a contradiction if it is newer than the larger one."""
        if source == "stream" and timestamp is not None and timestamp > (self._amounts_at or timestamp):
            self._contradict("filled_amount_raw", known, filled, source, timestamp)

    def _check_end(
        self,
        status: str,
        verdict: Verdict,
        filled_text: str | None,
        remaining_text: str | None,
        source: Source,
        timestamp: int | None,
    ) -> None:
        """Compare the word of an end with the amounts of the same message.

        If it does not say what remains, that is what an earlier message has said of the same filled amount.
        """
        if filled_text is None and remaining_text is None:
            return
        filled = raw_amount(filled_text)
        if verdict is Verdict.FILLED and not (filled is None and raw_amount(remaining_text) is None):
            self._end_has_amounts = True
        if filled is not None and filled < self._facts.get("filled_amount_raw", 0):
            return  # it is late
        if filled is not None and remaining_text is None:
            known = self._facts.get("remaining_amount_raw")
            remaining_text = None if known is None else str(known)
        doubt = _doubt(verdict, filled_text, remaining_text)
        if doubt == "disagree" and self._amounts_doubt == "confirmed" and filled in (None, self._doubted[0]):
            return  # it says nothing new
        if doubt == "disagree":
            said = ", ".join(
                f"{name} {text}" for name, text in (("filled", filled_text), ("remaining", remaining_text)) if text
            )
            self._contradict("amounts", status, said, source, timestamp)
        if doubt:
            self._amounts_doubt = doubt
            remaining = raw_amount(remaining_text)
            self._doubted = (filled, None if filled is None or remaining is None else filled + remaining)
        elif self._amounts_doubt and filled is not None:
            self._clear_doubt(filled)

    def _clear_doubt(self, filled: int) -> None:
        """Take an amount that goes with the word of the end: is there still a doubt?"""
        doubted, total = self._doubted
        if self._amounts_doubt == "unreadable" or (total is not None and filled >= total > (doubted or 0)):
            self._amounts_doubt = ""
        elif doubted is not None and filled > doubted:
            self._amounts_doubt, self._doubted = "disagree", (filled, total)

    def _doubt_of_end(self) -> AmountsDoubt:
        if self._amounts_doubt or not self.is_terminal or self._unreadable is None:
            return self._amounts_doubt
        kind = None if self.status is None else order_event_kind(self.status)
        return "" if kind is None or kind.verdict is Verdict.FILLED else "unreadable"

    def _error(self, reason: str | None, rank: int, source: Source) -> None:
        """Take a reason; that of the order's status says more than that of its run."""
        if reason is not None and rank > self._error_rank:
            self._error_rank = rank
            self._facts["error_reason"] = reason
            self._came_from("error_reason", source)

    def _run(self, event: OrderEvent, state: str) -> None:
        known = self._facts.get("run_state")
        if known != state and known in (None, "started"):
            self._facts["run_state"] = _shared_word(state)
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


def _means_the_same(status: str, other: str | None) -> bool:
    """Return True if two words of ends have one verdict, as "failed" and "rejected" have."""
    one, two = order_event_kind(status), None if other is None else order_event_kind(other)
    return one is not None and two is not None and one.verdict is two.verdict is not Verdict.UNKNOWN


def _rank(status: str | None) -> int:
    kind = None if status is None else order_event_kind(status)
    return _END if kind is not None and kind.is_terminal else _RANKS.get(status, _OTHER)


def _told_rank(status: str, kind: OrderEventKind | None) -> int:
    return _TOLD_END if kind is not None and kind.is_terminal else _TOLD_RANKS.get(status, _TOLD_OF)


def _has_no_rank(status: str, kind: OrderEventKind | None) -> str | None:
    """Return the status if no other one tells more or less than it: an end, or a word that nobody knows."""
    return status if kind is None or kind.is_terminal else None


def _doubt(verdict: Verdict, filled_text: str | None, remaining_text: str | None) -> AmountsDoubt:
    """Return why the amounts of one message are no ground for the verdict that its word means."""
    filled, remaining = raw_amount(filled_text), raw_amount(remaining_text)
    if verdict is Verdict.UNKNOWN:
        return ""
    if verdict is Verdict.FILLED:
        if is_unreadable(remaining_text):
            return "unreadable"
        return "disagree" if remaining or filled == 0 else ""
    if is_unreadable(filled_text):
        return "unreadable"
    if filled and remaining_text is not None and not remaining:
        return "unreadable" if remaining is None else "disagree"
    return ""
