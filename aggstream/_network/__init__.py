"""Sockets: WebSocket and HTTP, straight or by a proxy, over TLS or not."""
