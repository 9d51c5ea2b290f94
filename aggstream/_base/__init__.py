"""Time, threads, fork, secrets, checks, text: what every room uses, and what knows no message of the service."""
