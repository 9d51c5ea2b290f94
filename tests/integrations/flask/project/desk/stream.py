"""The application's handlers, and the functions that the extension asks."""

from __future__ import annotations

import os
import threading

import flask
import sqlalchemy as sa

import aggstream
from aggstream.integrations.flask import AggStream
from desk.database import db, seen, trouble

agg = AggStream()


def token() -> str:
    """Return the token; it looks into the database, as a real one may."""
    if not os.environ.get("DESK_TOKEN_AT_ONCE"):
        db.session.execute(sa.text("SELECT 1"))
    return os.environ["DESK_TOKEN"]


def another_token() -> str:
    """Return the token of another user."""
    return os.environ["DESK_ANOTHER"]


@agg.user_id
def user_id() -> str | None:
    """Return the AGG user of who is signed in."""
    name = flask.session.get("user")
    return None if name in (None, "nobody") else f"usr_{name}"


@agg.on(aggstream.UserEvent)
def keep(event: aggstream.UserEvent) -> None:
    """Write that the event was seen."""
    if os.environ.get("DESK_BROKEN"):
        1 / 0  # noqa: B018  (it fails)
    if os.environ.get("DESK_STUCK"):
        flask.current_app.logger.warning("stuck")
        threading.Event().wait()
    if db.session.execute(sa.select(trouble)).first():
        raise RuntimeError("trouble")
    order_id = getattr(event, "order_id", "")
    row = {"event_id": event.id, "order_id": order_id, "handler": "keep", "redelivered": event.redelivered}
    db.session.execute(seen.insert().values(row))
    db.session.commit()
