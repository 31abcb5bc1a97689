"""What a fixture offers, as fixture.json says, apart from any SDK and protocol era: results are plain JSON values. The
twin of offer.mjs. What a call changes is seen by every client of the process; `call` is how a running tool reaches its
own."""

import collections
import json
import math
import pathlib
import re

import anyio

FIXTURE = {}  # filled by `prepare`
LEVELS = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"]
INSTRUCTIONS = "Fixture of the conformance suite."
STEP_S = 0.05
ANNOUNCE_S = 1
INVALID_PARAMS = -32602


def options(parser) -> None:
    """Of every fixture."""
    parser.add_argument("--scheme", default="test", help="the scheme of its URIs")
    parser.add_argument("--cancelled", type=pathlib.Path, help="counts cancelled calls beyond the life of a process")


def prepare(given) -> None:
    """Takes the options; to be called before anything is offered."""
    text = pathlib.Path(__file__).with_name("fixture.json").read_text()
    text = text.replace("test://", f"{given.scheme}://").replace("ui://fixture/", f"ui://{given.scheme}/")
    FIXTURE.update(json.loads(text))
    State.scheme, State.cancelled_file = given.scheme, given.cancelled


class Refusal(Exception):
    """A JSON-RPC error."""

    def __init__(self, code: int, message: str, data=None):
        super().__init__(message)
        self.code, self.message, self.data = code, message, data


class State:
    """Of the process."""

    extra = False  # whether test_extra is listed
    cancelled = 0  # calls of test_slow
    cancelled_file = None
    scheme = "test"


class Session:
    """What one session remembers, and the SDK's object that reaches its client outside of calls."""

    def __init__(self):
        self.level = "debug"
        self.subscribed = set()
        self.channel = None


class Sessions(collections.defaultdict):
    """Those of the process, by their id."""

    def __init__(self):
        super().__init__(Session)

    async def announce(self, send, uri: str | None = None) -> bool:
        """Tells every session, or those subscribed to `uri`; whether there were any. Forgets whoever has gone."""
        wanted = [(key, each) for key, each in self.items() if uri is None or uri in each.subscribed]
        for key, each in wanted:
            try:
                with anyio.fail_after(ANNOUNCE_S):
                    await send(each.channel)
            except (TimeoutError, anyio.ClosedResourceError, anyio.BrokenResourceError):
                self.pop(key, None)
        return bool(wanted)


class Call:
    """What a running tool needs; each fixture fills it in for its SDK. `converse(dialog, arguments)` gives the text of a
    dialog, or a whole result that asks the client or fails."""

    token = None

    async def converse(self, dialog: dict, arguments: dict) -> str | dict:
        raise NotImplementedError

    async def log(self, level: str, data: str) -> None:
        raise NotImplementedError

    async def progress(self, value: float, total: float, message: str | None = None) -> None:
        raise NotImplementedError

    async def close_stream(self) -> None:
        """Nothing to close below 2025-11-25 and on stdio."""

    async def changed(self, kind: str) -> None:
        """Announces to everybody that a list has changed."""
        raise NotImplementedError

    async def updated(self, uri: str) -> bool:
        """Announces an update to everybody who wanted it; whether anybody may have."""
        raise NotImplementedError


def text(value: str) -> dict:
    return {"content": [{"type": "text", "text": value}]}


def failure(value: str) -> dict:
    return {**text(value), "isError": True}


def tools() -> list[dict]:
    if not State.extra:
        return FIXTURE["tools"]
    return [*FIXTURE["tools"], {"definition": FIXTURE["extra_tool"], "result": text("extra")}]


def list_tools() -> dict:
    return {"tools": [tool["definition"] for tool in tools()]}


def list_resources() -> dict:
    return {"resources": FIXTURE["resources"]}


def list_templates() -> dict:
    return {"resourceTemplates": FIXTURE["templates"]}


def list_prompts() -> dict:
    return {"prompts": FIXTURE["prompts"]}


def read(uri: str, missing: int) -> dict:
    """`missing`: the code for a resource that does not exist, which differs between the eras."""
    if uri in FIXTURE["contents"]:
        return {"contents": [FIXTURE["contents"][uri]]}
    found = re.fullmatch(rf"{State.scheme}://template/([^/]+)/data", uri)
    if found is None:
        raise Refusal(missing, "resource not found", {"uri": uri})
    body = {"id": found[1], "templateTest": True, "data": f"Data for ID: {found[1]}"}
    return {"contents": [{"uri": uri, "mimeType": "application/json", "text": json.dumps(body)}]}


