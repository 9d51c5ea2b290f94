"""What is known of tokens and of the user on one connection, and what an answer of the service means."""

from __future__ import annotations

from aggstream._protocol.commands import Authenticate
from aggstream._protocol.sign_in import SignIn, Verdict
from aggstream.events import ErrorMessage
from aggstream.tokens._token import Token

FIRST, SECOND, THIRD = (Token.of(f"{name}-token-0001") for name in ("first", "second", "third"))


def signed_in() -> SignIn:
    sign_in = SignIn(FIRST, expected_user=None)
    sign_in.send(FIRST)
    assert sign_in.accepted("usr_1") is Verdict.PROVEN
    return sign_in


def test_the_user_is_the_one_that_the_service_names() -> None:
    sign_in = signed_in()
    assert sign_in.user_id == "usr_1"
    assert not sign_in.is_pending


def test_another_token_is_in_use_once_it_is_accepted() -> None:
    sign_in = signed_in()
    assert sign_in.send(SECOND) == Authenticate(SECOND.secret)
    assert sign_in.token is FIRST
    assert sign_in.accepted("usr_1") is Verdict.RENEWED
    assert sign_in.token is SECOND


def test_an_answer_without_a_user_is_about_the_same_one() -> None:
    sign_in = signed_in()
    sign_in.send(SECOND)
    assert sign_in.accepted(None) is Verdict.RENEWED
    assert sign_in.user_id == "usr_1"


def test_an_answer_that_nobody_asked_for_changes_nothing() -> None:
    sign_in = signed_in()
    assert sign_in.accepted("usr_1") is Verdict.UNASKED
    assert sign_in.token is FIRST


def test_another_user_is_refused_and_not_taken_over() -> None:
    sign_in = signed_in()
    sign_in.send(SECOND)
    assert sign_in.accepted("usr_2") is Verdict.WRONG_USER
    assert (sign_in.user_id, sign_in.token) == ("usr_1", FIRST)
    assert SignIn(FIRST, expected_user="usr_1").accepted("usr_2") is Verdict.WRONG_USER


def test_of_several_tokens_that_come_meanwhile_the_last_has_its_turn() -> None:
    sign_in = signed_in()
    sign_in.send(FIRST)
    assert sign_in.send(SECOND) is None
    assert sign_in.send(THIRD) is None
    assert sign_in.accepted("usr_1") is Verdict.PROVEN
    assert sign_in.next_token() is THIRD
    assert sign_in.next_token() is None


def test_the_refused_token_is_the_one_that_was_asked_about() -> None:
    sign_in = signed_in()
    sign_in.refuse()
    assert sign_in.refused is FIRST
    sign_in.send(SECOND)
    sign_in.refuse()
    assert sign_in.refused is SECOND


def test_all_tokens_that_were_sent_are_masked() -> None:
    sign_in = signed_in()
    sign_in.send(SECOND)
    words = f"{FIRST.secret.reveal()} and {SECOND.secret.reveal()}"
    assert sign_in.redact(words) == "*** and ***"
    masked = sign_in.mask(ErrorMessage(message=words, code=words, raw={"words": [words]}))
    assert (masked.message, masked.code, masked.raw) == ("*** and ***", "*** and ***", {"words": ["*** and ***"]})
