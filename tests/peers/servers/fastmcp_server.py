"""A small FastMCP server: the features of the Rust demo server as far as FastMCP has them (it has no resource
subscriptions), lists in pages of three.

    fastmcp_server.py [--port N] [--stdio]
"""

import collections
import math
import os

import anyio
import mcp_types as types
from fastmcp import Context, FastMCP
from fastmcp.server.event_store import EventStore
from mcp.shared.message import ServerMessageMetadata
from pydantic import BaseModel

import serving

LEVELS = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"]
NAMES = ["ada", "alan", "grace"]
PAGE_SIZE = 3
STEP_S = 0.05
RETRY_MS = 50
BIG_MAX = 64 << 20  # bytes

cancelled = collections.Counter()  # calls of slow, by session
extra_shown = collections.defaultdict(bool)  # by session

server = FastMCP(
    "fastmcp", version="1.0.0", instructions="Demo server on FastMCP.", list_page_size=PAGE_SIZE, client_log_level="debug"
)


class Sum(BaseModel):
    sum: float


@server.tool
def echo(text: str) -> str:
    """Returns its text"""
    return text


@server.tool
def add(a: float, b: float) -> Sum:
    """Adds, with structured content"""
    return Sum(sum=a + b)


@server.tool
async def slow(seconds: float, ctx: Context) -> str:
    """Takes its time, reports progress"""
    steps = math.ceil(seconds / STEP_S)
    try:
        for step in range(1, steps + 1):
            await anyio.sleep(STEP_S)
            await ctx.report_progress(step, steps)
    except anyio.get_cancelled_exc_class():
        cancelled[ctx.session_id] += 1
        raise
    return f"slept {seconds:g} s"


@server.tool
def cancellations(ctx: Context) -> str:
    """Cancelled calls of slow in this session"""
    return str(cancelled[ctx.session_id])


@server.tool
async def ask(message: str, ctx: Context) -> str:
    """Asks the client's user"""
    form = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
    answer = await ctx.session.elicit_form(message, form, ctx.request_id)
    return answer.model_dump_json(by_alias=True, exclude_none=True)


@server.tool
async def sample(prompt: str, ctx: Context) -> str:
    """Asks the client's model"""
    message = types.SamplingMessage(role="user", content=types.TextContent(text=prompt))
    answer = await ctx.session.create_message([message], max_tokens=100, related_request_id=ctx.request_id)
    return answer.model_dump_json(by_alias=True, exclude_none=True)


@server.tool
async def roots(ctx: Context) -> str:
    """Asks the client for its roots"""
    related = ServerMessageMetadata(related_request_id=ctx.request_id)
    answer = await ctx.session.send_request(types.ListRootsRequest(), types.ListRootsResult, metadata=related)
    return answer.model_dump_json(by_alias=True, exclude_none=True)


@server.tool
async def log(ctx: Context) -> str:
    """Logs one message per level"""
    for level in LEVELS:
        await ctx.log(f"at {level}", level=level, logger_name="demo")
    return "logged"


@server.tool
def big(bytes: int) -> str:
    """Returns that many bytes of text"""
    return "x" * min(bytes, BIG_MAX)


@server.tool
async def toggle(ctx: Context) -> str:
    """Adds or removes a tool and announces it"""
    shown = extra_shown[ctx.session_id] = not extra_shown[ctx.session_id]
    change = ctx.enable_components if shown else ctx.disable_components
    await change(names={"extra"}, components={"tool"})
    return "added" if shown else "removed"


@server.tool
def extra() -> str:
    """Comes and goes with toggle"""
    return "extra"


@server.tool
def crash() -> str:
    """Ends the process in the middle of the call"""
    os._exit(70)


server.disable(names={"extra"}, components={"tool"})


@server.resource("fast://text", name="a text", mime_type="text/plain")
def plain() -> str:
    return "content of fast://text"


@server.resource("fast://binary", name="some bytes", mime_type="application/octet-stream")
def binary() -> bytes:
    return b"\x00\x01\x02\xff"


@server.resource("fast://item/{id}", name="item", mime_type="text/plain")
def item(id: str) -> str:
    return f"item {id}"


@server.prompt
def hello() -> str:
    """no arguments"""
    return "Hello."


@server.prompt
def greet(name: str) -> str:
    """greets somebody"""
    return f"Greet {name}."


@server.completion
async def complete(_reference, argument, _context) -> list[str]:
    return [name for name in NAMES if name.startswith(argument.value)]


if __name__ == "__main__":
    options = serving.arguments()
    if options.stdio:
        server.run(transport="stdio", show_banner=False)
    else:
        serving.serve(server.http_app(event_store=EventStore(), retry_interval=RETRY_MS), options.port)
