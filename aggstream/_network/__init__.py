"""The network: WebSocket and HTTP connections, directly or through a proxy, with or without TLS."""
