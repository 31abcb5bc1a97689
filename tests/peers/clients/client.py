"""Drives a server, or a gateway in front of several, with the Python SDK's second line: every feature once.

    client.py URL --target NAME[=PREFIX[,SCHEME]] [--target ...] [--only FEATURE,...] [--skip FEATURE=REASON]
              [--gateway] [--mode legacy|auto|modern] [--sse]
    client.py --stdio 'COMMAND ARGS' --target NAME[=PREFIX] [--mode ...]

NAME is a key of targets.json; PREFIX is what a federation puts before the target's tool and prompt names,
SCHEME that of a fixture's URIs when it was given one.
--gateway: an ended session must be answered 404, as the specification says, even where the target itself differs.
--mode: with `initialize` (default), by asking the server, or nothing but 2026-07-28.
--sse: the HTTP+SSE transport of 2024-11-05; URL is that of the stream.
"""

import contextlib
import shlex
import sys

import anyio
import features
import mcp_types as types
from mcp import StdioServerParameters
from mcp.client.client import Client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import PromptsListChanged, ResourcesListChanged, ResourceUpdated, ToolsListChanged
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

MODES = {"legacy": "legacy", "auto": "auto", "modern": "2026-07-28"}
LOG_LEVEL = "io.modelcontextprotocol/logLevel"
CHANGES = {
    "tools": (types.ToolListChangedNotification, ToolsListChanged),
    "prompts": (types.PromptListChangedNotification, PromptsListChanged),
    "resources": (types.ResourceListChangedNotification, ResourcesListChanged),
}


def plain(model):
    return model.model_dump(by_alias=True, mode="json", exclude_none=True)


class Session:
    """One connected client and everything that the server sent without being asked."""

    def __init__(self, options):
        self.options = options
        self.url, self.stdio, self.sse = options.url, bool(options.stdio), options.sse
        self.logs, self.updated = [], []
        self.changed = {"tools": 0, "prompts": 0, "resources": 0}
        self.session_id = self.http = self._level = None

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, options):
        self = cls(options)
        async with contextlib.AsyncExitStack() as stack:
            self.client = await stack.enter_async_context(
                Client(
                    await self._transport(stack),
                    mode=MODES[options.mode],
                    cache=None,
                    sampling_callback=self._sample,
                    sampling_capabilities=types.SamplingCapability(tools=types.SamplingToolsCapability()),
                    elicitation_callback=self._elicit,
                    list_roots_callback=self._roots,
                    logging_callback=self._log,
                    message_handler=self._notice,
                    client_info=types.Implementation(name="agentlane-driver-py", version="1.0.0"),
                )
            )
            self.modern = self.client.protocol_version in MODERN_PROTOCOL_VERSIONS
            if options.mode == "modern":
                # A pinned client does not ask by itself.
                raw = await self.client.session.send_discover(MODES["modern"])
                self.client.session.adopt(types.DiscoverResult.model_validate(raw))
            yield self

    async def _transport(self, stack):
        if self.stdio:
            command, *args = shlex.split(self.options.stdio)
            return StdioServerParameters(command=command, args=args)
        if self.sse:
            return sse_client(self.url)
        self.http = await stack.enter_async_context(create_mcp_http_client())
        self.http.event_hooks["response"].append(self._note_session)
        return streamable_http_client(self.url, http_client=self.http, max_sse_event_size=features.EVENT_BYTES_MAX)

    async def _note_session(self, response):
        self.session_id = response.headers.get("mcp-session-id", self.session_id)

    async def _sample(self, _context, params):
        return types.CreateMessageResult.model_validate(features.sampled(plain(params)))

    async def _elicit(self, _context, params):
        return types.ElicitResult.model_validate(features.elicited(plain(params)))

    async def _roots(self, _context):
        return types.ListRootsResult(roots=[types.Root(uri=features.ROOT, name="one")])

    async def _log(self, params):
        self.logs.append((params.level, params.data))

    async def _notice(self, message):
        if isinstance(message, types.ResourceUpdatedNotification):
            self.updated.append(str(message.params.uri))
        for kind, (change, _) in CHANGES.items():
            if isinstance(message, change):
                self.changed[kind] += 1

    def identity(self):
        info = self.client.server_info
        return info.name if info else "(unnamed)", plain(self.client.server_capabilities), self.client.protocol_version

    async def page(self, kind, cursor):
        method = {"templates": "resource_templates"}.get(kind, kind)
        result = await getattr(self.client, f"list_{method}")(cursor=cursor)
        return [plain(item) for item in getattr(result, method)], result.next_cursor

    async def call(self, name, arguments, progress):
        meta = {LOG_LEVEL: self._level} if self._level else None
        return plain(await self.client.call_tool(name, arguments, progress_callback=progress, meta=meta))

    async def prompt(self, name, arguments):
        return plain(await self.client.get_prompt(name, arguments))

    async def read(self, uri):
        return plain(await self.client.read_resource(uri))

    async def complete(self, prompt, argument, value):
        reference = types.PromptReference(name=prompt)
        return plain(await self.client.complete(reference, {"name": argument, "value": value}))

    async def ping(self):
        await self.client.send_ping()

    async def level(self, level):
        if self.modern:
            self._level = level
        else:
            await self.client.set_logging_level(level)

    @contextlib.asynccontextmanager
    async def watch(self, uri):
        if self.modern:
            async with self._listening(resource_subscriptions=[uri]):
                yield
        else:
            await self.client.subscribe_resource(uri)
            yield
            await self.client.unsubscribe_resource(uri)

    @contextlib.asynccontextmanager
    async def watch_lists(self):
        if self.modern:
            async with self._listening(tools_list_changed=True, prompts_list_changed=True, resources_list_changed=True):
                yield
        else:
            yield  # they arrive anyway

    @contextlib.asynccontextmanager
    async def _listening(self, **wanted):
        async with self.client.listen(**wanted) as changes, anyio.create_task_group() as group:
            group.start_soon(self._note_changes, changes)
            yield
            group.cancel_scope.cancel()

    async def _note_changes(self, changes):
        async for change in changes:
            if isinstance(change, ResourceUpdated):
                self.updated.append(change.uri)
            for kind, (_, event) in CHANGES.items():
                if isinstance(change, event):
                    self.changed[kind] += 1

    def reopened(self):
        return Session.open(self.options)


async def main():
    options = features.options(__doc__, ("--mode", {"choices": list(MODES), "default": "legacy"}))
    return await features.drive(options, Session.open)


if __name__ == "__main__":
    sys.exit(anyio.run(main))
