"""Every feature of MCP once, for drivers on either line of the Python SDK. A driver gives a session with

    modern, stdio           whether it speaks 2026-07-28; whether over standard input and output
    identity()              name of the server, its capabilities, the revision
    page(kind, cursor)      one page of tools, prompts, resources or templates: items and the next cursor
    call(name, arguments, progress), prompt(name, arguments), read(uri), complete(prompt, argument, value), ping()
    level(level)            asks for log messages of later calls from that level on
    watch(uri)              a context in which updates of a resource arrive
    watch_lists()           a context in which changes of lists arrive
    logs, updated, changed  what the server sent without being asked
    http, session_id        for requests outside the SDK; only where there is a session over HTTP
    reopened()              a context with another session, as a new client has it

Results are plain JSON values. Prints one JSON line per feature, `{"feature", "ok", "detail"}` or `{"feature",
"skipped"}`, then `N passed, N failed, N skipped`. Exit code 1 if anything failed.
"""

import argparse
import json
import pathlib
import re
import time
import warnings

import anyio

# Roots, sampling and logging are deprecated by the newest revision, and exactly what is driven here.
warnings.filterwarnings("ignore", message=".*(deprecated|removed) as of 2026-07-28.*")

WAIT_S = 5  # for anything that must arrive
QUIET_S = 0.3  # for anything that must not
FEATURE_S = 12  # for one feature
PARALLEL = 20
LARGE_BYTES = 3 << 20
EVENT_BYTES_MAX = 8 << 20  # the client's own limit is 1 MiB by default
PAGES_MAX = 100
ROOT = "file:///project/one"
TARGETS = json.loads(pathlib.Path(__file__).with_name("targets.json").read_text())


class Failed(Exception):
    """A feature does not do what it should."""


def sampled(params: dict) -> dict:
    """A client's answer to sampling."""
    content = params["messages"][-1]["content"]
    block = content[0] if isinstance(content, list) else content
    return {"role": "assistant", "model": "driver", "content": {"type": "text", "text": f"reply to {block['text']}"}}


def elicited(params: dict) -> dict:
    """A client's answer to an elicitation."""
    if params.get("mode") == "url":
        return {"action": "accept"}
    form = params["requestedSchema"]
    kinds = {"boolean": True, "integer": 7, "number": 7}
    kind = {name: about.get("type") for name, about in form.get("properties", {}).items()}
    answer = f"answer to {params['message']}"
    return {"action": "accept", "content": {name: kinds.get(kind.get(name), answer) for name in form.get("required", [])}}


def expect(condition, message):
    if not condition:
        raise Failed(message)


def same(actual, expected):
    expect(actual == expected, f"got {actual!r}, expected {expected!r}")


def contains(haystack, needle):
    expect(needle in haystack, f"{haystack[:300]!r} does not contain {needle!r}")


def text_of(blocks):
    return "\n".join(block.get("text", "") for block in blocks)


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


async def everything(session, kind):
    """Every item of a list, all pages, and the number of pages."""
    items, cursor = [], None
    for page in range(1, PAGES_MAX + 1):
        more, cursor = await session.page(kind, cursor)
        items += more
        if cursor is None:
            return items, page
    raise Failed(f"more than {PAGES_MAX} pages")


async def names(session, kind, key="name"):
    return [item[key] for item in (await everything(session, kind))[0]]


async def called(session, name, arguments=None, progress=None):
    result = await session.call(name, arguments or {}, progress)
    if result.get("isError"):
        raise Failed(f"{name}: {text_of(result['content'])}")
    return result


async def text(session, name, arguments=None):
    return text_of((await called(session, name, arguments))["content"])


# The features of one target: each gets the session, the target's entry of targets.json and its naming function,
# and returns a detail for the report.


async def initialize(session, _target, _named):
    name, capabilities, revision = session.identity()
    for part in ("tools", "prompts", "resources", "logging", "completions"):
        expect(capabilities.get(part) is not None, f"capability {part} is missing")
    return f"{name} at {revision}"


async def ping(session, _target, _named):
    await session.ping()


async def tools(session, target, named):
    items, pages = await everything(session, "tools")
    found = [item["name"] for item in items]
    same(len(set(found)), len(found))
    missing = [named(name) for name in target["tools"] if named(name) not in found]
    expect(not missing, f"tools {missing} are missing in {found}")
    return f"{len(found)} tools in {pages} pages"


