"""Hosts an ASGI app on 127.0.0.1 the way every test peer does: any free port, one `listening PORT` line, ends on
SIGTERM. Knows nothing of what the app serves."""

import argparse
import contextlib
import os
import signal
import socket
import warnings

import uvicorn

# Roots, sampling and logging are deprecated by the newest revision, and exactly what these peers are for.
warnings.filterwarnings("ignore", message=".*deprecated as of 2026-07-28.*")


def arguments(*more, eras: bool = False) -> argparse.Namespace:
    """Of every peer; `more` are functions that add a peer's own to the parser."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--stdio", action="store_true")
    if eras:
        parser.add_argument("--era", choices=["both", "modern", "legacy"], default="both")
    for add in more:
        add(parser)
    return parser.parse_args()


class _Server(uvicorn.Server):
    """Leaves signals alone: a peer that is told to end does so at once, open streams or not."""

    def capture_signals(self):
        return contextlib.nullcontext()


def serve(app, port: int) -> None:
    """Serves until SIGTERM."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(1024)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    print(f"listening {listener.getsockname()[1]}", flush=True)
    _Server(uvicorn.Config(app, log_level="warning", timeout_keep_alive=60)).run(sockets=[listener])
