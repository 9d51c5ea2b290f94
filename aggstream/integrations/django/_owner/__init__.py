"""The ownership of a stream, with a lease in the stream's row, or with an advisory lock of the database."""
