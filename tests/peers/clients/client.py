"""Drives a server, or a gateway in front of several, with the official Python client: every feature once.

    client.py URL --target NAME[=PREFIX] [--target ...] [--only FEATURE,...] [--skip FEATURE=REASON] [--gateway]
              [--mode legacy|auto]
    client.py --stdio 'COMMAND ARGS' --target NAME[=PREFIX]
    client.py URL --sse ...                   over HTTP+SSE of 2024-11-05; URL is the stream's

NAME is a key of targets.json; PREFIX is what a federation puts before the target's tool and prompt names.
--gateway: an ended session must be answered 404, as the specification says, even where the target itself differs.
--mode auto: probe for the newest revision first, as this client does by default.
Prints one JSON line per feature, `{"feature", "ok", "detail"}` or `{"feature", "skipped"}`, then
`N passed, N failed, N skipped`. Exit code 1 if anything failed.
"""

import argparse
import contextlib
import json
import pathlib
import re
import shlex
import sys
import time
import warnings

import anyio
import mcp_types as types
from mcp import StdioServerParameters
from mcp.client.client import Client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.shared.exceptions import MCPDeprecationWarning, MCPError

# Roots, sampling and logging are deprecated by the newest revision, and exactly what is driven here.
warnings.filterwarnings("ignore", category=MCPDeprecationWarning)

WAIT_S = 5  # for anything that must arrive
QUIET_S = 0.3  # for anything that must not
PARALLEL = 20
LARGE_BYTES = 3 << 20
EVENT_BYTES_MAX = 8 << 20  # the client's own limit is 1 MiB by default
PAGES_MAX = 100
ROOT = "file:///project/one"
TARGETS = json.loads(pathlib.Path(__file__).with_name("targets.json").read_text())


class Failed(Exception):
    """A feature does not do what it should."""


class Session:
    """One connected client and everything that the server sent without being asked."""

    def __init__(self, options):
        self.options = options
        self.logs, self.updated = [], []
        self.changed = {"tools": 0, "prompts": 0, "resources": 0}
        self.session_id = None
        self.http = None

    @contextlib.asynccontextmanager
    async def open(self):
        async with contextlib.AsyncExitStack() as stack:
            if self.options.stdio:
                command, *args = shlex.split(self.options.stdio)
                transport = StdioServerParameters(command=command, args=args)
            elif self.options.sse:
                transport = sse_client(self.options.url)
            else:
                self.http = await stack.enter_async_context(create_mcp_http_client())
                self.http.event_hooks["response"].append(self._note_session)
                transport = streamable_http_client(
                    self.options.url, http_client=self.http, max_sse_event_size=EVENT_BYTES_MAX
                )
            self.client = await stack.enter_async_context(
                Client(
                    transport,
                    mode=self.options.mode,
                    cache=None,
                    sampling_callback=self._sample,
                    elicitation_callback=self._elicit,
                    list_roots_callback=self._roots,
                    logging_callback=self._log,
                    message_handler=self._notice,
                    client_info=types.Implementation(name="agentlane-driver-py", version="1.0.0"),
                )
            )
            yield self

    async def _note_session(self, response):
        self.session_id = response.headers.get("mcp-session-id", self.session_id)

    async def _sample(self, _context, params):
        content = params.messages[-1].content
        block = content[0] if isinstance(content, list) else content
        answer = types.TextContent(text=f"reply to {block.text}")
        return types.CreateMessageResult(role="assistant", model="driver", content=answer)

    async def _elicit(self, _context, params):
        required = params.requested_schema.get("required", [])
        return types.ElicitResult(action="accept", content={name: f"answer to {params.message}" for name in required})

    async def _roots(self, _context):
        return types.ListRootsResult(roots=[types.Root(uri=ROOT, name="one")])

    async def _log(self, params):
        self.logs.append(params)

    async def _notice(self, message):
        if isinstance(message, types.ResourceUpdatedNotification):
            self.updated.append(str(message.params.uri))
        for kind, change in CHANGES.items():
            if isinstance(message, change):
                self.changed[kind] += 1

    async def all(self, method, key):
        """Every item of a list, all pages, and the number of pages."""
        items, cursor = [], None
        for page in range(1, PAGES_MAX + 1):
            result = await getattr(self.client, method)(cursor=cursor)
            items += getattr(result, key)
            cursor = result.next_cursor
            if cursor is None:
                return items, page
        raise Failed(f"more than {PAGES_MAX} pages")

    async def tools(self):
        return await self.all("list_tools", "tools")

    async def uris(self):
        items, pages = await self.all("list_resources", "resources")
        return [str(item.uri) for item in items], pages

    async def templates(self):
        items, pages = await self.all("list_resource_templates", "resource_templates")
        return [item.uri_template for item in items], pages

    async def call(self, name, arguments=None, **options):
        result = await self.client.call_tool(name, arguments or {}, **options)
        if result.is_error:
            raise Failed(f"{name}: {text_of(result.content)}")
        return result

    async def text(self, name, arguments=None):
        return text_of((await self.call(name, arguments)).content)

    def headers(self, **more):
        return {
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            "mcp-protocol-version": self.client.protocol_version,
            "mcp-session-id": self.session_id,
            **more,
        }