async def annotated(session, target, named):
    about = target["annotated"]
    items, _ = await everything(session, "tools")
    tool = next((item for item in items if item["name"] == named(about["tool"])), {})
    for key, value in about["definition"].items():
        contains(json.dumps(tool.get(key)), value)
    result = json.dumps(await called(session, named(about["tool"])))
    for part in about["result"]:
        contains(result, part)


async def prompts(session, target, named):
    items, pages = await everything(session, "prompts")
    found = [item["name"] for item in items]
    missing = [named(name) for name in target["prompts"] if named(name) not in found]
    expect(not missing, f"prompts {missing} are missing in {found}")
    return f"{len(found)} prompts in {pages} pages"


async def resources(session, target, _named):
    items, pages = await everything(session, "resources")
    for uri in target["resources"]:
        offered([item["uri"] for item in items], uri)
    return f"{len(items)} resources in {pages} pages"


async def templates(session, target, _named):
    items, pages = await everything(session, "templates")
    for template in target["templates"]:
        offered([item["uriTemplate"] for item in items], template)
    return f"{len(items)} templates in {pages} pages"


async def call(session, target, named):
    about = target["call"]
    words = "zażółć 🦀"
    said = await text(session, named(about["tool"]), {about["argument"]: words} if "argument" in about else {})
    contains(said, about["text"])
    if "argument" in about:
        contains(said, words)


async def unknown_tool(session, _target, named):
    try:
        await called(session, named("no_such_tool"))
    except Exception as error:  # of whatever kind the SDK has
        return str(error)[:80]
    raise Failed("a call of an unknown tool succeeded")


async def structured(session, target, named):
    about = target["structured"]
    content = (await called(session, named(about["tool"]), about["arguments"])).get("structuredContent") or {}
    missing = [key for key in about["keys"] if key not in content]
    expect(not missing, f"{missing} are missing in {content}")
    return json.dumps(content)


async def header(session, target, named):
    about = target["header"]
    await everything(session, "tools")  # tells the client which arguments are mirrored
    contains(await text(session, named(about["tool"]), about["arguments"]), about["text"])


async def parallel(session, target, named):
    about = target["call"]

    async def one(index):
        words = f"call {index}."
        given = {about["argument"]: words} if "argument" in about else {}
        contains(await text(session, named(about["tool"]), given), words if given else about["text"])

    async with anyio.create_task_group() as group:
        for index in range(PARALLEL):
            group.start_soon(one, index)
    return f"{PARALLEL} calls"


async def large(session, target, named):
    about = target["large"]
    same(len(await text(session, named(about["tool"]), {about["argument"]: LARGE_BYTES})), LARGE_BYTES)


async def progress(session, target, named):
    about = target["progress"]
    seen = []

    async def note(value, _total, _message):
        seen.append(value)

    await called(session, named(about["tool"]), about["arguments"], note)
    same(seen, list(range(1, about["steps"] + 1)))


async def prompt(session, target, named):
    about = target["prompt"]
    messages = (await session.prompt(named(about["name"]), about["arguments"]))["messages"]
    contains(text_of([message["content"] for message in messages]), about["text"])


async def prompt_input(session, target, named):
    about = target["prompt_input"]
    messages = (await session.prompt(named(about["name"]), {}))["messages"]
    contains(text_of([message["content"] for message in messages]), about["text"])


async def read(session, target, _named):
    uri = offered(await names(session, "resources", "uri"), target["read"]["uri"])
    contents = (await session.read(uri))["contents"]
    same(contents[0]["uri"], uri)
    contains(contents[0]["text"], target["read"]["text"])
    return uri


async def unknown_resource(session, _target, _named):
    try:
        await session.read("test://no-such/resource")
    except Exception as error:  # of whatever kind the SDK has
        return str(error)[:80]
    raise Failed("an unknown resource was read")


async def template(session, target, _named):
    about = target["template"]
    found = offered(await names(session, "templates", "uriTemplate"), about["template"])
    uri = re.sub(r"\{\w+\}", about["value"], found)
    contains((await session.read(uri))["contents"][0]["text"], about["text"])
    return uri


async def app(session, target, _named):
    uri = offered(await names(session, "resources", "uri"), target["app"]["uri"])
    contents = json.dumps((await session.read(uri))["contents"][0])
    for part in target["app"]["parts"]:
        contains(contents, part)


async def completion(session, target, named):
    about = target["completion"]
    answer = await session.complete(named(about["prompt"]), about["argument"], about["value"])
    same(answer["completion"]["values"], about["values"])


def asking(key):
    """A feature that calls a tool which asks the client."""

    async def feature(session, target, named):
        about = target[key]
        contains(await text(session, named(about["tool"]), about["arguments"]), about["text"])

    feature.__name__ = key
    return feature


