"""The tables in the project's database: streams, with their users and owners, orders, and events."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

from django.db import models

from aggstream._base.times import moment_of_ms, moment_of_ns
from aggstream.integrations.django._columns import KEY, NAME, ExactField, NameField, RawAmountField, WordsField


class Stream(models.Model):
    """The stream of one account. One process at a time is its owner, and only the owner writes its events."""

    account = NameField(max_length=NAME, unique=True)
    """The account's name in the setting `AGGSTREAM`."""
    user_id = NameField(max_length=KEY, null=True, unique=True)
    """The AGG id of the user who owns the events; null until the account has signed in."""
    owner = NameField(max_length=NAME, blank=True, default="")
    """The random name of the owner. Only the owner writes."""
    owner_name = NameField(max_length=KEY, blank=True, default="")
    """The owner's host and process, for people to read."""
    lease_until = models.DateTimeField(null=True)
    """The end of the owner's lease, by the database's clock; null with an advisory lock."""
    closed_ns = models.BigIntegerField(null=True)
    """The time at which the last owner ended in order; null if it did not, or while the stream has an owner."""
    last_timestamp = models.BigIntegerField(null=True)
    """All events up to this time are known, by the service's clock, in milliseconds."""
    last_received_ns = models.BigIntegerField(null=True)
    """The time at which the last event arrived before which all events are known, in nanoseconds since the epoch.
    Before the first event, the time of the first sign-in."""
    history_until = models.BigIntegerField(null=True)
    """Events up to this time are older than the first stream, by the service's clock, in milliseconds."""
    known_until = models.BigIntegerField(null=True)
    """A search in REST need not go back before this time, by the service's clock, in milliseconds."""
    is_searched = models.BooleanField(default=False)
    """True once the stream has searched for all old open orders."""
    old_ids_until = models.BigIntegerField(default=0)
    """Events up to this number have ids that aggstream 0.1 made by another rule."""

    def __str__(self) -> str:
        return self.account


class Order(models.Model):
    """The state of one order, from all of its events. A column is null if no event holds its fact."""

    stream = models.ForeignKey(Stream, on_delete=models.PROTECT, related_name="orders")
    order_id = NameField(max_length=KEY)
    status = NameField(max_length=NAME, blank=True, default="")
    """The same as `aggstream.Order.status`; empty while only REST has named the order."""
    is_terminal = models.BooleanField(default=False)
    """True if the order has ended, so that nothing more happens to it."""
    is_unclear = models.BooleanField(default=False)
    """True if aggstream does not know whether the order has ended."""
    venue = NameField(max_length=NAME, blank=True, default="")
    side = NameField(max_length=NAME, blank=True, default="")
    outcome_id = NameField(max_length=KEY, blank=True, default="")
    price = ExactField(null=True)
    """The submitted price: a probability between 0 and 1."""
    size = ExactField(null=True)
    """The submitted size: a number of shares."""
    filled_amount_raw = RawAmountField(null=True)
    """The filled amount in base units. `remaining_amount_raw` is in base units as well."""
    remaining_amount_raw = RawAmountField(null=True)
    error_reason = WordsField(blank=True, default="")
    first_timestamp = models.BigIntegerField(null=True)
    """The time of the order's earliest event, by the service's clock, in milliseconds since the epoch."""
    last_timestamp = models.BigIntegerField(null=True)
    """The time of the order's latest event, by the service's clock, in milliseconds since the epoch."""

    class Meta:  # noqa: D106  (Django's own)
        constraints = (models.UniqueConstraint(fields=("stream", "order_id"), name="aggstream_order_once"),)
        indexes = (
            models.Index(fields=("stream", "is_terminal"), name="aggstream_order_open"),
            models.Index(fields=("last_timestamp",), name="aggstream_order_latest"),
        )

    def __str__(self) -> str:
        return self.order_id

    @property
    def first_seen_at(self) -> dt.datetime | None:
        """`first_timestamp` as an aware datetime in UTC."""
        return _moment(self.first_timestamp)

    @property
    def last_seen_at(self) -> dt.datetime | None:
        """`last_timestamp` as an aware datetime in UTC."""
        return _moment(self.last_timestamp)


class Event(models.Model):
    """One event, stored before its handlers run. A later event of an account has a larger `id`."""

    class State(models.TextChoices):
        """The state of the event's delivery to its handlers."""

        PENDING = "pending", "pending"
        DONE = "done", "done"
        DEAD = "dead", "dead: its handlers failed too often"
        AGAIN = "again", "to be run again"

    stream = models.ForeignKey(Stream, on_delete=models.PROTECT, related_name="events")
    event_id = NameField(max_length=NAME)
    """The same as `UserEvent.id`."""
    type = NameField(max_length=NAME)
    sub_event = NameField(max_length=NAME, blank=True, default="")
    """The field `event` of an `order_event`."""
    order = models.ForeignKey(Order, on_delete=models.CASCADE, null=True, related_name="events")
    terminal = models.BooleanField(default=False)
    """True if the event ended its order when the event was stored."""
    source = NameField(max_length=NAME)
    timestamp = models.BigIntegerField()
    """The event's time by the service's clock, in milliseconds since the epoch."""
    received_ns = models.BigIntegerField()
    text = WordsField()
    """The JSON text of the event."""
    state = NameField(max_length=NAME, choices=State.choices, default=State.PENDING)
    attempts = models.PositiveIntegerField(default=0)
    """The number of times that the event's handlers have failed."""
    last_error = WordsField(blank=True, default="")
    settled_ns = models.BigIntegerField(null=True)
    stored_at = models.DateTimeField(auto_now_add=True)

    class Meta:  # noqa: D106  (Django's own)
        # The constraint has no condition, because MySQL has no indexes with conditions.
        constraints = (models.UniqueConstraint(fields=("stream", "event_id"), name="aggstream_event_once"),)
        indexes = (
            models.Index(fields=("stream", "id"), name="aggstream_event_order"),
            models.Index(fields=("stream", "state", "id"), name="aggstream_event_undone"),
            models.Index(fields=("stream", "state", "settled_ns"), name="aggstream_event_done"),
        )

    def __str__(self) -> str:
        return f"{self.type} {self.sub_event}".strip()

    @property
    def message(self) -> Any:
        """The received message. A number with a fraction is a text, exactly as in the message."""
        return json.loads(self.text, parse_float=str)

    @property
    def occurred_at(self) -> dt.datetime | None:
        """`timestamp` as an aware datetime in UTC; None if it is out of range."""
        return _moment(self.timestamp)

    @property
    def received_at(self) -> dt.datetime:
        """The time at which the event was received, in UTC, cut to microseconds."""
        return moment_of_ns(self.received_ns)


def _moment(timestamp: int | None) -> dt.datetime | None:
    try:
        return None if timestamp is None else moment_of_ms(timestamp)
    except OverflowError:  # the service sent a number that is out of range
        return None
