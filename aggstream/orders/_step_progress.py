"""How far one step of an order's run is."""

from __future__ import annotations

from aggstream.events import OrderEvent
from aggstream.orders._order import Step
from aggstream.orders._shared_words import shared_word

_RANKS = {"started": 0, "retrying": 1, "failed": 2, "completed": 3}


class StepProgress:
    """The state of one step: as far as its newest attempt is."""

    __slots__ = ("attempt", "error_reason", "first", "last", "state", "step_id", "step_type", "template_name")

    def __init__(self, event: OrderEvent) -> None:
        self.step_id = event.step_id
        self.step_type, self.template_name = shared_word(event.step_type), shared_word(event.template_name)
        self.attempt: int | None = None
        self.state = ""
        self.error_reason: str | None = None
        self.first = self.last = event.timestamp

    def fold(self, event: OrderEvent, state: str) -> None:
        """Take an event of the step, which says its state."""
        attempt = self.attempt if event.attempt is None else event.attempt
        new = (attempt or 0, event.timestamp, _RANKS.get(state, 1))
        if not self.state or new >= (self.attempt or 0, self.last, _RANKS.get(self.state, 1)):
            self.attempt, self.state = attempt, shared_word(state)
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
