"""What a signal handler raises leaves a call as it is, wherever it comes, and the next call works."""

from __future__ import annotations

import gc
import http.server
import json
import linecache
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import jwt
import pytest
from waiting import DEADLINE

import aggstream

pytestmark = [
    pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timers by signal"),
    # The interpreter leaves the socket of an interrupted call to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]

ORDER = {
    "id": "ord_1",
    "status": "filled",
    "amountRaw": "100",
    "filledAmountRaw": "100",
    "executionPrice": "0.5",
    "slippageBps": 5,
    "createdAt": "2026-01-02T03:04:05.5Z",
    "updatedAt": "2026-13-02T03:04:05Z",
    "venueMarket": {"id": "m"},
}
PAGE = {"data": [ORDER, {"id": 5}, {**ORDER, "executionPrice": 0.25}], "nextCursor": None, "hasMore": False}
BALANCES = {"cash": [{"tokenSymbol": "USDC", "totalRaw": "5", "decimals": 2}], "positions": []}
TOKEN = jwt.encode({"sub": "usr_1", "exp": 4_000_000_000}, "k" * 32, algorithm="HS256")


class TimeLimit(Exception):
    """As Celery's soft limit is: an `Exception`."""


class Api(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # So long it waits for a client whose interrupted call has left its socket open.
    timeout = 5.0

    def do_GET(self) -> None:
        self._answer(PAGE if "orders" in self.path else BALANCES)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self._answer({"accessToken": TOKEN, "refreshToken": "next"})

    def _answer(self, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the library's name)
        """Keep quiet."""


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = False  # so that its end waits for them

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep quiet about clients that go away."""


@pytest.fixture
def url() -> Iterator[str]:
    with Server(("127.0.0.1", 0), Api) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        gc.collect()  # it closes the sockets of interrupted calls
        server.shutdown()
        thread.join(DEADLINE)


def is_final(frame: FrameType) -> bool:
    """Return True in a finalizer. There the interpreter swallows what is raised."""
    inner: FrameType | None = frame
    while inner is not None:
        # To finalize a response, it asks whether that is closed.
        if inner.f_code.co_filename.endswith("weakref.py") or inner.f_code.co_name in ("closed", "isclosed"):
            return True
        inner = inner.f_back
    return False


class Interruption:
    """Sends this thread SIGALRM at the n-th line that it runs in some files. The handler raises an exception."""

    def __init__(self, line: int, error: type[BaseException], is_wanted: Callable[[str], bool]) -> None:
        self.place: tuple[str, int] | None = None
        self.raised = error("late")
        self._left = line
        self._is_wanted = is_wanted

    def fail(self, number: int, frame: FrameType | None) -> None:
        raise self.raised

    def __call__(self, frame: FrameType, event: str, arg: object) -> Any:
        return self._look if self._is_wanted(frame.f_code.co_filename) else None

    def _look(self, frame: FrameType, event: str, arg: object) -> Any:
        text = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        # The interpreter runs no signal handler between the two halves of a `with`.
        if event == "line" and self.place is None and not text.startswith("with "):
            if self._left <= 0 and not is_final(frame):
                self.place = Path(frame.f_code.co_filename).name, frame.f_lineno
                signal.raise_signal(signal.SIGALRM)
            self._left -= 1
        return self._look


def interrupt(call: Callable[[], object], interruption: Interruption) -> bool:
    """Make a call that is interrupted; return False if it has fewer lines."""
    before = signal.signal(signal.SIGALRM, interruption.fail)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    tracing = sys.gettrace()
    left_with: BaseException | None = None
    sys.settrace(interruption)
    try:
        call()
    except BaseException as error:
        left_with = error
    finally:
        sys.settrace(tracing)
        signal.signal(signal.SIGALRM, before)
        # At the very line that puts the mask back, nothing in Python can do so after an exception.
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    expected = None if interruption.place is None else interruption.raised
    assert left_with is expected, interruption.place
    assert not getattr(left_with, "__notes__", []), interruption.place
    return interruption.place is not None


def is_ours(file: str) -> bool:
    """Return True for our lines, and for those that cattrs has made. The border has thousands for one error."""
    is_in_package = file.startswith(str(Path(aggstream.__file__).parent)) and not file.endswith("border.py")
    return is_in_package or "cattrs" in file


def rest_client(url: str, **options: Any) -> aggstream.RestClient:
    options = {"app_id": "a", "token": TOKEN, "rest_url": url, **options}
    return aggstream.RestClient(options=aggstream.RestOptions(attempts=2, timeout=DEADLINE), **options)


@pytest.mark.parametrize("error", [TimeLimit, TimeoutError, ValueError, aggstream.RestError])
def test_it_leaves_a_call_of_rest_whatever_line_it_came_at(url: str, error: type[BaseException]) -> None:
    line = 0
    while True:
        with rest_client(url) as rest:
            if not interrupt(rest.orders_page, Interruption(line, error, is_ours)):
                break
        line += 1
    assert line > 300


@pytest.mark.parametrize("error", [TimeLimit, TimeoutError])
def test_it_leaves_a_call_of_rest_that_asks_a_refreshing_token(url: str, error: type[BaseException]) -> None:
    line = 0
    while True:
        tokens = aggstream.RefreshingToken("r", app_id="a", rest_url=url, save=lambda pair: None)
        with rest_client(url, token=tokens) as rest:
            if not interrupt(rest._present_token, Interruption(line, error, is_ours)):
                break
        line += 1
    assert line > 150


def is_of_http(file: str) -> bool:
    """Return True for the lines that hold connections, and the locks around them."""
    is_of_urllib3 = "urllib3" in file and file.endswith(("connectionpool.py", "poolmanager.py", "_collections.py"))
    return is_of_urllib3 or file.endswith(("/queue.py", "/threading.py", "_network/http.py"))


def test_the_next_call_works_wherever_the_one_before_was_interrupted(url: str) -> None:
    line = 0
    with rest_client(url) as rest:
        while interrupt(rest.orders_page, Interruption(line, TimeLimit, is_of_http)):
            assert rest.balances().cash  # and not the page's answer, and no lock is waited for
            line += 1
    assert line > 100


def test_the_connections_of_an_interrupted_call_are_closed(url: str) -> None:
    class Limit(Exception):
        """Raised while the answer is read."""

    with rest_client(url) as rest:
        rest.balances()
        before = rest._calls._http.pool()
        assert rest.balances().cash
        assert rest._calls._http.pool() is before  # a call that was not interrupted keeps its connection
        assert interrupt(rest.balances, Interruption(0, Limit, lambda file: file.endswith("urllib3/response.py")))
        assert not before.pools.keys()
        assert rest.balances().cash
        assert rest._calls._http.pool() is not before


@pytest.mark.parametrize("error", [TimeLimit, OSError])
def test_it_leaves_a_file_token(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "token").write_text(TOKEN)
    line = 0
    while interrupt(aggstream.FileToken(tmp_path / "token").get_token, Interruption(line, error, is_ours)):
        line += 1
    assert line > 5


def test_what_the_program_handled_before_the_call_is_not_taken_for_an_interruption() -> None:
    # Python makes the exception that is handled at the moment the context of each one that is raised then.
    closed = aggstream.RestClient(
        app_id="a", token=TOKEN, rest_url="http://127.0.0.1:9", options=aggstream.RestOptions(attempts=1)
    )
    handled = TimeLimit("before")
    try:
        raise handled
    except TimeLimit:
        with closed, pytest.raises(aggstream.RestError) as caught:
            closed.balances()
    assert caught.value.__context__ is handled
    assert handled.__traceback__ is not None
