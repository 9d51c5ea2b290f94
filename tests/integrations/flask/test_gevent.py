"""The view in gevent's workers, which many pages share, and the stream in an application that uses gevent."""

from __future__ import annotations

from pathlib import Path

import pytest
from integrations.browsers import Browsers
from integrations.flask.conftest import on_sqlite
from integrations.flask.desks import Desk
from integrations.flask.test_view import browsers
from journals import happened
from waiting import Until

from aggstream.journal import Journal, JournalOptions
from aggstream.simulator import Simulator

__all__ = ["browsers"]  # a fixture

PATCH = "from gevent import monkey\nmonkey.patch_all()\n"
BEGIN = (
    'import sys, flask.cli\nsys.argv = ["flask", "aggstream", "run", "--log-format", "json"]\nflask.cli.main()\n'
)


@on_sqlite
@pytest.mark.parametrize("is_preloaded", [False, True], ids=["", "preload"])
def test_many_pages_are_told_at_once_by_one_worker(
    is_preloaded: bool, desk: Desk, browsers: Browsers, port: int, until: Until, tmp_path: Path
) -> None:
    accounts = {"FLASK_AGGSTREAM_ACCOUNTS": '{"default": {}, "another": {"JOURNAL": "another.db"}}'}
    desk.journal.parent.mkdir()
    config = tmp_path / "gunicorn.conf.py"
    config.write_text(f"{PATCH}preload_app = True\n" if is_preloaded else "")
    command = ("-m", "gunicorn", "-k", "gevent", "-c", str(config), "-b", f"127.0.0.1:{port}", "desk:create_app()")
    server = desk.python(*command, **accounts)
    until(lambda: server.says("Booting worker"))
    with (
        Journal(JournalOptions(path=desk.journal)) as mine,
        Journal(JournalOptions(path=desk.journal.parent / "another.db")) as theirs,
    ):
        mine.belongs_to("usr_1")
        theirs.belongs_to("usr_2")
        pages = [browsers(name, "0") for name in ("1", "2") * 10]
        for page in pages:
            assert next(page).id == "0"
        # Had one kept the others waiting, it would have ended by now, and would get nothing.
        for number in range(3):
            events = [happened(f"mine-{number}"), happened(f"theirs-{number}")]
            mine.store(events[:1])
            theirs.store(events[1:])
            for page, event in zip(pages, events * 10, strict=True):
                assert next(page).data == event.text


@on_sqlite
@pytest.mark.parametrize("before", [PATCH, "import gevent.monkey\n"], ids=["patched", "imported"])
def test_the_stream_runs_in_an_application_that_uses_gevent(
    before: str, agg: Simulator, desk: Desk, until: Until
) -> None:
    stream = desk.python("-c", f"{before}{BEGIN}flask.cli.main()")
    until(lambda: stream.says("live as"))
    first = agg.place_order("usr_1", scenario="filled")
    until(lambda: desk.ends() == {first: "filled"})
    agg.drop(abort=True)
    second = agg.place_order("usr_1", scenario="failed")
    until(lambda: desk.ends() == {first: "filled", second: "failed"})
    assert stream.output.count("live as") == 2
    assert stream.end() == 0
