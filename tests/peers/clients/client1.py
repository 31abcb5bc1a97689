"""Drives a server, or a gateway in front of several, with the Python SDK's first line: every feature once.

    client1.py URL --target NAME[=PREFIX] [...] [--sse]
    client1.py --stdio 'COMMAND ARGS' --target NAME[=PREFIX]

Options are those of client.py, without --mode: this line knows no revision after 2025-11-25.
"""

import contextlib
import shlex
import sys

import anyio
import features
import mcp.types as types
from mcp import ClientSession, StdioServerParameters
from mcp.client.sse import sse_client
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from pydantic import AnyUrl

CHANGES = {
    "tools": types.ToolListChangedNotification,
    "prompts": types.PromptListChangedNotification,
    "resources": types.ResourceListChangedNotification,
}


def plain(model):
    return model.model_dump(by_alias=True, mode="json", exclude_none=True)


class Session:
    """One connected client and everything that the server sent without being asked."""

    modern = False

    def __init__(self, options):
        self.options = options
        self.url, self.stdio, self.sse = options.url, bool(options.stdio), options.sse
        self.logs, self.updated = [], []
        self.changed = {"tools": 0, "prompts": 0, "resources": 0}
        self.session_id = self.http = None

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, options):
        self = cls(options)
        async with contextlib.AsyncExitStack() as stack:
            reader, writer = await self._streams(stack)
            self.client = await stack.enter_async_context(
                ClientSession(
                    reader,
                    writer,
                    sampling_callback=self._sample,
                    sampling_capabilities=types.SamplingCapability(tools=types.SamplingToolsCapability()),
                    elicitation_callback=self._elicit,
                    list_roots_callback=self._roots,
                    logging_callback=self._log,
                    message_handler=self._notice,
                    client_info=types.Implementation(name="agentlane-driver-py1", version="1.0.0"),
                )
            )
            self.hello = await self.client.initialize()
            yield self

    async def _streams(self, stack):
        if self.stdio:
            command, *args = shlex.split(self.options.stdio)
            return await stack.enter_async_context(stdio_client(StdioServerParameters(command=command, args=args)))
        if self.sse:
            return await stack.enter_async_context(sse_client(self.url))
        self.http = await stack.enter_async_context(create_mcp_http_client())
        self.http.event_hooks["response"].append(self._note_session)
        streams = await stack.enter_async_context(streamable_http_client(self.url, http_client=self.http))
        return streams[:2]

    async def _note_session(self, response):
        self.session_id = response.headers.get("mcp-session-id", self.session_id)

    async def _sample(self, _context, params):
        return types.CreateMessageResult.model_validate(features.sampled(plain(params)))

    async def _elicit(self, _context, params):
        return types.ElicitResult.model_validate(features.elicited(plain(params)))

    async def _roots(self, _context):
        return types.ListRootsResult(roots=[types.Root(uri=AnyUrl(features.ROOT), name="one")])

    async def _log(self, params):
        self.logs.append((params.level, params.data))

    async def _notice(self, message):
        notification = getattr(message, "root", message)
        if isinstance(notification, types.ResourceUpdatedNotification):
            self.updated.append(str(notification.params.uri))
        for kind, change in CHANGES.items():
            if isinstance(notification, change):
                self.changed[kind] += 1

    def identity(self):
        return self.hello.serverInfo.name, plain(self.hello.capabilities), self.hello.protocolVersion

    async def page(self, kind, cursor):
        method, key = {"templates": ("resource_templates", "resourceTemplates")}.get(kind, (kind, kind))
        params = types.PaginatedRequestParams(cursor=cursor) if cursor is not None else None
        result = await getattr(self.client, f"list_{method}")(params=params)
        return [plain(item) for item in getattr(result, key)], result.nextCursor

    async def call(self, name, arguments, progress):
        request_id = self.client._request_id
        try:
            return plain(await self.client.call_tool(name, arguments, progress_callback=progress))
        except anyio.get_cancelled_exc_class():
            # This line leaves it to its user to tell the server.
            with anyio.CancelScope(shield=True):
                params = types.CancelledNotificationParams(requestId=request_id)
                notification = types.CancelledNotification(params=params)
                await self.client.send_notification(types.ClientNotification(notification))
            raise

    async def prompt(self, name, arguments):
        return plain(await self.client.get_prompt(name, arguments))

    async def read(self, uri):
        return plain(await self.client.read_resource(AnyUrl(uri)))

    async def complete(self, prompt, argument, value):
        reference = types.PromptReference(type="ref/prompt", name=prompt)
        return plain(await self.client.complete(reference, {"name": argument, "value": value}))

    async def ping(self):
        await self.client.send_ping()

    async def level(self, level):
        await self.client.set_logging_level(level)

    @contextlib.asynccontextmanager
    async def watch(self, uri):
        await self.client.subscribe_resource(AnyUrl(uri))
        yield
        await self.client.unsubscribe_resource(AnyUrl(uri))

    @contextlib.asynccontextmanager
    async def watch_lists(self):
        yield  # they arrive anyway

    def reopened(self):
        return Session.open(self.options)


async def main():
    return await features.drive(features.options(__doc__), Session.open)


if __name__ == "__main__":
    sys.exit(anyio.run(main))
