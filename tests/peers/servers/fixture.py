"""Conformance fixture on the Python SDK v2: offers what fixture.json says, in both eras.

    fixture.py [--port N] [--stdio] [--era both|modern|legacy] [--scheme NAME] [--cancelled FILE]

modern: answers nothing but 2026-07-28. legacy: knows no other revisions than those with `initialize`.
"""

import json
import sys

import anyio
import mcp_types as types
import serving  # first: it silences the SDK's deprecations
from mcp.server.caching import CacheHint
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.runner import serve_loop
from mcp.server.stdio import stdio_server
from mcp.server.subscriptions import (
    InMemorySubscriptionBus,
    ListenHandler,
    PromptsListChanged,
    ResourceUpdated,
    ToolsListChanged,
)
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ServerMessageMetadata
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS
from starlette.responses import JSONResponse

import dialog
import offer
import sessions

MISSING_CAPABILITY = -32021
UNSUPPORTED_VERSION = -32022
NOT_FOUND = {True: -32602, False: -32002}  # by whether the era is modern
CACHED = ["server/discover", "tools/list", "prompts/list", "resources/list", "resources/templates/list", "resources/read"]
RELATED = {
    "elicitation/create": (types.ElicitRequest, types.ElicitResult),
    "sampling/createMessage": (types.CreateMessageRequest, types.CreateMessageResultWithTools),
    "roots/list": (types.ListRootsRequest, types.ListRootsResult),
}
BUS = InMemorySubscriptionBus()
SESSIONS = offer.Sessions()


def modern(ctx) -> bool:
    return ctx.protocol_version in MODERN_PROTOCOL_VERSIONS


def session(ctx) -> offer.Session:
    """The session of a request with `initialize`."""
    mine = SESSIONS[ctx.request.headers.get("mcp-session-id", "") if ctx.request else "stdio"]
    mine.channel = ctx.session
    return mine


def declared(ctx) -> dict:
    capabilities = ctx.session.client_capabilities
    return capabilities.model_dump(by_alias=True, mode="json", exclude_none=True) if capabilities else {}


class Reach(offer.Call):
    """How a running tool reaches its client; `params` are those of the request."""

    def __init__(self, ctx, params):
        self.ctx, self.params = ctx, params
        self.token = (ctx.meta or {}).get("progress_token")

    async def converse(self, talk, arguments):
        return await (self._ask_back if modern(self.ctx) else self._ask)(talk, arguments)

    async def _ask_back(self, talk, arguments):
        """Answers with what is still asked, as the era without sessions has it."""
        try:
            given = dialog.unseal(self.params.request_state) if self.params.request_state else None
        except ValueError as wrong:
            raise MCPError(types.INVALID_PARAMS, str(wrong)) from None
        answers = {key: dumped(answer) for key, answer in (self.params.input_responses or {}).items()}
        capabilities = declared(self.ctx)
        asked, after, text = dialog.advance(talk, arguments, capabilities, given, answers)
        if asked is None:
            return text
        for request in asked.values():
            if not dialog.allowed(request, capabilities):
                missing = {"requiredCapabilities": dialog.needed(request)}
                raise MCPError(MISSING_CAPABILITY, f"{request['method']} is not declared", missing)
        sealed = {"requestState": dialog.seal(after)} if talk.get("state") else {}
        return {"resultType": "input_required", "inputRequests": asked, **sealed}

    async def _ask(self, talk, arguments):
        """Sends requests to the client: those of a round at once, round after round."""
        capabilities = declared(self.ctx)
        asked, after, text = dialog.advance(talk, arguments, capabilities)
        while asked is not None:
            for request in asked.values():
                if not dialog.allowed(request, capabilities):
                    return offer.failure(f"client does not support {json.dumps(dialog.needed(request))}")
            answers = {}

            async def ask(key, request, answers=answers):
                answers[key] = dumped(await self._send(request))

            async with anyio.create_task_group() as group:
                for key, request in asked.items():
                    group.start_soon(ask, key, request)
            asked, after, text = dialog.advance(talk, arguments, capabilities, after, answers)
        return text

    async def _send(self, request):
        kind, result = RELATED[request["method"]]
        message = kind.model_validate({**request, "params": with_id(request)}, by_name=False)
        related = ServerMessageMetadata(related_request_id=self.ctx.request_id)
        return await self.ctx.session.send_request(message, result, metadata=related)

    async def log(self, level, data):
        if modern(self.ctx) or offer.LEVELS.index(level) >= offer.LEVELS.index(session(self.ctx).level):
            await self.ctx.session.send_log_message(level, data, "fixture", related_request_id=self.ctx.request_id)

    async def progress(self, value, total, message=None):
        await self.ctx.session.report_progress(value, total, message)

    async def close_stream(self):
        if self.ctx.close_sse_stream:
            await self.ctx.close_sse_stream()

    async def changed(self, kind):
        await BUS.publish({"tools": ToolsListChanged, "prompts": PromptsListChanged}[kind]())
        if kind == "tools":
            await SESSIONS.announce(lambda channel: channel.send_tool_list_changed())
        else:
            await SESSIONS.announce(lambda channel: channel.send_prompt_list_changed())

    async def updated(self, uri):
        await BUS.publish(ResourceUpdated(uri=uri))
        return await SESSIONS.announce(lambda channel: channel.send_resource_updated(uri), uri) or modern(self.ctx)


