"""One connection's conversation with the service, without I/O: no socket, no clock, no thread."""