CHANGES = {
    "tools": types.ToolListChangedNotification,
    "prompts": types.PromptListChangedNotification,
    "resources": types.ResourceListChangedNotification,
}


def text_of(content):
    return "\n".join(getattr(block, "text", "") for block in content)


def expect(condition, message):
    if not condition:
        raise Failed(message)


def contains(haystack, needle):
    expect(needle in haystack, f"{haystack[:300]!r} does not contain {needle!r}")


def same(actual, expected):
    expect(actual == expected, f"got {actual}, expected {expected}")


async def until(ready, what):
    """Waits until the async `ready` answers true."""
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        if await ready():
            return
        await anyio.sleep(0.02)
    raise Failed(f"{what} did not happen within {WAIT_S} s")


def offered(uris, uri):
    """The URI under which a federation offers `uri`: unchanged, or an own one that ends in the same path."""
    if uri in uris:
        return uri
    found = next((candidate for candidate in uris if candidate.endswith(uri.split("://")[1])), None)
    expect(found, f"{uri} is not among {uris}")
    return found


# The features of one target: each gets the session, the target's entry of targets.json and its naming function,
# and returns a detail for the report.


async def initialize(session, _target, _named):
    capabilities = session.client.server_capabilities
    for part in ("tools", "prompts", "resources", "logging", "completions"):
        expect(getattr(capabilities, part) is not None, f"capability {part} is missing")
    return f"{session.client.server_info.name} at {session.client.protocol_version}"


async def ping(session, _target, _named):
    await session.client.send_ping()


async def tools(session, target, named):
    items, pages = await session.tools()
    names = [item.name for item in items]
    same(len(set(names)), len(names))
    missing = [named(name) for name in target["tools"] if named(name) not in names]
    expect(not missing, f"tools {missing} are missing in {names}")
    return f"{len(names)} tools in {pages} pages"


async def prompts(session, target, named):
    items, pages = await session.all("list_prompts", "prompts")
    names = [item.name for item in items]
    missing = [named(name) for name in target["prompts"] if named(name) not in names]
    expect(not missing, f"prompts {missing} are missing in {names}")
    return f"{len(names)} prompts in {pages} pages"


async def resources(session, target, _named):
    uris, pages = await session.uris()
    for uri in target["resources"]:
        offered(uris, uri)
    return f"{len(uris)} resources in {pages} pages"


async def templates(session, target, _named):
    found, pages = await session.templates()
    for template in target["templates"]:
        offered(found, template)
    return f"{len(found)} templates in {pages} pages"


async def call(session, target, named):
    about = target["call"]
    words = "zażółć 🦀"
    text = await session.text(named(about["tool"]), {about["argument"]: words} if "argument" in about else {})
    contains(text, about["text"])
    if "argument" in about:
        contains(text, words)


async def unknown_tool(session, _target, named):
    try:
        await session.call(named("no_such_tool"))
    except (Failed, MCPError) as error:
        return str(error)[:80]
    raise Failed("a call of an unknown tool succeeded")


async def structured(session, target, named):
    about = target["structured"]
    result = await session.call(named(about["tool"]), about["arguments"])
    missing = [key for key in about["keys"] if key not in (result.structured_content or {})]
    expect(not missing, f"{missing} are missing in {result.structured_content}")
    return json.dumps(result.structured_content)


async def parallel(session, target, named):
    about = target["call"]

    async def one(index):
        words = f"call {index}."
        given = {about["argument"]: words} if "argument" in about else {}
        contains(await session.text(named(about["tool"]), given), words if given else about["text"])

    async with anyio.create_task_group() as group:
        for index in range(PARALLEL):
            group.start_soon(one, index)
    return f"{PARALLEL} calls"


async def large(session, target, named):
    about = target["large"]
    same(len(await session.text(named(about["tool"]), {about["argument"]: LARGE_BYTES})), LARGE_BYTES)


async def progress(session, target, named):
    about = target["progress"]
    seen = []

    async def note(value, _total, _message):
        seen.append(value)

    await session.call(named(about["tool"]), about["arguments"], progress_callback=note)
    same(seen, list(range(1, about["steps"] + 1)))


async def prompt(session, target, named):
    about = target["prompt"]
    result = await session.client.get_prompt(named(about["name"]), about["arguments"])
    contains(text_of([message.content for message in result.messages]), about["text"])


