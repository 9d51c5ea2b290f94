"""The I/O thread: it connects, reads, catches up from REST, and hands events on."""
