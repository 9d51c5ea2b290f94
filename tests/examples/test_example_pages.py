"""The examples with pages, started by their one command, as two users see them in their browsers."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import urllib3
from browsers import HAS_BROWSER, WHY_NOT, Page, Row
from ports import free_port
from waiting import DEADLINE, Until

EXAMPLES = Path(__file__).parents[2] / "examples"
UNIT = 1_000_000
CONTRAST = 4.5

pytestmark = pytest.mark.skipif(not HAS_BROWSER, reason=WHY_NOT)


class App:
    """An example that runs; what it writes goes into a file."""

    def __init__(self, name: str, output: Path) -> None:
        self.name = name
        port = free_port()
        self._output = output
        self.url = f"http://127.0.0.1:{port}/"
        with output.open("w") as stream:
            self.process = subprocess.Popen(
                [sys.executable, str(EXAMPLES / name / "start.py"), "--port", str(port), "--rate", "50"],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
            )
        retries = urllib3.Retry(None, connect=0, read=0, redirect=3)
        self.pool = urllib3.PoolManager(retries=retries, headers={"Connection": "close"})

    @property
    def output(self) -> str:
        assert self.process.poll() is None, self._output.read_text()
        return self._output.read_text()

    @property
    def password(self) -> str:
        return str(re.findall(r"password (\w+)", self.output)[0])

    def is_ready(self) -> bool:
        """Tell whether both streams are live and the pages are served."""
        if self.output.count("live as") < 2:
            return False
        with contextlib.suppress(urllib3.exceptions.HTTPError):
            return self.pool.request("GET", self.url).status == 200
        return False

    def control(self, name: str, **body: Any) -> Any:
        """Drive the simulator."""
        answer = self.pool.request("POST", self._control + name, json=body, timeout=DEADLINE)
        assert answer.status == 200, answer.data
        return answer.json()

    def connected(self) -> set[str]:
        """Return the AGG users that have a stream."""
        state = self.pool.request("GET", self._control + "state", timeout=DEADLINE).json()
        return {connection["userId"] for connection in state["connections"]}

    @property
    def _control(self) -> str:
        return str(re.findall(r"driven at (\S+)", self.output)[0])

    def number_of(self, command: str) -> int:
        """Return the process that was started last with a command."""
        return int(re.findall(rf"process (\d+): .*{command}", self.output)[-1])

    def kill(self, command: str) -> None:
        os.killpg(self.number_of(command), signal.SIGKILL)

    @contextlib.contextmanager
    def nothing_started_again(self) -> Iterator[None]:
        """Hold what starts processes again; the simulator, which is in it, stands still as well."""
        os.kill(self.process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.process.pid, signal.SIGCONT)

    def close(self) -> None:
        self.pool.clear()
        self.process.send_signal(signal.SIGINT)
        try:
            code = self.process.wait(DEADLINE)
        finally:
            self.process.kill()
            written = self._output.read_text()
            groups = {int(number) for number in re.findall(r"process (\d+):", written)}
            left = living(groups)
            for group in groups:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(group, signal.SIGKILL)
        assert (code, left) == (0, []), written


def living(groups: set[int]) -> list[str]:
    """Return the processes of groups that have not ended; whoever adopts an ended one may not have asked yet."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, group = path.read_text().rpartition(")")[2].split()[:3]
            if int(group) in groups and state != "Z":
                found.append(path.parent.name)
    return found


class InPlay:
    """An order in the simulator, which goes on when it is told to."""

    def __init__(self, app: App, user: str, scenario: str, **choices: Any) -> None:
        begun = app.control("begin-order", userId=user, scenario=scenario, **choices)
        self._app = app
        self.id: str = begun["orderId"]
        self._left: int = begun["total"]

    def until(self, event: str) -> dict[str, Any]:
        """Let it go on up to and with an event; return its message."""
        while True:
            frame = self.advance(1)[0]
            if event in (frame["type"], frame.get("event")):
                return frame

    def advance(self, n: int) -> list[dict[str, Any]]:
        answer = self._app.control("advance-order", orderId=self.id, n=n)
        self._left = answer["framesLeft"]
        return list(answer["frames"])

    def finish(self) -> list[dict[str, Any]]:
        return self.advance(self._left)


