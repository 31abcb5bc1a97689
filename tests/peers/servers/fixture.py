"""Conformance fixture on the Python SDK: offers what fixture.json says, like its twin fixture.mjs.

    fixture.py [--port N] [--stdio]
"""

import collections
import json
import math
import pathlib
import re

import anyio
import mcp_types as types
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.stdio import stdio_server
from mcp.server.streamable_http import EventMessage, EventStore
from mcp.server.streamable_http_manager import StreamableHTTPASGIApp, StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ServerMessageMetadata
from starlette.applications import Starlette
from starlette.routing import Route

import serving

FIXTURE = json.loads(pathlib.Path(__file__).with_name("fixture.json").read_text())
LEVELS = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"]
STEP_S = 0.05
RETRY_MS = 50
EVENTS_MAX = 1000  # per session; older ones cannot be replayed any more
TEMPLATE = re.compile(r"test://template/([^/]+)/data")
WATCHED = "test://watched-resource"


class State:
    """What a session remembers."""

    def __init__(self):
        self.level = "debug"
        self.subscribed = set()
        self.cancelled = 0
        self.extra = False


STATES: dict[str, State] = collections.defaultdict(State)


def state(ctx) -> State:
    return STATES[ctx.request.headers.get("mcp-session-id", "") if ctx.request else "stdio"]


def text(value: str) -> dict:
    return {"content": [{"type": "text", "text": value}]}


def failure(value: str) -> dict:
    return {**text(value), "isError": True}


def tools(ctx) -> list[dict]:
    if not state(ctx).extra:
        return FIXTURE["tools"]
    return [*FIXTURE["tools"], {"definition": FIXTURE["extra_tool"], "result": text("extra")}]


async def list_tools(ctx, _):
    return {"tools": [tool["definition"] for tool in tools(ctx)]}


async def call_tool(ctx, params):
    tool = next((tool for tool in tools(ctx) if tool["definition"]["name"] == params.name), None)
    if tool is None:
        raise MCPError(types.INVALID_PARAMS, f"unknown tool {params.name}")
    if "result" in tool:
        return tool["result"]
    return await CALLS[params.name](ctx, params.arguments or {})


async def list_resources(_ctx, _):
    return {"resources": FIXTURE["resources"]}


async def list_templates(_ctx, _):
    return {"resourceTemplates": FIXTURE["templates"]}


async def read_resource(_ctx, params):
    uri = str(params.uri)
    if uri in FIXTURE["contents"]:
        return {"contents": [FIXTURE["contents"][uri]]}
    found = TEMPLATE.fullmatch(uri)
    if found is None:
        raise MCPError(-32002, "resource not found", {"uri": uri})
    body = {"id": found[1], "templateTest": True, "data": f"Data for ID: {found[1]}"}
    return {"contents": [{"uri": uri, "mimeType": "application/json", "text": json.dumps(body)}]}


async def subscribe(ctx, params):
    state(ctx).subscribed.add(str(params.uri))
    return {}


async def unsubscribe(ctx, params):
    state(ctx).subscribed.discard(str(params.uri))
    return {}


async def set_level(ctx, params):
    state(ctx).level = params.level
    return {}


async def complete(_ctx, params):
    values = [value for value in FIXTURE["completions"] if value.startswith(params.argument.value)]
    return {"completion": {"values": values, "total": len(values), "hasMore": False}}


async def list_prompts(_ctx, _):
    return {"prompts": FIXTURE["prompts"]}


async def get_prompt(_ctx, params):
    prompt = next((prompt for prompt in FIXTURE["prompts"] if prompt["name"] == params.name), None)
    if prompt is None:
        raise MCPError(types.INVALID_PARAMS, f"unknown prompt {params.name}")
    given = params.arguments or {}
    for argument in prompt.get("arguments", []):
        if argument["name"] not in given:
            raise MCPError(types.INVALID_PARAMS, f"missing argument {argument['name']}")
    contents = [content if isinstance(content, dict) else text(content)["content"][0] for content in PROMPTS[params.name](given)]
    return {"description": prompt["description"], "messages": [{"role": "user", "content": content} for content in contents]}


# What each prompt's messages hold; a plain string stands for a text block.
PROMPTS = {
    "test_simple_prompt": lambda _: ["This is a simple prompt for testing."],
    "test_prompt_with_arguments": lambda given: [
        f"Prompt with arguments: arg1='{given['arg1']}', arg2='{given['arg2']}'"
    ],
    "test_prompt_with_embedded_resource": lambda given: [
        {
            "type": "resource",
            "resource": {
                "uri": given["resourceUri"],
                "mimeType": "text/plain",
                "text": "Embedded resource content for testing.",
            },
        },
        "Please process the embedded resource above.",
    ],
    "test_prompt_with_image": lambda _: [FIXTURE["image"], "Please analyze the image above."],
}


async def log(ctx, level: str, data: str) -> None:
    if LEVELS.index(level) >= LEVELS.index(state(ctx).level):
        await ctx.session.send_log_message(level, data, "fixture", related_request_id=ctx.request_id)


async def with_logging(ctx, _):
    await log(ctx, "info", "Tool execution started")
    await anyio.sleep(STEP_S)
    await log(ctx, "info", "Tool processing data")
    await anyio.sleep(STEP_S)
    await log(ctx, "info", "Tool execution completed")
    return text("logged three messages")


