"""The tables in the project's database: streams with their users and owners, events, and orders."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

from django.db import models

from aggstream._base.times import moment_of_ms, moment_of_ns
from aggstream.integrations.django._columns import KEY, NAME, ExactField, NameField, RawAmountField, WordsField


class Stream(models.Model):
    """The stream of one account. One process at a time owns it, and it alone writes the account's events."""

    account = NameField(max_length=NAME, unique=True)
    """The account's name in the setting `AGGSTREAM`."""
    user_id = NameField(max_length=KEY, null=True, unique=True)
    """The AGG id of the user whose events these are; null until the account has signed in."""
    owner = NameField(max_length=NAME, blank=True, default="")
    """The name by which the owner knows itself; only the owner writes."""
    owner_name = NameField(max_length=KEY, blank=True, default="")
    """The owner's host and process, for people."""
    lease_until = models.DateTimeField(null=True)
    """Until when the owner counts as alive, by the database's clock; unused where the database tells by itself."""
    closed_ns = models.BigIntegerField(null=True)
    """When the last owner ended in order; null if it did not, or while there is one."""
    last_timestamp = models.BigIntegerField(null=True)
    """Up to when everything is known, by the service's clock, in milliseconds."""
    last_received_ns = models.BigIntegerField(null=True)
    """When the last event came up to which everything is known."""
    history_until = models.BigIntegerField(null=True)
    """Up to when everything was over before the first stream began, by the service's clock, in milliseconds."""
    known_until = models.BigIntegerField(null=True)
    """Before this a look at REST need not go back, by the service's clock, in milliseconds."""
    is_searched = models.BooleanField(default=False)
    """True once all old open orders were searched for."""
    old_ids_until = models.BigIntegerField(default=0)
    """Up to this number, events have ids that aggstream 0.1 made in another way."""

    def __str__(self) -> str:
        return self.account


class Order(models.Model):
    """The state of one order, by all of its events. A fact that was not told is null."""

    stream = models.ForeignKey(Stream, on_delete=models.PROTECT, related_name="orders")
    order_id = NameField(max_length=KEY)
    status = NameField(max_length=NAME, blank=True, default="")
    """As `aggstream.Order.status`; empty while only REST has told of the order."""
    is_terminal = models.BooleanField(default=False)
    """True if nothing more happens to the order."""
    is_unclear = models.BooleanField(default=False)
    """True if aggstream does not know the last word about the order: it may have ended."""
    venue = NameField(max_length=NAME, blank=True, default="")
    side = NameField(max_length=NAME, blank=True, default="")
    outcome_id = NameField(max_length=KEY, blank=True, default="")
    price = ExactField(null=True)
    """As submitted: a probability between 0 and 1."""
    size = ExactField(null=True)
    """As submitted: a number of shares."""
    filled_amount_raw = RawAmountField(null=True)
    """In base units; likewise `remaining_amount_raw`."""
    remaining_amount_raw = RawAmountField(null=True)
    error_reason = WordsField(blank=True, default="")
    first_timestamp = models.BigIntegerField(null=True)
    """The earliest thing that was told: milliseconds since the epoch, by the service's clock."""
    last_timestamp = models.BigIntegerField(null=True)
    """The latest, likewise."""

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
    """One event, there before its handlers run. Its `id` grows in the order in which an account's events came."""

    class State(models.TextChoices):
        """How far its handlers have come."""

        PENDING = "pending", "pending"
        DONE = "done", "done"
        DEAD = "dead", "dead: its handlers failed too often"
        AGAIN = "again", "to be run again"

    stream = models.ForeignKey(Stream, on_delete=models.PROTECT, related_name="events")
    event_id = NameField(max_length=NAME)
    """`UserEvent.id`."""
    type = NameField(max_length=NAME)
    sub_event = NameField(max_length=NAME, blank=True, default="")
    """The `event` of an `order_event`."""
    order = models.ForeignKey(Order, on_delete=models.CASCADE, null=True, related_name="events")
    terminal = models.BooleanField(default=False)
    """True if it was the end of its order when it was stored."""
    source = NameField(max_length=NAME)
    timestamp = models.BigIntegerField()
    """The service's clock, in milliseconds."""
    received_ns = models.BigIntegerField()
    text = WordsField()
    """The JSON text that the event is made of."""
    state = NameField(max_length=NAME, choices=State.choices, default=State.PENDING)
    attempts = models.PositiveIntegerField(default=0)
    """How often its handlers have failed."""
    last_error = WordsField(blank=True, default="")
    settled_ns = models.BigIntegerField(null=True)
    stored_at = models.DateTimeField(auto_now_add=True)

    class Meta:  # noqa: D106  (Django's own)
        # Not for some of the rows alone, which MySQL has no indexes for.
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
        """The message as received; a number with a fraction is its text, exactly as it was written."""
        return json.loads(self.text, parse_float=str)

    @property
    def occurred_at(self) -> dt.datetime | None:
        """`timestamp` as an aware datetime in UTC; None if it is no date."""
        return _moment(self.timestamp)

    @property
    def received_at(self) -> dt.datetime:
        """When it was received, in UTC, cut to microseconds."""
        return moment_of_ns(self.received_ns)


def _moment(timestamp: int | None) -> dt.datetime | None:
    try:
        return None if timestamp is None else moment_of_ms(timestamp)
    except OverflowError:  # the service sent a number that is no date
        return None
