"""What OpenSSL's errors mean, and what to do about them."""

from __future__ import annotations

import ssl

_PRIVATE = (
    "if the authority is a private one, give ssl_context=ssl.create_default_context(cafile=…), or --ca-file to a "
    "command"
)
# By the numbers that OpenSSL gives to the results of a verification.
_REMEDIES = {
    9: "look at the clock of this machine",
    10: "the server's operator must renew it, or the clock of this machine is wrong",
    18: f"the server has signed it itself: {_PRIVATE}",
    19: f"an authority in its chain is not known here: {_PRIVATE}",
    20: f"its authority is not known here, or the server leaves out a certificate between: {_PRIVATE}",
    21: f"the server leaves out a certificate of its chain: {_PRIVATE}",
    62: "look at the host name in the URL",
    64: "look at the address in the URL",
}
_NO_TLS = frozenset(
    {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"}
)


def tls_words(error: ssl.SSLError) -> str:
    """Return in words what went wrong with TLS, and what to do."""
    if isinstance(error, ssl.SSLCertVerificationError):
        said = (
            f"the server's certificate is not valid: {getattr(error, 'verify_message', '') or 'nothing says why'}"
        )
        remedy = _REMEDIES.get(getattr(error, "verify_code", 0))
        return said if remedy is None else f"{said}; {remedy}"
    reason: str | None = getattr(error, "reason", None)  # an error that Python code has made may have none
    if reason in _NO_TLS:
        return f"the server does not speak TLS at this port ({reason}): is it ws:// or http://?"
    if isinstance(error, ssl.SSLEOFError):
        return "the server ended the connection during TLS: does it speak TLS at this port, or is it ws:// or http://?"
    if reason is not None and "ALERT" in reason:
        return f"the server refused TLS: {reason.replace('_', ' ').lower()}"
    return reason or type(error).__name__