async def error(_ctx, _):
    return failure("This tool intentionally returns an error for testing")


async def with_progress(ctx, _):
    for value in (0, 50, 100):
        await ctx.session.report_progress(value, 100, f"step {value} of 100")
        if value < 100:
            await anyio.sleep(STEP_S)
    return text(f"progress token {json.dumps((ctx.meta or {}).get('progress_token'))}")


async def sampling(ctx, given):
    if not ctx.session.client_capabilities.sampling:
        return failure("client does not support sampling")
    message = types.SamplingMessage(role="user", content=types.TextContent(text=given["prompt"]))
    answer = await ctx.session.create_message([message], max_tokens=100, related_request_id=ctx.request_id)
    return text(f"LLM response: {getattr(answer.content, 'text', '')}")


def elicitation(tool: str, message: str | None = None):
    """A tool that asks the user with the form that fixture.json keeps under the tool's name."""

    async def call(ctx, given):
        if not ctx.session.client_capabilities.elicitation:
            return failure("client does not support elicitation")
        answer = await ctx.session.elicit_form(message or given["message"], FIXTURE["forms"][tool], ctx.request_id)
        prefix = "User response" if message is None else "Elicitation completed"
        return text(f"{prefix}: action={answer.action}, content={json.dumps(answer.content or {})}")

    return call


async def reconnection(ctx, _):
    if ctx.close_sse_stream:  # absent below 2025-11-25 and on stdio
        await ctx.close_sse_stream()
    await anyio.sleep(2 * STEP_S)
    return text("Answered after the stream was closed")


async def structured(_ctx, given):
    content = {"sum": given["a"] + given["b"]}
    return {**text(json.dumps(content)), "structuredContent": content}


async def roots(ctx, _):
    if not ctx.session.client_capabilities.roots:
        return failure("client does not support roots")
    related = ServerMessageMetadata(related_request_id=ctx.request_id)
    answer = await ctx.session.send_request(types.ListRootsRequest(), types.ListRootsResult, metadata=related)
    return text(json.dumps([str(root.uri) for root in answer.roots]))


async def slow(ctx, given):
    steps = math.ceil(given["seconds"] / STEP_S)
    try:
        for step in range(1, steps + 1):
            await anyio.sleep(STEP_S)
            await ctx.session.report_progress(step, steps)
    except anyio.get_cancelled_exc_class():
        state(ctx).cancelled += 1
        raise
    return text(f"slept {given['seconds']} s")


async def cancellations(ctx, _):
    return text(str(state(ctx).cancelled))


async def touch(ctx, _):
    if WATCHED not in state(ctx).subscribed:
        return text("nobody subscribed")
    await ctx.session.send_resource_updated(WATCHED)
    return text("announced")


async def toggle(ctx, _):
    mine = state(ctx)
    mine.extra = not mine.extra
    await ctx.session.send_tool_list_changed()
    return text("added" if mine.extra else "removed")


# The tools whose result is not fixed.
CALLS = {
    "test_tool_with_logging": with_logging,
    "test_error_handling": error,
    "test_tool_with_progress": with_progress,
    "test_sampling": sampling,
    "test_elicitation": elicitation("test_elicitation"),
    "test_elicitation_sep1034_defaults": elicitation("test_elicitation_sep1034_defaults", "Please review the defaults"),
    "test_elicitation_sep1330_enums": elicitation("test_elicitation_sep1330_enums", "Please choose"),
    "test_reconnection": reconnection,
    "test_structured": structured,
    "test_roots": roots,
    "test_slow": slow,
    "test_cancellations": cancellations,
    "test_touch": touch,
    "test_toggle": toggle,
}


class Fixture(Server):
    """Announces that its lists change."""

    def create_initialization_options(self, notification_options=None, *args, **kwargs):
        changes = notification_options or NotificationOptions(True, True, True)
        return super().create_initialization_options(changes, *args, **kwargs)


SERVER = Fixture(
    "fixture-py",
    version="1.0.0",
    instructions="Fixture of the conformance suite.",
    on_list_tools=list_tools,
    on_call_tool=call_tool,
    on_list_resources=list_resources,
    on_list_resource_templates=list_templates,
    on_read_resource=read_resource,
    on_subscribe_resource=subscribe,
    on_unsubscribe_resource=unsubscribe,
    on_list_prompts=list_prompts,
    on_get_prompt=get_prompt,
    on_completion=complete,
    on_set_logging_level=set_level,
)


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


def http_app() -> Starlette:
    local = ["127.0.0.1", "localhost", "[::1]"]
    hosts = [*local, *(f"{name}:*" for name in local)]
    security = TransportSecuritySettings(
        enable_dns_rebinding_protection=True, allowed_hosts=hosts, allowed_origins=[f"http://{host}" for host in hosts]
    )
    sessions = Sessions(app=SERVER, security_settings=security, retry_interval=RETRY_MS, max_sessions=None)
    route = Route("/mcp", endpoint=StreamableHTTPASGIApp(sessions))
    return Starlette(routes=[route], lifespan=lambda _: sessions.run())


async def run_stdio() -> None:
    async with stdio_server() as (reader, writer):
        await SERVER.run(reader, writer, SERVER.create_initialization_options())


if __name__ == "__main__":
    options = serving.arguments()
    if options.stdio:
        anyio.run(run_stdio)
    else:
        serving.serve(http_app(), options.port)