def dumped(answer) -> dict:
    return answer.model_dump(by_alias=True, mode="json", exclude_none=True) if hasattr(answer, "model_dump") else answer


def with_id(request) -> dict:
    """Legacy elicitations by URL have an id."""
    params = request.get("params", {})
    return {**params, "elicitationId": "fixture"} if params.get("mode") == "url" else params


def served(handler):
    """Turns a refusal into the SDK's error, and says of a result what every result must say in the modern era."""

    async def handle(ctx, params):
        if not modern(ctx):
            session(ctx)
        try:
            result = await handler(ctx, params)
        except offer.Refusal as refusal:
            raise MCPError(refusal.code, refusal.message, refusal.data) from None
        return {"resultType": "complete", **result} if modern(ctx) else result

    return handle


@served
async def list_tools(_ctx, _):
    return offer.list_tools()


@served
async def call_tool(ctx, params):
    return await offer.call_tool(params.name, params.arguments or {}, Reach(ctx, params))


@served
async def list_resources(_ctx, _):
    return offer.list_resources()


@served
async def list_templates(_ctx, _):
    return offer.list_templates()


@served
async def read_resource(ctx, params):
    return offer.read(str(params.uri), NOT_FOUND[modern(ctx)])


async def subscribe(ctx, params):
    session(ctx).subscribed.add(str(params.uri))
    return {}


async def unsubscribe(ctx, params):
    session(ctx).subscribed.discard(str(params.uri))
    return {}


async def set_level(ctx, params):
    session(ctx).level = params.level
    return {}


@served
async def complete(_ctx, params):
    return offer.complete(params.argument.value)


@served
async def list_prompts(_ctx, _):
    return offer.list_prompts()


@served
async def get_prompt(ctx, params):
    return await offer.prompt(params.name, params.arguments or {}, Reach(ctx, params))


class Fixture(Server):
    """Announces that its lists change."""

    def create_initialization_options(self, notification_options=None, *args, **kwargs):
        changes = notification_options or NotificationOptions(True, True, True)
        return super().create_initialization_options(changes, *args, **kwargs)


SERVER = Fixture(
    "fixture-py",
    version="1.0.0",
    instructions=offer.INSTRUCTIONS,
    cache_hints={method: CacheHint(scope="public") for method in CACHED},
    on_list_tools=list_tools,
    on_call_tool=call_tool,
    on_list_resources=list_resources,
    on_list_resource_templates=list_templates,
    on_read_resource=read_resource,
    on_subscribe_resource=subscribe,
    on_unsubscribe_resource=unsubscribe,
    on_subscriptions_listen=ListenHandler(BUS),
    on_list_prompts=list_prompts,
    on_get_prompt=get_prompt,
    on_completion=complete,
    on_set_logging_level=set_level,
)


async def initialized(ctx, _):
    """A session that only listens makes no request ever."""
    session(ctx)


SERVER.add_notification_handler("notifications/initialized", types.NotificationParams, initialized)


class OneEra:
    """Refuses whatever belongs to the other era, as a server would that does not know it."""

    def __init__(self, app, era):
        self.app, self.era = app, era

    async def __call__(self, scope, receive, send):
        headers = dict(scope.get("headers", []))
        version = headers.get(b"mcp-protocol-version", b"").decode("latin-1")
        is_modern = version != "" and version not in HANDSHAKE_PROTOCOL_VERSIONS
        if scope["type"] == "http" and is_modern != (self.era == "modern"):
            return await self.refusal(scope["method"], version)(scope, receive, send)
        await self.app(scope, receive, send)

    def refusal(self, method, version):
        if self.era == "legacy":
            error = {"code": -32000, "message": "Bad Request: unsupported protocol version"}
        elif method == "POST":
            data = {"supported": list(MODERN_PROTOCOL_VERSIONS), "requested": version}
            error = {"code": UNSUPPORTED_VERSION, "message": "unsupported protocol version", "data": data}
        else:
            return JSONResponse({}, 405, {"allow": "POST"})
        return JSONResponse({"jsonrpc": "2.0", "error": error}, 400)


async def only_modern(ctx, call_next):
    """Refuses what has no modern envelope, on standard input."""
    if not modern(ctx):
        data = {"supported": list(MODERN_PROTOCOL_VERSIONS), "requested": ctx.protocol_version or ""}
        raise MCPError(UNSUPPORTED_VERSION, "unsupported protocol version", data)
    return await call_next(ctx)


async def run_stdio(era: str) -> None:
    if era == "modern":
        SERVER.middleware.append(only_modern)
    async with stdio_server() as (reader, writer):
        offers = SERVER.create_initialization_options()
        if era == "legacy":
            await serve_loop(SERVER, reader, writer, lifespan_state={}, init_options=offers)
        else:
            await SERVER.run(reader, writer, offers)


if __name__ == "__main__":
    options = serving.arguments(offer.options, eras=True)
    offer.prepare(options)
    if options.stdio:
        sys.exit(anyio.run(run_stdio, options.era))
    in_front = (lambda app: app) if options.era == "both" else (lambda app: OneEra(app, options.era))
    serving.serve(sessions.http_app(SERVER, in_front), options.port)
