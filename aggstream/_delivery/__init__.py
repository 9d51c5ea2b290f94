"""The queue of events, and the threads that call the handlers."""