async def sampling(session, target, named):
    about = target["sampling"]
    said = await text(session, named(about["tool"]), about["arguments"])
    contains(said, "reply to")
    contains(said, about["text"])


elicitation = asking("elicitation")


async def roots(session, target, named):
    about = target["roots"]
    contains(await text(session, named(about["tool"]), about["arguments"]), ROOT)


async def logging(session, target, named):
    about = target["logging"]

    def levels():
        return [level for level, data in session.logs if about["match"] in json.dumps(data)]

    for level, expected in (("error", about["quiet"]), ("info", about["loud"])):
        await session.level(level)
        session.logs.clear()
        if "tool" in about:
            await called(session, named(about["tool"]))
        else:
            async with session.watch(offered(await names(session, "resources", "uri"), about["subscribe"])):
                pass

        async def enough():
            return len(levels()) >= len(expected)

        await until(enough, f"{len(expected)} log messages at {level}")
        await anyio.sleep(QUIET_S)
        same(levels(), expected)


async def subscription(session, target, named):
    about = target["subscription"]
    uri = offered(await names(session, "resources", "uri"), about["uri"])
    async with session.watch(uri):
        session.updated.clear()
        await called(session, named(about["tool"]))

        async def updated():
            return uri in session.updated

        await until(updated, f"notifications/resources/updated of {uri}")
        if "stop" in about:
            await called(session, named(about["stop"]))
    if session.modern:
        await anyio.sleep(QUIET_S)  # nobody confirms the end of a listening
    session.updated.clear()
    await called(session, named(about["tool"]))
    await anyio.sleep(QUIET_S)
    same(session.updated, [])
    if "stop" in about:
        await called(session, named(about["stop"]))


async def cancellation(session, target, named):
    about, observe = target["cancellation"], target["cancellation"].get("observe")

    async def seen():
        return int(await text(session, named(observe)))

    before = await seen() if observe else 0
    answered = False
    async with anyio.create_task_group() as group:

        async def note(_value, _total, _message):
            group.cancel_scope.cancel()

        await called(session, named(about["tool"]), about["arguments"], note)
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
            return any(about["appears"] in uri for uri in await names(session, "resources", "uri"))
        return named(about["appears"]) in await names(session, "tools")

    if await there():  # left there by somebody who failed
        await called(session, named(about["tool"]), about["arguments"])
    expect(not await there(), f"{about['appears']} is there before")
    async with session.watch_lists():
        for wanted in (True, False) if about.get("again") else (True,):
            before = session.changed[kind]

            async def announced():
                return session.changed[kind] > before

            async def listed():
                return await there() == wanted

            await called(session, named(about["tool"]), about["arguments"])
            await until(announced, f"notifications/{kind}/list_changed")
            await until(listed, f"{about['appears']} {'appears' if wanted else 'goes'}")


async def resume(session, target, named):
    about = target["resume"]
    request = "resumed call"
    params = {"name": named(about["tool"]), "arguments": about["arguments"], "_meta": {"progressToken": "resumed"}}
    body = {"jsonrpc": "2.0", "id": request, "method": "tools/call", "params": params}
    last = None
    async with session.http.stream("POST", session.url, headers=headers(session), json=body) as response:
        async for event_id, data in events(response):
            expect(not data or json.loads(data).get("id") != request, "answered before the stream could be cut")
            last = event_id
            if last is not None:
                break
    expect(last is not None, "no event id before the stream ended")
    await anyio.sleep(about.get("wait_s", 0))
    resumed = headers(session, accept="text/event-stream", **{"last-event-id": last})
    with anyio.fail_after(WAIT_S):
        async with session.http.stream("GET", session.url, headers=resumed) as response:
            same(response.status_code, 200)
            async for _, data in events(response):
                answer = json.loads(data) if data else {}
                if answer.get("id") == request:
                    contains(text_of(answer["result"]["content"]), about["text"])
                    return f"resumed after event {last}"
    raise Failed("the resumed stream ended without the answer")


def headers(session, **more):
    return {
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": session.identity()[2],
        "mcp-session-id": session.session_id,
        **more,
    }


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
    initialize, ping, tools, annotated, prompts, resources, templates, call, unknown_tool, structured, header, parallel,
    large, progress, prompt, prompt_input, read, unknown_resource, template, app, completion, sampling,
    asking("sampling_tools"), elicitation, asking("elicitation_url"), roots, asking("inputs"), asking("rounds"), logging,
    subscription, cancellation, list_changed, asking("reconnection"), resume,
]  # fmt: skip


