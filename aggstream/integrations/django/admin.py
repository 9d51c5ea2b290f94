"""The admin pages for streams, orders and events. An action runs dead events again."""

from __future__ import annotations

import json
from typing import Any

from django.contrib import admin, messages
from django.db.models import Field, Model, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html

from aggstream.integrations.django._store.masking import masked
from aggstream.integrations.django.models import Event, Order, Stream

# A filter reads its values from this number of rows, because it would take too long to read all rows.
_RECENT = 1000


class _RecentValues(admin.AllValuesFieldListFilter):
    """A filter that offers the values of the newest rows."""

    def __init__(
        self,
        field: Field[Any, Any],
        request: HttpRequest,
        params: dict[str, Any],
        model: type[Model],
        model_admin: admin.ModelAdmin[Any],
        field_path: str,
    ) -> None:
        super().__init__(field, request, params, model, model_admin, field_path)
        newest = model_admin.get_queryset(request).order_by("-pk").values_list(field_path, flat=True)
        self.lookup_choices: Any = sorted(set(newest[:_RECENT]))


class _ReadOnly(admin.ModelAdmin):  # type: ignore[type-arg]  # generic in the stubs alone
    """Shows rows. No user can change them, because only the stream writes them."""

    show_full_result_count = False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        # The query does not join the streams, because MySQL would then sort all rows of all streams.
        rows = super().get_queryset(request)
        return rows.prefetch_related("stream") if hasattr(self.model, "stream") else rows

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Stream)
class StreamAdmin(_ReadOnly):
    """The streams, their users, and the processes that run them."""

    list_display = ("account", "user_id", "owner_name")
    fields = ("account", "user_id", "owner_name", "lease_until", "last_timestamp")


@admin.register(Order)
class OrderAdmin(_ReadOnly):
    """The orders, with their known state."""

    list_display = (
        "order_id",
        "status",
        "venue",
        "side",
        "price",
        "size",
        "filled_amount_raw",
        "last_seen_at",
        "stream",
    )
    list_filter = (
        "is_terminal",
        "is_unclear",
        ("status", _RecentValues),
        ("venue", _RecentValues),
        ("side", _RecentValues),
        "stream",
    )
    search_fields = ("order_id",)
    ordering = ("-last_timestamp",)
    readonly_fields = ("first_seen_at", "last_seen_at", "events")

    @admin.display(description="events")
    def events(self, order: Order) -> str:
        """Return a link to the order's events."""
        url = reverse("admin:aggstream_event_changelist", current_app=self.admin_site.name)
        return format_html('<a href="{}?order__id__exact={}">{}</a>', url, order.pk, "its events")


@admin.register(Event)
class EventAdmin(_ReadOnly):
    """The events, with the state of their delivery."""

    list_display = ("id", "received_at", "type", "sub_event", "order", "source", "state", "attempts", "stream")
    list_filter = (
        "state",
        ("type", _RecentValues),
        ("sub_event", _RecentValues),
        ("source", _RecentValues),
        "stream",
        "stored_at",
    )
    list_select_related = ("order",)
    search_fields = ("event_id", "order__order_id")
    ordering = ("-pk",)
    actions = ("run_again",)
    fields = (
        "event_id",
        "stream",
        "type",
        "sub_event",
        "order",
        "source",
        "occurred_at",
        "received_at",
        "state",
        "attempts",
        "last_error",
        "payload",
    )
    readonly_fields = ("occurred_at", "received_at", "payload")

    def has_run_again_permission(self, request: HttpRequest) -> bool:
        """Return True if the user may run events again, which needs the permission to change events."""
        return bool(request.user.has_perm("aggstream.change_event"))

    @admin.action(description="Run the failed events of the selection again", permissions=("run_again",))
    def run_again(self, request: HttpRequest, events: QuerySet[Event]) -> None:
        """Mark the dead events of the selection, so that the stream gives them to their handlers again."""
        count = events.filter(state=Event.State.DEAD).update(state=Event.State.AGAIN, attempts=0, settled_ns=None)
        text = f"To be run again, within seconds if the stream runs: {count}." if count else "None has failed."
        self.message_user(request, text, messages.SUCCESS if count else messages.WARNING)

    @admin.display(description="payload")
    def payload(self, event: Event) -> str:
        """Return the message as indented JSON."""
        return format_html("<pre>{}</pre>", masked(json.dumps(event.message, indent=2, ensure_ascii=False)))
