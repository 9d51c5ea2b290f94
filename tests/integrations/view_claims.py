"""What the view of live events promises, whichever framework it is in. Each framework gives the fixture `site`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Protocol

import pytest
from integrations.browsers import Frame
from journals import CODEC, happened

from aggstream.events import UserEvent


class Site(Protocol):
    """A site with the accounts `usr_1` and `usr_2`, where the name `1` signs in as `usr_1`."""

    def store(self, user: str, events: Sequence[UserEvent]) -> list[int | None]:
        """Store events of an account's user."""
        ...

    def frames(self, name: str, *, after: str | None = None, last_event_id: str | None = None) -> list[Frame]:
        """Sign in, and return a whole answer of the view, which must have succeeded."""
        ...

    def status(self, name: str | None, *, after: str | None = None, method: str = "GET") -> int:
        """Return the status of an answer; without a name nobody is signed in."""
        ...


class ViewClaims:
    """The claims. A framework's tests inherit them."""

    def test_each_user_sees_their_own_events_and_nobody_elses(self, site: Site) -> None:
        mine, theirs = [happened("mine"), happened("mine", "filled")], [happened("theirs")]
        site.store("usr_1", mine[:1])
        site.store("usr_2", theirs)
        site.store("usr_1", mine[1:])
        first, *events = site.frames("1", after="0")
        assert first == Frame("0", "", "")
        assert [frame.data for frame in events] == [event.text for event in mine]
        assert {frame.event for frame in events} == {"order_event"}
        assert [frame.data for frame in site.frames("2", after="0")[1:]] == [theirs[0].text]
        assert site.frames("3", after="0") == [Frame("0", "", "")]

    def test_it_goes_on_after_the_last_event_that_was_seen(self, site: Site) -> None:
        one, two, three = happened("a"), happened("b"), happened("c")
        site.store("usr_1", [one, two, three])
        everything = site.frames("1", after="0")
        assert [frame.data for frame in everything[1:]] == [one.text, two.text, three.text]
        # The header goes before the argument, which stays in the URL when a browser asks again.
        resumed = site.frames("1", last_event_id=everything[2].id, after="0")
        assert [frame.data for frame in resumed] == ["", three.text]

    def test_without_a_place_it_begins_now_and_tells_where_that_is(self, site: Site) -> None:
        [seq] = site.store("usr_1", [happened("old")])
        [first] = site.frames("1")
        assert first.id == str(seq)
        new = happened("new")
        site.store("usr_1", [new])
        assert [frame.data for frame in site.frames("1", last_event_id=first.id)] == ["", new.text]

    def test_a_place_that_the_store_has_not_come_to_is_its_newest(self, site: Site) -> None:
        [seq] = site.store("usr_1", [happened("x")])
        [first] = site.frames("1", last_event_id="9" * 18)
        assert first == Frame(str(seq), "", "")

    def test_a_message_of_many_lines_arrives_as_it_is(self, site: Site) -> None:
        text = '{\r\n"type": "order_event",\n"event": "x\u2028y",\r"orderId": "o", "timestamp": 5}'
        event = CODEC.decode(text, 1)
        assert isinstance(event, UserEvent)
        site.store("usr_1", [event])
        [_, frame] = site.frames("1", after="0")
        assert json.loads(frame.data) == json.loads(text)

    def test_more_events_than_a_page_come_in_order(self, site: Site) -> None:
        events = [happened("o") for _ in range(450)]
        site.store("usr_1", events)
        # Its time is over after the first page; the rest is for the next answer.
        seen: list[str] = []
        place = "0"
        while len(seen) < 450:
            got = site.frames("1", last_event_id=place)
            seen += [frame.data for frame in got[1:]]
            place = got[-1].id
        assert seen == [event.text for event in events]

    @pytest.mark.parametrize("name", [None, "nobody"])
    def test_a_visitor_without_an_account_is_refused_whatever_else_they_ask(
        self, site: Site, name: str | None
    ) -> None:
        assert site.status(name) == 403
        assert site.status(name, after="no place") == 403

    @pytest.mark.parametrize("place", ["x", "-1", "1.5", "²", "9" * 19, "1\x00"])
    def test_a_place_that_is_none_is_refused(self, site: Site, place: str) -> None:
        assert site.status("1", after=place) == 400

    def test_it_only_answers_to_get(self, site: Site) -> None:
        assert site.status("1", method="POST") == 405