@pytest.fixture(scope="module", params=["django_orders", "flask_orders"])
def app(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, until: Until) -> Iterator[App]:
    running = App(request.param, tmp_path_factory.mktemp(request.param) / "output")
    try:
        until(running.is_ready)
        yield running
    finally:
        running.close()


def _page(app: App, name: str, until: Until) -> Iterator[Page]:
    page = Page(app.url)
    try:
        page.sign_in(name, app.password)
        until(lambda: page.text(".who") == name)
        yield page
    finally:
        page.close()


@pytest.fixture(scope="module")
def mine(app: App, until: Until) -> Iterator[Page]:
    """The first user's browser."""
    yield from _page(app, "trader1", until)


@pytest.fixture(scope="module")
def theirs(app: App, until: Until) -> Iterator[Page]:
    """The second user's."""
    yield from _page(app, "trader2", until)


@pytest.fixture(autouse=True)
def no_complaints(mine: Page, theirs: Page) -> Iterator[None]:
    """Fail a test in which a browser's console says that something is wrong."""
    yield
    assert [*mine.console(), *theirs.console()] == []


def shown(page: Page, order: InPlay) -> Row:
    row = page.row(order.id)
    assert row is not None
    return row


def dollars(cents: int) -> str:
    return f"${Decimal(cents) / 100:,.2f}"


def test_an_order_moves_through_its_steps_to_its_end_without_a_reload(app: App, mine: Page, until: Until) -> None:
    # What comes is told by events, and not by the look at the page that each new answer begins with.
    mine.run("window.isTheSame = true; source.onopen = null")
    order = InPlay(app, "usr_trader1", "partial", venue="kalshi", side="buy", price="0.55", size="120.5")
    order.until("order_submitted")
    until(lambda: mine.orders()[:1] == [order.id])
    assert shown(mine, order) == Row(
        state="open",
        label="Working",
        what="buy 120.5 at $0.55",
        where="kalshi · $66.275",
        filled="0 of 120.5 filled",
        value=0,
        reason="",
        steps=[["submitted", "completed"]],
    )
    order.until("step_started")
    until(lambda: shown(mine, order).steps[1:] == [["quote", "started"]])
    order.until("step_completed")
    until(lambda: shown(mine, order).steps[1:] == [["quote", "completed"]])
    filled = int(order.until("partially_filled")["filledAmountRaw"])
    until(lambda: shown(mine, order).value == filled)
    assert (shown(mine, order).state, shown(mine, order).label) == ("partial", "Filling")
    assert shown(mine, order).filled == f"{Decimal(filled) / UNIT:f} of 120.5 filled"
    order.finish()
    until(lambda: shown(mine, order).state == "filled")
    assert shown(mine, order).filled == "120.5 of 120.5 filled"
    assert [state for _, state in shown(mine, order).steps] == ["completed"] * 4
    assert shown(mine, order).reason == ""
    assert mine.run("return window.isTheSame")
    assert mine.text("#news") == "kalshi order: Filled"
    mine.driver.refresh()
    assert shown(mine, order).state == "filled"


def test_what_happens_before_a_page_hears_events_is_told_to_it(app: App, mine: Page, until: Until) -> None:
    before = InPlay(app, "usr_trader1", "failed")
    before.finish()
    until(lambda: mine.row(before.id))
    cookies = "; ".join(f"{cookie['name']}={cookie['value']}" for cookie in mine.driver.get_cookies())
    headers = {"Cookie": cookies, "Connection": "close"}
    page = app.pool.request("GET", app.url, headers=headers).data.decode()
    [place] = re.findall(r'data-after="(\d+)"', page)
    order = InPlay(app, "usr_trader1", "filled")
    order.finish()
    until(lambda: mine.row(order.id))
    assert before.id in page
    assert order.id not in page
    events = app.pool.request(
        "GET", f"{app.url}events/?after={place}", headers=headers, preload_content=False, timeout=DEADLINE
    )
    with contextlib.closing(events):
        told = b""
        while order.id.encode() not in told or b"filled" not in told:
            told = events.readline()
            assert told


