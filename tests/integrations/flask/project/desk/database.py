"""What the handlers write, for the tests to look at."""

from __future__ import annotations

import sqlalchemy as sa
from flask_sqlalchemy import SQLAlchemy

db = SQLAlchemy()
metadata = sa.MetaData()
seen = sa.Table(
    "seen",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("event_id", sa.String(50)),
    sa.Column("order_id", sa.String(50)),
    sa.Column("handler", sa.String(20)),
    sa.Column("redelivered", sa.Boolean),
)
trouble = sa.Table("trouble", metadata, sa.Column("id", sa.Integer, primary_key=True))
"""As long as there is a row, a handler fails."""
