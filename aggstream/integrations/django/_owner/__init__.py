"""Which process runs a stream: a lease in the stream's row, or an advisory lock of the database."""
