"""The stream: who is who, and what is done with events in the process of `flask aggstream run`."""

from __future__ import annotations

import flask

import aggstream
from aggstream.integrations.flask import AggStream

agg = AggStream()


@agg.user_id
def user_id() -> str | None:
    """Return the AGG user of who has signed in. A real application has it in a table."""
    name = flask.session.get("user")
    return None if name is None else f"usr_{name}"


@agg.on("order_event", "failed")
def failed(event: aggstream.OrderEvent) -> None:
    """Here a real application would tell its user."""
    flask.current_app.logger.warning("%s has failed: %s", event.order_id, event.error_reason)