def test_balances_change_with_the_orders(app: App, mine: Page, until: Until) -> None:
    order = InPlay(app, "usr_trader1", "filled", venue="myriad", side="buy", price="0.25", size="40")
    order.until("balance_update")  # money is reserved …
    until(lambda: mine.balances().get("myriad") == ["$990.00", "$1,000.00"])
    order.until("balance_update")  # … and then paid
    until(lambda: mine.balances().get("myriad") == ["$990.00", "$990.00"])


def test_nobody_sees_anothers_orders_and_balances(app: App, mine: Page, theirs: Page, until: Until) -> None:
    order = InPlay(app, "usr_trader1", "filled", venue="limitless")
    order.finish()
    other = InPlay(app, "usr_trader2", "filled", venue="opinion")
    other.finish()
    until(lambda: order.id in mine.orders())
    until(lambda: other.id in theirs.orders())
    assert other.id not in mine.driver.page_source
    assert order.id not in theirs.driver.page_source
    until(lambda: list(theirs.balances()) == ["opinion"])
    assert "opinion" not in mine.balances()


@pytest.mark.parametrize(
    ("end", "label"),
    [
        ("filled", "Filled"),
        ("partial", "Filled"),
        ("retried", "Filled"),
        ("failed", "Failed"),
        ("expired", "Expired"),
    ],
)
def test_the_button_places_an_order_with_its_end(mine: Page, until: Until, end: str, label: str) -> None:
    before = set(mine.orders())
    mine.press(end)

    def has_ended() -> bool:
        new = [row for order in set(mine.orders()) - before if (row := mine.row(order))]
        partly = "Partly filled" if end == "expired" else label
        return len(new) == 1 and new[0].label in (label, partly)

    until(has_ended)
    assert mine.text("#problem") == ""


def test_a_step_that_is_tried_again_says_so_and_leaves_nothing_behind(app: App, mine: Page, until: Until) -> None:
    order = InPlay(app, "usr_trader1", "retried")
    order.until("step_retrying")
    until(lambda: mine.row(order.id) and shown(mine, order).steps[-1][1] == "retrying")
    order.finish()
    until(lambda: shown(mine, order).state == "filled")
    assert shown(mine, order).reason == ""


def test_a_number_of_attempts_may_be_spelt_with_a_fraction(app: App, mine: Page, until: Until) -> None:
    order = InPlay(app, "usr_trader1", "filled")
    order.until("step_started")
    until(lambda: mine.row(order.id) and shown(mine, order).steps[1:] == [["quote", "started"]])
    retrying = {"type": "order_event", "event": "step_retrying", "orderId": order.id, "stepType": "quote"}
    app.control("push", frame={**retrying, "stepId": "another", "attempt": 1.0, "timestamp": 1})
    until(lambda: ["quote", "retrying"] in shown(mine, order).steps)
    order.finish()
    until(lambda: shown(mine, order).state == "filled")


def test_an_order_that_is_cut_short_says_how_much_of_it_was_filled(app: App, mine: Page, until: Until) -> None:
    order = InPlay(app, "usr_trader1", "partial")
    order.until("partially_filled")
    app.control("push", frame={"type": "order_event", "event": "cancelled", "orderId": order.id, "timestamp": 1})
    until(lambda: mine.row(order.id) and shown(mine, order).label == "Partly filled")
    assert shown(mine, order).reason == "cancelled"
    assert shown(mine, order).value > 0


