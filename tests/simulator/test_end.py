"""The simulator's end, whatever its clients are at."""

from __future__ import annotations

import contextlib
import gc
import socket
import threading

from aggstream.simulator import Simulator

REQUEST = b"GET /orders HTTP/1.1\r\nHost: localhost\r\n\r\n"


def test_an_end_while_clients_come_in_leaves_no_socket_open() -> None:
    # What is left open is told when it is collected, and fails this test.
    for _ in range(10):
        is_over, has_begun = threading.Event(), threading.Event()
        simulator = Simulator()
        simulator.start()

        def come_in(port: int, is_over: threading.Event, has_begun: threading.Event) -> None:
            while not is_over.is_set():
                with (
                    contextlib.suppress(OSError),
                    socket.create_connection(("127.0.0.1", port), timeout=30.0) as sock,
                ):
                    sock.sendall(REQUEST)
                    has_begun.set()

        clients = [threading.Thread(target=come_in, args=(simulator.port, is_over, has_begun)) for _ in range(3)]
        for client in clients:
            client.start()
        assert has_begun.wait(30.0)
        simulator.stop()
        is_over.set()
        for client in clients:
            client.join()
    gc.collect()
