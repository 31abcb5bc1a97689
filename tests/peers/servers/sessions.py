"""Hosts an MCP server of either line of the Python SDK over streamable HTTP: sessions with event stores, Host and Origin
checks. Knows nothing of what a server offers."""

import collections

from mcp.server.streamable_http import EventMessage, EventStore
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.routing import Route

RETRY_MS = 50  # short, so that tests which hang up do not wait for seconds
EVENTS_MAX = 1000  # per session; older ones cannot be replayed any more


class SessionEvents(EventStore):
    """Keeps the newest events of one session for `Last-Event-ID`."""

    def __init__(self):
        self._events = collections.deque(maxlen=EVENTS_MAX)
        self._next = 0

    async def store_event(self, stream_id, message):
        self._next += 1
        self._events.append((str(self._next), stream_id, message))
        return str(self._next)

    async def replay_events_after(self, last_event_id, send_callback):
        events = list(self._events)
        at = next((i for i, (event_id, _, _) in enumerate(events) if event_id == last_event_id), None)
        if at is None:
            return None
        stream_id = events[at][1]
        for event_id, stream, message in events[at + 1 :]:
            if stream == stream_id and message is not None:
                await send_callback(EventMessage(message, event_id))
        return stream_id


class Sessions(StreamableHTTPSessionManager):
    """Stream ids are request ids, which repeat between sessions: every session gets an event store of its own."""

    @property
    def event_store(self):
        return SessionEvents()

    @event_store.setter
    def event_store(self, _):
        pass


class Endpoint:
    """The ASGI app of a session manager; a route takes an object for an app and a function for a handler."""

    def __init__(self, sessions):
        self.sessions = sessions

    async def __call__(self, scope, receive, send):
        await self.sessions.handle_request(scope, receive, send)


def http_app(server, wrap=lambda app: app) -> Starlette:
    """Serves `server` at /mcp; `wrap` may put something in front of it."""
    local = ["127.0.0.1", "localhost", "[::1]"]
    hosts = [*local, *(f"{name}:*" for name in local)]
    security = TransportSecuritySettings(
        enable_dns_rebinding_protection=True, allowed_hosts=hosts, allowed_origins=[f"http://{host}" for host in hosts]
    )
    sessions = Sessions(app=server, security_settings=security, retry_interval=RETRY_MS, max_sessions=None)
    route = Route("/mcp", endpoint=wrap(Endpoint(sessions)))
    return Starlette(routes=[route], lifespan=lambda _: sessions.run())
