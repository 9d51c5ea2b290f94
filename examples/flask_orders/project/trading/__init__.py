"""A Flask application with a page of the signed-in user's orders. Run it with `start.py`."""

from __future__ import annotations

import functools
import hmac
import os
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import ParamSpec

import flask
import urllib3
from flask import Flask
from flask.typing import ResponseReturnValue

from trading.board import Board
from trading.rows import dollars, row
from trading.stream import agg

USERS = ("trader1", "trader2")
SHOWN = 20
ENDS = {
    "filled": "Filled",
    "partial": "In parts",
    "retried": "Retried",
    "failed": "Failed",
    "rejected": "Rejected",
    "cancelled": "Cancelled",
    "expired": "Expired",
}
"""How an order ends that the simulator plays."""
TIMEOUT = 10.0
TEXT = {"Content-Type": "text/plain; charset=utf-8"}

P = ParamSpec("P")
View = Callable[P, ResponseReturnValue]

pages = flask.Blueprint("pages", __name__)


def create_app() -> Flask:
    """Make the application. What `start.py` prepares comes from the environment, like AGGSTREAM_APP_ID."""
    app = Flask(__name__, instance_path=os.environ["ORDERS_DIRECTORY"])
    app.config.update(
        SECRET_KEY=os.environ["ORDERS_SECRET_KEY"],
        SESSION_COOKIE_SAMESITE="Lax",  # no other site's form places an order
        PASSWORD=os.environ["ORDERS_PASSWORD"],
        MARKET=os.environ["ORDERS_MARKET"],
        RATE=float(os.environ["ORDERS_RATE"]),
        # An account has a stream of its own, in a process of its own: `flask aggstream run --account trader1`.
        AGGSTREAM_ACCOUNTS={
            name: {
                "TOKEN": functools.partial(os.environ.__getitem__, f"ORDERS_TOKEN_{name.upper()}"),
                "JOURNAL": f"{name}.db",
            }
            for name in USERS
        },
        AGGSTREAM_EVENTS_FOR=10.0,
    )
    agg.init_app(app)
    # Each worker process has its own.
    app.extensions["boards"] = {name: Board(Path(app.instance_path, f"{name}.db")) for name in USERS}
    app.register_blueprint(pages)
    app.add_url_rule("/events/", "events", agg.events)
    return app


def signed_in(view: View[P]) -> View[P]:
    """Show a view to who has signed in, and to others the page where they can."""

    @functools.wraps(view)
    def check(*args: P.args, **options: P.kwargs) -> ResponseReturnValue:
        if "user" not in flask.session:
            return flask.redirect(flask.url_for("pages.sign_in"))
        return view(*args, **options)

    return check


@pages.get("/")
@signed_in
def page() -> ResponseReturnValue:
    """Show the signed-in user's orders and balances, as the journal has them."""
    user = flask.session["user"]
    known = flask.current_app.extensions["boards"][user].look(SHOWN)
    text = flask.render_template(
        "orders.html",
        user=user,
        after=known.seen,
        ends=ENDS,
        rows=[row(order) for order in known.orders],
        balances=[
            (one.venue, *("—" if cash is None else dollars(cash) for cash in (one.trading, one.wallet)))
            for one in known.balances
        ],
    )
    return text, {"Cache-Control": "no-store"}


@pages.post("/place/")
@signed_in
def place() -> ResponseReturnValue:
    """Let the simulator play an order of the signed-in user's, where your application asks AGG for one."""
    scenario = flask.request.form.get("scenario")
    if scenario not in ENDS:
        return "There is no such end.", HTTPStatus.BAD_REQUEST, TEXT
    config = flask.current_app.config
    wanted = {
        "userId": f"usr_{flask.session['user']}",
        "orders": 1,
        "scenario": scenario,
        "rate": config["RATE"],
    }
    try:
        answer = urllib3.request("POST", config["MARKET"], json=wanted, timeout=TIMEOUT, retries=False)
    except urllib3.exceptions.HTTPError:
        answer = None
    if answer is None or answer.status != HTTPStatus.OK:
        return "The market does not answer; try again.", HTTPStatus.BAD_GATEWAY, TEXT
    return flask.redirect(flask.url_for("pages.page"))


@pages.route("/sign-in/", methods=["GET", "POST"])
def sign_in() -> ResponseReturnValue:
    """Let a user in. A real application has a table of users, and hashes of their passwords."""
    name, password = (flask.request.form.get(field, "") for field in ("username", "password"))
    right = hmac.compare_digest(password.encode(), flask.current_app.config["PASSWORD"].encode())
    if name in USERS and right:
        flask.session.clear()
        flask.session["user"] = name
    if "user" in flask.session:
        return flask.redirect(flask.url_for("pages.page"))
    return flask.render_template("sign_in.html", is_wrong=flask.request.method == "POST")


@pages.post("/sign-out/")
def sign_out() -> ResponseReturnValue:
    """Let a user out."""
    flask.session.clear()
    return flask.redirect(flask.url_for("pages.sign_in"))