async def read(session, target, _named):
    uri = offered((await session.uris())[0], target["read"]["uri"])
    contents = (await session.client.read_resource(uri)).contents
    same(str(contents[0].uri), uri)
    contains(contents[0].text, target["read"]["text"])
    return uri


async def template(session, target, _named):
    about = target["template"]
    uri = re.sub(r"\{\w+\}", about["value"], offered((await session.templates())[0], about["template"]))
    contains((await session.client.read_resource(uri)).contents[0].text, about["text"])
    return uri


async def completion(session, target, named):
    about = target["completion"]
    reference = types.PromptReference(name=named(about["prompt"]))
    answer = await session.client.complete(reference, {"name": about["argument"], "value": about["value"]})
    same(answer.completion.values, about["values"])


async def sampling(session, target, named):
    about = target["sampling"]
    text = await session.text(named(about["tool"]), about["arguments"])
    contains(text, "reply to")
    contains(text, about["text"])


async def elicitation(session, target, named):
    about = target["elicitation"]
    contains(await session.text(named(about["tool"]), about["arguments"]), about["text"])


async def roots(session, target, named):
    about = target["roots"]
    contains(await session.text(named(about["tool"]), about["arguments"]), ROOT)


async def logging(session, target, named):
    about = target["logging"]

    def levels():
        return [log.level for log in session.logs if about["match"] in json.dumps(log.data)]

    for level, expected in (("error", about["quiet"]), ("info", about["loud"])):
        await session.client.set_logging_level(level)
        session.logs.clear()
        if "tool" in about:
            await session.call(named(about["tool"]))
        else:
            uri = offered((await session.uris())[0], about["subscribe"])
            await session.client.subscribe_resource(uri)
            await session.client.unsubscribe_resource(uri)

        async def enough():
            return len(levels()) >= len(expected)

        await until(enough, f"{len(expected)} log messages at {level}")
        await anyio.sleep(QUIET_S)
        same(levels(), expected)


async def subscription(session, target, named):
    about = target["subscription"]
    uri = offered((await session.uris())[0], about["uri"])
    await session.client.subscribe_resource(uri)
    session.updated.clear()
    await session.call(named(about["tool"]))

    async def updated():
        return uri in session.updated

    await until(updated, f"notifications/resources/updated of {uri}")
    if "stop" in about:
        await session.call(named(about["stop"]))
    await session.client.unsubscribe_resource(uri)
    session.updated.clear()
    await session.call(named(about["tool"]))
    await anyio.sleep(QUIET_S)
    same(session.updated, [])
    if "stop" in about:
        await session.call(named(about["stop"]))


async def cancellation(session, target, named):
    about, observe = target["cancellation"], target["cancellation"].get("observe")

    async def seen():
        return int(await session.text(named(observe)))

    before = await seen() if observe else 0
    answered = False
    async with anyio.create_task_group() as group:

        async def note(_value, _total, _message):
            group.cancel_scope.cancel()

        await session.call(named(about["tool"]), about["arguments"], progress_callback=note)
        answered = True
    expect(not answered, "the cancelled call was answered")

    async def observed():
        return await seen() == before + 1

    if observe:
        await until(observed, "a cancellation seen by the server")
    await call(session, target, named)
    return "observed by the server" if observe else "the server does not tell; the session goes on"


async def list_changed(session, target, named):
    about = target["list_changed"]
    kind = about["kind"]

    async def there():
        if kind == "resources":
            return any(about["appears"] in uri for uri in (await session.uris())[0])
        return named(about["appears"]) in [item.name for item in (await session.tools())[0]]

    expect(not await there(), f"{about['appears']} is there before")
    for wanted in (True, False) if about.get("again") else (True,):
        before = session.changed[kind]

        async def announced():
            return session.changed[kind] > before

        async def listed():
            return await there() == wanted

        await session.call(named(about["tool"]), about["arguments"])
        await until(announced, f"notifications/{kind}/list_changed")
        await until(listed, f"{about['appears']} {'appears' if wanted else 'goes'}")


async def resume(session, target, named):
    about = target["resume"]
    request = "resumed call"
    params = {"name": named(about["tool"]), "arguments": about["arguments"], "_meta": {"progressToken": "resumed"}}
    body = {"jsonrpc": "2.0", "id": request, "method": "tools/call", "params": params}
    last = None
    url = session.options.url
    async with session.http.stream("POST", url, headers=session.headers(), json=body) as response:
        async for event_id, data in events(response):
            expect(not data or json.loads(data).get("id") != request, "answered before the stream could be cut")
            last = event_id
            if last is not None:
                break
    expect(last is not None, "no event id before the stream ended")
    await anyio.sleep(about.get("wait_s", 0))
    headers = session.headers(accept="text/event-stream", **{"last-event-id": last})
    with anyio.fail_after(WAIT_S):
        async with session.http.stream("GET", url, headers=headers) as response:
            same(response.status_code, 200)
            async for _, data in events(response):
                answer = json.loads(data) if data else {}
                if answer.get("id") == request:
                    contains("\n".join(block.get("text", "") for block in answer["result"]["content"]), about["text"])
                    return f"resumed after event {last}"
    raise Failed("the resumed stream ended without the answer")


