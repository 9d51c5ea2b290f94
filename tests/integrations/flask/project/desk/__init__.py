"""An application as users have one. What differs from test to test comes from the environment."""

from __future__ import annotations

import os
from typing import Any

import flask
from flask import Flask

import aggstream
from desk.database import db
from desk.stream import agg


def sign_in(name: str) -> str:
    """Believe anybody."""
    flask.session["user"] = name
    return name


def create_app(**config: Any) -> Flask:
    """Make the application."""
    app = Flask(__name__, instance_path=os.environ.get("DESK_INSTANCE"))
    app.config.update(
        SECRET_KEY="not-a-secret",
        SQLALCHEMY_DATABASE_URI="sqlite://",
        AGGSTREAM_TOKEN="desk.stream.token",
        AGGSTREAM_OPTIONS={
            "reconnect": aggstream.ReconnectPolicy(initial=0.05, maximum=0.2, healthy_after=0.05),
            "catch_up_timeout": 5.0,
        },
        AGGSTREAM_JOURNAL=aggstream.JournalOptions(
            path="aggstream.db", max_attempts=2, retry_delay=0.05, retry_delay_maximum=0.2
        ),
        AGGSTREAM_OUTAGE_ERRORS=["sqlalchemy.exc.OperationalError"],
        **config,
    )
    app.config.from_prefixed_env()
    db.init_app(app)
    agg.init_app(app)
    app.add_url_rule("/sign-in/<name>", view_func=sign_in, methods=["POST"])
    app.add_url_rule("/events", view_func=agg.events)
    return app
