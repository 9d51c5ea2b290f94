"""The view in gevent's workers, and the stream in a project that uses gevent."""

from __future__ import annotations

from pathlib import Path

import pytest
from integrations.browsers import Browsers
from integrations.django.manage import Manage
from integrations.django.test_view import browsers, signed_in, store_of
from journals import happened
from shop.models import Seen
from waiting import Until

from aggstream.integrations.django.models import Event
from aggstream.simulator import Simulator

__all__ = ["browsers", "signed_in"]  # fixtures

PATCH = "from gevent import monkey\nmonkey.patch_all()\n"
BEGIN = """
import runpy, sys
sys.argv = ["manage.py", "aggstream"]
runpy.run_path("manage.py", run_name="__main__")
"""


@pytest.mark.parametrize("is_preloaded", [False, True], ids=["", "preload"])
def test_many_streams_are_open_at_once_in_one_worker(
    is_preloaded: bool, manage: Manage, browsers: Browsers, port: int, until: Until, tmp_path: Path
) -> None:
    config = tmp_path / "gunicorn.conf.py"
    config.write_text(f"{PATCH}preload_app = True\n" if is_preloaded else "")
    server = manage.python("-m", "gunicorn", "-k", "gevent", "-c", str(config), "-b", f"127.0.0.1:{port}", "wsgi")
    until(lambda: server.says("Booting worker"))
    mine, theirs = store_of("mine", "usr_1"), store_of("theirs", "usr_2")
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


@pytest.mark.parametrize("before", [PATCH, "import gevent.monkey\n"], ids=["patched", "imported"])
def test_the_stream_runs_in_a_project_that_uses_gevent(
    before: str, agg: Simulator, manage: Manage, until: Until
) -> None:
    stream = manage.python("-c", f"{before}{BEGIN}")
    until(lambda: stream.says("live as"))
    agg.place_order("usr_1", scenario="filled")
    until(lambda: Event.objects.filter(state="done", terminal=True).count() == 1)
    agg.drop(abort=True)
    agg.place_order("usr_1", scenario="failed")
    until(lambda: Event.objects.filter(state="done", terminal=True).count() == 2)
    assert stream.output.count("live as") == 2
    assert Seen.objects.filter(type="order_event").values("order_id").distinct().count() == 2
    assert stream.end() == 0