def test_the_pages_are_for_who_has_signed_in(app: App, theirs: Page, until: Until) -> None:
    assert "Sign in" in app.pool.request("GET", app.url).data.decode()
    assert app.pool.request("GET", app.url + "events/").status == 403
    order = {"scenario": "filled"}
    assert app.pool.request("POST", app.url + "place/", fields=order, redirect=False).status in (302, 403)
    theirs.driver.find_element("css selector", ".top button").click()
    until(lambda: theirs.text("h1") == "Sign in")
    theirs.sign_in("trader2", "wrong")
    until(lambda: "not the password" in theirs.text(".problem"))
    theirs.sign_in("trader2", app.password)
    until(lambda: theirs.text(".who") == "trader2")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_it_can_be_read(app: App, mine: Page, until: Until, scheme: str, width: int) -> None:
    long = f"ord_{scheme}{width}" + "x" * 120
    new = {"type": "order_submitted", "venue": "venue" * 12, "orderId": long, "side": "buy", "price": 0.5}
    app.control("push", frame={**new, "size": 10**9, "outcomeId": "o", "timestamp": 1}, userId="usr_trader1")
    rich = {"venue": "a long name", "tradingBalanceCents": 10**12, "walletBalanceCents": 10**12, "timestamp": 1}
    app.control("push", frame={"type": "balance_update", **rich}, userId="usr_trader1")
    played = [InPlay(app, "usr_trader1", scenario) for scenario in ("failed", "partial", "cancelled")]
    for order in played:
        order.finish()
    until(lambda: all(mine.row(order.id) is not None for order in played) and "a long name" in mine.balances())
    with mine.looking(scheme=scheme, width=width):
        assert mine.run("return document.documentElement.scrollWidth") <= width
        names = "return [...document.querySelectorAll('#balances tbody th')].map((cell) => cell.clientWidth)"
        assert min(mine.run(names)) > 90
        texts = mine.texts()
        assert len(texts) > 50
        assert [text for text, colour, ground in texts if contrast(colour, ground) < CONTRAST] == []
        ground = mine.run("return getComputedStyle(document.body).backgroundColor")
        assert (luminance(ground) < 0.1) == (scheme == "dark")


def luminance(colour: str) -> float:
    """Return the relative luminance of WCAG."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def test_a_page_goes_on_after_the_stream_was_killed(app: App, mine: Page, until: Until) -> None:
    order = InPlay(app, "usr_trader1", "filled", venue="predict", side="buy")
    order.until("order_submitted")
    until(lambda: mine.row(order.id) is not None)
    lives = app.output.count("live as 'usr_trader1'")
    with app.nothing_started_again():
        app.kill("trader1")
        if app.name == "django_orders":  # a journal does not tell whether it has an owner
            until(lambda: mine.run("lookIn(0)") or "not running" in mine.text("#stream"))
    until(lambda: "usr_trader1" not in app.connected())
    balance = [frame for frame in order.finish() if frame["type"] == "balance_update"][-1]
    until(lambda: app.output.count("live as 'usr_trader1'") > lives)
    until(lambda: shown(mine, order).state == "filled")
    until(lambda: mine.balances()["predict"][0] == dollars(balance["tradingBalanceCents"]))
    assert mine.text("#stream") == ""


def test_a_page_says_that_the_web_server_is_away_and_goes_on_afterwards(
    app: App, mine: Page, theirs: Page, until: Until
) -> None:
    lives = app.output.count("live as 'usr_trader2'")
    with app.nothing_started_again():
        app.kill("gunicorn")
        app.kill("trader2")  # with another process at the same time
        until(lambda: mine.text("#connection") == "Reconnecting…")
    order = InPlay(app, "usr_trader1", "filled")
    order.finish()
    until(lambda: (row := mine.row(order.id)) is not None and row.state == "filled")
    until(lambda: mine.text("#connection") == "Live" == theirs.text("#connection"))
    until(lambda: app.output.count("live as 'usr_trader2'") > lives)
    complaints = [*mine.console(), *theirs.console()]
    assert all("net::ERR" in complaint for complaint in complaints), complaints