def complete(begun: str) -> dict:
    values = [value for value in FIXTURE["completions"] if value.startswith(begun)]
    return {"completion": {"values": values, "total": len(values), "hasMore": False}}


async def prompt(name: str, given: dict, call: Call) -> dict:
    found = next((each for each in FIXTURE["prompts"] if each["name"] == name), None)
    if found is None:
        raise Refusal(INVALID_PARAMS, f"unknown prompt {name}")
    for argument in found.get("arguments", []):
        if argument["name"] not in given:
            raise Refusal(INVALID_PARAMS, f"missing argument {argument['name']}")
    if name in FIXTURE["prompt_dialogs"]:
        outcome = await call.converse(FIXTURE["prompt_dialogs"][name], given)
        if isinstance(outcome, dict):
            return outcome
        contents = [outcome]
    else:
        contents = PROMPTS[name](given)
    blocks = [content if isinstance(content, dict) else text(content)["content"][0] for content in contents]
    return {"description": found["description"], "messages": [{"role": "user", "content": block} for block in blocks]}


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


async def call_tool(name: str, given: dict, call: Call) -> dict:
    tool = next((tool for tool in tools() if tool["definition"]["name"] == name), None)
    if tool is None:
        raise Refusal(INVALID_PARAMS, f"unknown tool {name}")
    if "result" in tool:
        return tool["result"]
    if "dialog" not in tool:
        return await CALLS[name](given, call)
    if "progress" in tool["dialog"]:
        await call.progress(tool["dialog"]["progress"], 2)
    outcome = await call.converse(tool["dialog"], given)
    return outcome if isinstance(outcome, dict) else text(outcome)


async def with_logging(_given, call):
    await call.log("info", "Tool execution started")
    await anyio.sleep(STEP_S)
    await call.log("info", "Tool processing data")
    await anyio.sleep(STEP_S)
    await call.log("info", "Tool execution completed")
    return text("logged three messages")


async def logging_tool(_given, call):
    await call.log("info", "logged once")
    return text("logged one message")


async def error(_given, _call):
    return failure("This tool intentionally returns an error for testing")


async def with_progress(_given, call):
    for value in (0, 50, 100):
        await call.progress(value, 100, f"step {value} of 100")
        if value < 100:
            await anyio.sleep(STEP_S)
    return text(f"progress token {json.dumps(call.token)}")


async def reconnection(_given, call):
    await call.close_stream()
    await anyio.sleep(2 * STEP_S)
    return text("Answered after the stream was closed")


async def structured(given, _call):
    content = {"sum": given["a"] + given["b"]}
    return {**text(json.dumps(content)), "structuredContent": content}


async def custom_header(given, _call):
    return text(f"region {given['region']}")


async def slow(given, call):
    steps = math.ceil(given["seconds"] / STEP_S)
    try:
        for step in range(1, steps + 1):
            await anyio.sleep(STEP_S)
            await call.progress(step, steps)
    except anyio.get_cancelled_exc_class():
        State.cancelled += 1
        if State.cancelled_file:
            with State.cancelled_file.open("a") as file:
                file.write(".")
        raise
    return text(f"slept {given['seconds']} s")


async def cancellations(_given, _call):
    if State.cancelled_file is None:
        return text(str(State.cancelled))
    return text(str(State.cancelled_file.stat().st_size if State.cancelled_file.exists() else 0))


async def touch(_given, call):
    return text("announced" if await call.updated(f"{State.scheme}://watched-resource") else "nobody subscribed")


async def toggle(_given, call):
    State.extra = not State.extra
    await call.changed("tools")
    return text("added" if State.extra else "removed")


def announces(kind):
    async def call_it(_given, call):
        await call.changed(kind)
        return text("announced")

    return call_it


# The tools whose result is not fixed and that ask nothing.
CALLS = {
    "test_tool_with_logging": with_logging,
    "test_logging_tool": logging_tool,
    "test_error_handling": error,
    "test_tool_with_progress": with_progress,
    "test_reconnection": reconnection,
    "test_structured": structured,
    "test_custom_header": custom_header,
    "test_slow": slow,
    "test_cancellations": cancellations,
    "test_touch": touch,
    "test_toggle": toggle,
    "test_trigger_tool_change": announces("tools"),
    "test_trigger_prompt_change": announces("prompts"),
}