async def events(response):
    """`(id, data)` of every event of a stream."""
    expect(response.headers["content-type"].startswith("text/event-stream"), "not an event stream")
    event_id, data = None, []
    async for line in response.aiter_lines():
        if line.startswith("id:"):
            event_id = line[3:].strip()
        elif line.startswith("data:"):
            data.append(line[5:].strip())
        elif not line and (event_id is not None or data):
            yield event_id, "\n".join(data)
            event_id, data = None, []


FEATURES = [
    initialize, ping, tools, prompts, resources, templates, call, unknown_tool, structured, parallel, large, progress,
    prompt, read, template, completion, sampling, elicitation, roots, logging, subscription, cancellation,
    list_changed, resume,
]  # fmt: skip


async def together(session, targets):
    """Sampling, elicitation, roots and progress of all targets at the same time: nothing may reach the wrong one."""
    kinds = [sampling, elicitation, roots, progress, parallel]
    async with anyio.create_task_group() as group:
        for target in targets:
            for feature in kinds:
                group.start_soon(feature, session, target, target["named"])
    return f"{len(kinds) * len(targets)} features of {len(targets)} targets at once"


async def session_end(session, targets):
    """Ends the session; whoever still uses it gets 404 and a client can start anew."""
    options, old = session.options, session.session_id
    expect(old, "no session id")
    await session.http.delete(options.url, headers=session.headers())
    body = {"jsonrpc": "2.0", "id": "after the end", "method": "ping"}
    answer = await session.http.post(options.url, headers=session.headers(), json=body)
    same(answer.status_code, 404 if options.gateway else targets[0]["ended_status"])
    try:
        await session.client.send_ping()
        raise Failed("the client did not notice that its session has ended")
    except MCPError as error:
        detail = str(error)
    async with Session(options).open() as fresh:
        expect(fresh.session_id != old, "the session id was given again")
        await tools(fresh, targets[0], targets[0]["named"])
    return detail


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", nargs="?")
    parser.add_argument("--target", action="append", required=True)
    parser.add_argument("--only", type=lambda names: names.split(","))
    parser.add_argument("--skip", action="append", default=[])
    parser.add_argument("--stdio")
    parser.add_argument("--sse", action="store_true")
    parser.add_argument("--gateway", action="store_true")
    parser.add_argument("--mode", choices=["legacy", "auto"], default="legacy")
    return parser.parse_args()


def chosen(given):
    name, _, prefix = given.partition("=")
    return {**TARGETS[name], "label": prefix or name, "named": lambda own: prefix + own}


def innermost(error):
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


async def main():
    options = arguments()
    targets = [chosen(given) for given in options.target]
    skipped = dict(entry.split("=", 1) for entry in options.skip)
    # One channel: nothing to resume, no id to end.
    single = "stdio" if options.stdio else "sse" if options.sse else None
    tally = {"passed": 0, "failed": 0, "skipped": 0}

    async def report(feature, reason, run):
        if options.only and feature.split("/")[-1] not in options.only:
            return
        line = {"feature": feature}
        if reason:
            line["skipped"] = reason
        else:
            try:
                line |= {"ok": True, "detail": await run() or ""}
            except Exception as error:  # whatever it is, it is this feature's failure
                line |= {"ok": False, "detail": str(error) if isinstance(error, Failed) else innermost(error)}
        tally["skipped" if reason else "passed" if line["ok"] else "failed"] += 1
        print(json.dumps(line, ensure_ascii=False), flush=True)

    async def drive():
        async with Session(options).open() as session:
            for target in targets:
                for feature in FEATURES:
                    name = feature.__name__
                    reason = skipped.get(name) or target["skip"].get(name)
                    if single and name == "resume":
                        reason = f"{single} has no streams to resume"
                    await report(f"{target['label']}/{name}", reason, lambda: feature(session, target, target["named"]))
            await report("together", skipped.get("together"), lambda: together(session, targets))
            reason = skipped.get("session_end") or (f"{single} has no session id" if single else None)
            await report("session_end", reason, lambda: session_end(session, targets))

    try:
        await drive()
    except Exception as error:
        tally["failed"] += 1
        print(json.dumps({"feature": "connect", "ok": False, "detail": innermost(error)}), flush=True)
    print(f"{tally['passed']} passed, {tally['failed']} failed, {tally['skipped']} skipped")
    return 1 if tally["failed"] or not tally["passed"] else 0


if __name__ == "__main__":
    sys.exit(anyio.run(main))