async def together(session, targets):
    """Sampling, elicitation, roots and progress of all targets at the same time: nothing may reach the wrong one."""
    kinds = [sampling, elicitation, roots, progress, parallel]
    jobs = [(kind, target) for target in targets for kind in kinds if kind.__name__ not in target["skip"]]
    async with anyio.create_task_group() as group:
        for kind, target in jobs:
            group.start_soon(kind, session, target, target["named"])
    return f"{len(jobs)} features of {len(targets)} targets at once"


async def session_end(session, targets, gateway):
    """Ends the session; whoever still uses it gets 404 and a client can start anew."""
    old = session.session_id
    expect(old, "no session id")
    await session.http.delete(session.url, headers=headers(session))
    body = {"jsonrpc": "2.0", "id": "after the end", "method": "ping"}
    answer = await session.http.post(session.url, headers=headers(session), json=body)
    same(answer.status_code, 404 if gateway else targets[0]["ended_status"])
    try:
        await session.ping()
        raise Failed("the client did not notice that its session has ended")
    except Failed:
        raise
    except Exception as error:  # of whatever kind the SDK has
        detail = str(error)
    async with session.reopened() as fresh:
        expect(fresh.session_id != old, "the session id was given again")
        await tools(fresh, targets[0], targets[0]["named"])
    return detail


def impossible(session, feature):
    """Why a feature cannot be driven on this session at all."""
    if session.modern and feature in ("ping", "resume", "session_end"):
        return "not part of 2026-07-28"
    if (session.stdio or session.sse) and feature in ("resume", "session_end"):
        return "no streams to resume and no session ids"
    return None


def options(about, *more):
    """The command line of every driver; `more` are the options of one."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", nargs="?")
    parser.add_argument("--target", action="append", required=True)
    parser.add_argument("--only", type=lambda given: given.split(","))
    parser.add_argument("--skip", action="append", default=[])
    parser.add_argument("--stdio")
    parser.add_argument("--sse", action="store_true")
    parser.add_argument("--gateway", action="store_true")
    for name, settings in more:
        parser.add_argument(name, **settings)
    return parser.parse_args()


def chosen(given):
    """Of `NAME[=PREFIX[,SCHEME]]`: the entry of targets.json, with a scheme of its own for its URIs."""
    name, _, more = given.partition("=")
    prefix, _, scheme = more.partition(",")
    scheme = scheme or "test"
    text = json.dumps(TARGETS[name]).replace("test://", f"{scheme}://").replace("ui://fixture/", f"ui://{scheme}/")
    return {**json.loads(text), "label": prefix or name, "named": lambda own: prefix + own}


def innermost(error):
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) if isinstance(error, Failed) else f"{type(error).__name__}: {error}"


async def drive(given, connect):
    """Runs the features in the session of the context `connect(options)`; gives the exit code."""
    targets = [chosen(name) for name in given.target]
    skipped = dict(entry.split("=", 1) for entry in given.skip)
    tally = {"passed": 0, "failed": 0, "skipped": 0}

    async def report(feature, reason, run):
        if given.only and feature.split("/")[-1] not in given.only:
            return
        line = {"feature": feature}
        if reason:
            line["skipped"] = reason
        else:
            try:
                with anyio.fail_after(FEATURE_S):
                    line |= {"ok": True, "detail": await run() or ""}
            except Exception as error:  # whatever it is, it is this feature's failure
                line |= {"ok": False, "detail": innermost(error)}
        tally["skipped" if reason else "passed" if line["ok"] else "failed"] += 1
        print(json.dumps(line, ensure_ascii=False), flush=True)

    async def features():
        async with connect(given) as session:
            for target in targets:
                for feature in FEATURES:
                    name = feature.__name__
                    reason = skipped.get(name) or target["skip"].get(name) or impossible(session, name)
                    await report(f"{target['label']}/{name}", reason, lambda: feature(session, target, target["named"]))
            await report("together", skipped.get("together"), lambda: together(session, targets))
            reason = skipped.get("session_end") or impossible(session, "session_end")
            await report("session_end", reason, lambda: session_end(session, targets, given.gateway))

    try:
        await features()
    except Exception as error:
        tally["failed"] += 1
        print(json.dumps({"feature": "connect", "ok": False, "detail": innermost(error)}), flush=True)
    print(f"{tally['passed']} passed, {tally['failed']} failed, {tally['skipped']} skipped")
    return 1 if tally["failed"] or not tally["passed"] else 0
