"""The tree of errors: whose fault it is, and that errors cross process borders."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import pytest

import aggstream
from aggstream import errors

TREE: dict[type[BaseException], tuple[type[BaseException], ...]] = {
    errors.AggStreamError: (Exception,),
    errors.ConfigurationError: (errors.AggStreamError, ValueError),
    errors.StateError: (errors.AggStreamError, RuntimeError),
    errors.WaitTimeout: (errors.AggStreamError, TimeoutError),
    errors.TransportError: (errors.AggStreamError,),
    errors.ConnectFailed: (errors.TransportError,),
    errors.HandshakeRejected: (errors.ConnectFailed,),
    errors.ProxyRejected: (errors.ConnectFailed,),
    errors.ConnectionLost: (errors.TransportError,),
    errors.HeartbeatTimeout: (errors.TransportError,),
    errors.ProtocolError: (errors.AggStreamError,),
    errors.LocalProtocolError: (errors.ProtocolError,),
    errors.RemoteProtocolError: (errors.ProtocolError,),
    errors.LimitExceeded: (errors.RemoteProtocolError,),
    errors.DecodeError: (errors.RemoteProtocolError,),
    errors.AuthenticationError: (errors.AggStreamError,),
    errors.TokenUnavailable: (errors.AuthenticationError,),
    errors.AuthenticationRejected: (errors.AuthenticationError,),
    errors.UserMismatch: (errors.AuthenticationError,),
    errors.ServerError: (errors.AggStreamError,),
    errors.RestError: (errors.AggStreamError,),
    errors.JournalError: (errors.AggStreamError,),
    errors.JournalInUse: (errors.JournalError,),
    errors.JournalCorrupt: (errors.JournalError,),
    errors.JournalFull: (errors.JournalError,),
    errors.ReconnectGaveUp: (errors.AggStreamError,),
}

EXAMPLES: list[tuple[errors.AggStreamError, dict[str, Any]]] = [
    (errors.AggStreamError("m"), {}),
    (errors.ConfigurationError("m"), {}),
    (errors.StateError("m"), {}),
    (errors.WaitTimeout("m"), {}),
    (errors.TransportError("m"), {}),
    (errors.ConnectFailed("m"), {}),
    (errors.HandshakeRejected("m", status=503, retry_after=1.5), {"status": 503, "retry_after": 1.5}),
    (errors.HandshakeRejected("m", status=403), {"status": 403, "retry_after": None}),
    (errors.ProxyRejected("m", status=407, final=True), {"status": 407, "final": True}),
    (errors.ConnectionLost("m"), {"code": 1006, "reason": "", "initiated_by": "network"}),
    (
        errors.ConnectionLost("m", code=1012, reason="restart", initiated_by="server"),
        {"code": 1012, "reason": "restart", "initiated_by": "server"},
    ),
    (errors.HeartbeatTimeout("m"), {}),
    (errors.ProtocolError("m"), {}),
    (errors.LocalProtocolError("m"), {}),
    (errors.RemoteProtocolError("m"), {}),
    (errors.LimitExceeded("a frame", limit="frame_size", value=9), {"limit": "frame_size"}),
    (errors.DecodeError("missing", path="$.price"), {"path": "$.price"}),
    (errors.DecodeError("not JSON"), {"path": "$"}),
    (errors.AuthenticationError("m"), {}),
    (errors.TokenUnavailable("m", retry_after=2.0), {"retry_after": 2.0}),
    (errors.TokenUnavailable("m"), {"retry_after": None}),
    (errors.AuthenticationRejected("m"), {"final": False}),
    (errors.AuthenticationRejected("m", final=True), {"final": True}),
    (errors.UserMismatch("m"), {}),
    (errors.ServerError("m", code="E1"), {"message": "m", "code": "E1"}),
    (errors.ServerError("m"), {"message": "m", "code": None}),
    (errors.RestError("m", status=503, retry_after=2.0), {"status": 503, "retry_after": 2.0}),
    (errors.RestError("m"), {"status": None, "retry_after": None}),
    (errors.JournalError("m", path="j.db"), {"path": "j.db"}),
    (errors.JournalInUse("m", path="j.db"), {"path": "j.db"}),
    (errors.JournalCorrupt("m", path="j.db"), {"path": "j.db"}),
    (errors.JournalFull("m", path="j.db"), {"path": "j.db"}),
    (errors.ReconnectGaveUp("m", attempts=3), {"attempts": 3}),
]


def test_the_tree_is_whole() -> None:
    defined = {cls for _, cls in inspect.getmembers(errors, inspect.isclass) if cls.__module__ == errors.__name__}
    assert defined == set(TREE)
    assert {cls.__name__ for cls in defined} == set(errors.__all__)
    assert {type(error) for error, _ in EXAMPLES} == defined


@pytest.mark.parametrize("cls", TREE, ids=lambda cls: cls.__name__)
def test_each_error_stands_where_the_tree_says_and_is_public(cls: type[BaseException]) -> None:
    assert cls.__bases__ == TREE[cls]
    assert getattr(aggstream, cls.__name__) is cls
    assert cls.__name__ in aggstream.__all__
    assert cls.__doc__


@pytest.mark.parametrize(("error", "attributes"), EXAMPLES, ids=lambda value: type(value).__name__)
def test_an_errors_attributes(error: errors.AggStreamError, attributes: dict[str, Any]) -> None:
    assert {name: getattr(error, name) for name in attributes} == attributes


@pytest.mark.parametrize("protocol", [0, 2, pickle.HIGHEST_PROTOCOL])
@pytest.mark.parametrize(("error", "attributes"), EXAMPLES, ids=lambda value: type(value).__name__)
def test_an_error_survives_pickling(
    error: errors.AggStreamError, attributes: dict[str, Any], protocol: int
) -> None:
    twin = pickle.loads(pickle.dumps(error, protocol))  # noqa: S301
    assert type(twin) is type(error)
    assert (str(twin), repr(twin), twin.args) == (str(error), repr(error), error.args)
    assert {name: getattr(twin, name) for name in attributes} == attributes


@pytest.mark.parametrize(("error", "attributes"), EXAMPLES, ids=lambda value: type(value).__name__)
def test_an_error_can_be_copied(error: errors.AggStreamError, attributes: dict[str, Any]) -> None:
    twin = copy.copy(error)
    assert str(twin) == str(error)
    assert vars(twin) == vars(error)


def test_an_error_of_a_users_own_survives_pickling_too() -> None:
    twin = pickle.loads(pickle.dumps(SignedOut("m", user="usr_1")))  # noqa: S301
    assert (str(twin), twin.user, twin.final) == ("m", "usr_1", True)


class SignedOut(errors.AuthenticationRejected):
    def __init__(self, message: str, *, user: str) -> None:
        super().__init__(message, final=True)
        self.user = user


def test_a_decode_error_names_its_path_first() -> None:
    assert str(errors.DecodeError("missing", path="$.price")) == "$.price: missing"


def test_a_server_error_shows_its_code() -> None:
    assert str(errors.ServerError("slow down", code="429")) == "slow down (429)"
    assert str(errors.ServerError("slow down")) == "slow down"
