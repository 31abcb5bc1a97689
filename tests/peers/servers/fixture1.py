"""Conformance fixture on the Python SDK v1, revisions up to 2025-11-25: what fixture.json describes.

    fixture1.py [--port N] [--stdio] [--scheme NAME] [--cancelled FILE]

Handlers are put below the SDK's decorators, which would shape what fixture.json already says.
"""

import json

import anyio
import mcp.types as types
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.stdio import stdio_server
from mcp.shared.exceptions import McpError
from mcp.shared.message import ServerMessageMetadata
from pydantic import AnyUrl

import dialog
import offer
import serving
import sessions

NOT_FOUND = -32002
ASKED = {
    "elicitation/create": (types.ElicitRequest, types.ElicitResult),
    "sampling/createMessage": (types.CreateMessageRequest, types.CreateMessageResultWithTools),
    "roots/list": (types.ListRootsRequest, types.ListRootsResult),
}
SESSIONS = offer.Sessions()  # by the identity of the SDK's object, which `channel` keeps alive


class Fixture(Server):
    """Announces that its lists change, and that it takes subscriptions."""

    def create_initialization_options(self, notification_options=None, *args, **kwargs):
        changes = notification_options or NotificationOptions(True, True, True)
        options = super().create_initialization_options(changes, *args, **kwargs)
        options.capabilities.resources.subscribe = True
        return options

    async def _handle_message(self, message, session, *more, **options):
        """Sees sessions that only listen too: their first message is `initialized`."""
        SESSIONS[id(session)].channel = session
        await super()._handle_message(message, session, *more, **options)


SERVER = Fixture("fixture-py1", version="1.0.0", instructions=offer.INSTRUCTIONS)


def session() -> offer.Session:
    """That of the request being handled."""
    return SESSIONS[id(SERVER.request_context.session)]


def dumped(model) -> dict:
    return model.model_dump(by_alias=True, mode="json", exclude_none=True) if model else {}


class Reach(offer.Call):
    """How a running tool reaches its client."""

    def __init__(self):
        self.ctx = SERVER.request_context
        self.token = self.ctx.meta.progressToken if self.ctx.meta else None

    async def converse(self, talk, arguments):
        """Sends requests to the client: those of a round at once, round after round."""
        capabilities = dumped(self.ctx.session.client_params.capabilities)
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
        kind, result = ASKED[request["method"]]
        params = request.get("params", {})
        if params.get("mode") == "url":
            params = {**params, "elicitationId": "fixture"}
        message = types.ServerRequest(kind.model_validate({**request, "params": params}))
        related = ServerMessageMetadata(related_request_id=self.ctx.request_id)
        return await self.ctx.session.send_request(message, result, metadata=related)

    async def log(self, level, data):
        if offer.LEVELS.index(level) >= offer.LEVELS.index(session().level):
            await self.ctx.session.send_log_message(level, data, "fixture", related_request_id=self.ctx.request_id)

    async def progress(self, value, total, message=None):
        if self.token is not None:
            related = str(self.ctx.request_id)
            await self.ctx.session.send_progress_notification(self.token, value, total, message, related)

    async def close_stream(self):
        if self.ctx.close_sse_stream:
            await self.ctx.close_sse_stream()

    async def changed(self, kind):
        if kind == "tools":
            await SESSIONS.announce(lambda channel: channel.send_tool_list_changed())
        else:
            await SESSIONS.announce(lambda channel: channel.send_prompt_list_changed())

    async def updated(self, uri):
        return await SESSIONS.announce(lambda channel: channel.send_resource_updated(AnyUrl(uri)), uri)


async def call_tool(params):
    return await offer.call_tool(params.name, params.arguments or {}, Reach())


async def get_prompt(params):
    return await offer.prompt(params.name, params.arguments or {}, Reach())


async def read_resource(params):
    return offer.read(str(params.uri), NOT_FOUND)


async def complete(params):
    return offer.complete(params.argument.value)


async def set_level(params):
    session().level = params.level
    return {}


async def subscribe(params):
    session().subscribed.add(str(params.uri))
    return {}


async def unsubscribe(params):
    session().subscribed.discard(str(params.uri))
    return {}


def listing(list_of):
    async def handle(_params):
        return list_of()

    return handle


HANDLERS = [
    (types.ListToolsRequest, types.ListToolsResult, listing(offer.list_tools)),
    (types.CallToolRequest, types.CallToolResult, call_tool),
    (types.ListResourcesRequest, types.ListResourcesResult, listing(offer.list_resources)),
    (types.ListResourceTemplatesRequest, types.ListResourceTemplatesResult, listing(offer.list_templates)),
    (types.ReadResourceRequest, types.ReadResourceResult, read_resource),
    (types.SubscribeRequest, types.EmptyResult, subscribe),
    (types.UnsubscribeRequest, types.EmptyResult, unsubscribe),
    (types.ListPromptsRequest, types.ListPromptsResult, listing(offer.list_prompts)),
    (types.GetPromptRequest, types.GetPromptResult, get_prompt),
    (types.CompleteRequest, types.CompleteResult, complete),
    (types.SetLevelRequest, types.EmptyResult, set_level),
]


def install(request, result, handler):
    async def handle(message):
        try:
            return types.ServerResult(result.model_validate(await handler(message.params)))
        except offer.Refusal as refusal:
            data = types.ErrorData(code=refusal.code, message=refusal.message, data=refusal.data)
            raise McpError(data) from None

    SERVER.request_handlers[request] = handle


async def run_stdio() -> None:
    async with stdio_server() as (reader, writer):
        await SERVER.run(reader, writer, SERVER.create_initialization_options())


if __name__ == "__main__":
    for entry in HANDLERS:
        install(*entry)
    options = serving.arguments(offer.options)
    offer.prepare(options)
    if options.stdio:
        anyio.run(run_stdio)
    else:
        serving.serve(sessions.http_app(SERVER), options.port)
