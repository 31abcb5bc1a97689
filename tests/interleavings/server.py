"""An MCP server of one revision whose every step the model knows: what it executed, what was cancelled, who still holds a
stream. It can forget everything at once, as a restart does.

Tools: `echo` answers at once, `slow` after some progress, `ask` after the client's user has answered, `hang` never.
Each is called with a `token` of the model's, which comes back in everything that belongs to the call.
"""

import asyncio
import collections
import itertools
import json

from http11 import Closed, body, read_head

SSE_2024 = "2024-11-05"
MODERN = "2026-07-28"
LEGACY = ["2025-03-26", "2025-06-18", "2025-11-25"]
META = "io.modelcontextprotocol/"
TOOLS = ["echo", "slow", "ask", "hang"]
STEP_S = 0.01
ASK_MAX_S = 10  # how long a call may be forgotten by a client that left it


def tool(name):
    arguments = {"type": "object", "properties": {"token": {"type": "string"}}, "required": ["token"]}
    return {"name": name, "inputSchema": arguments}


class Session:
    def __init__(self, revision):
        self.revision = revision
        self.calls = {}  # id -> event: cancelled
        self.asked = {}  # id -> future
        self.stream = None  # queue of what goes out on the one stream of the 2024 transport


class Target:
    """`executed`: how often a token's call was begun; `cancelled`: tokens whose end the server was told."""

    def __init__(self, name, revision):
        self.name, self.revision = name, revision
        self.ids = itertools.count(1)
        self.sessions = {}
        self.executed, self.answered = collections.Counter(), collections.Counter()
        self.cancelled, self.states, self.wrong = set(), {}, []
        self.connections, self.streams, self.restarts = set(), 0, 0

    async def start(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0, limit=1 << 20)
        self.port = self.server.sockets[0].getsockname()[1]

    def stop(self):
        self.server.close()
        self.restart()

    def restart(self):
        """Every connection breaks, every session is forgotten."""
        self.restarts += 1
        for session in self.sessions.values():
            for future in session.asked.values():
                future.cancel()
        self.sessions.clear()
        for writer in list(self.connections):
            writer.transport.abort()

    @property
    def as_target(self):
        where = {"host": f"http://127.0.0.1:{self.port}/{'sse' if self.revision == SSE_2024 else 'mcp'}"}
        if self.revision == SSE_2024:
            return {"name": self.name, "sse": where}
        # A restart shall be seen by nobody: that it may end sessions instead has tests of its own.
        return {"name": self.name, "mcp": where, "onSessionLoss": "reopen"}

    async def serve(self, reader, writer):
        self.connections.add(writer)
        try:
            while True:
                start, headers = await read_head(reader)
                method, path, _ = start.split()
                content = await body(reader, headers)
                await self.request(method, path, headers, content, Out(reader, writer))
        except (Closed, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self.connections.discard(writer)
            writer.transport.abort()

    async def request(self, method, path, headers, content, out):
        message = json.loads(content) if content else {}
        if self.revision == MODERN:
            return await self.modern(method, headers, message, out)
        if self.revision == SSE_2024:
            return await self.sse_2024(method, path, message, out)
        id = headers.get("mcp-session-id")
        if message.get("method") == "initialize":
            id = f"{self.name}-{next(self.ids)}"
            self.sessions[id] = Session(self.revision)
            return await out.json(200, self.initialized(message), {"mcp-session-id": id})
        session = self.sessions.get(id)
        if session is None:
            return await out.json(404 if id else 400, {"jsonrpc": "2.0", "error": {"code": -32600, "message": "session"}})
        if method == "DELETE":
            self.sessions.pop(id, None)
            return await out.json(200, None)
        if method == "GET":
            await out.begin()
            self.streams += 1
            try:
                return await out.left()
            finally:
                self.streams -= 1
        await self.legacy(session, message, out)

    async def legacy(self, session, message, out):
        """A message of a session; `out` is its own answer, or the session's stream."""
        method, id = message.get("method"), message.get("id")
        if method is None:
            future = session.asked.pop(id, None)
            if future and not future.done():
                future.set_result(message.get("result", {}))
            return await out.json(202, None)
        if id is None:
            if method == "notifications/cancelled":
                event = session.calls.get(message["params"]["requestId"])
                if event:
                    event.set()
            return await out.json(202, None)
        if method == "tools/call":
            return await self.call(session, message, out)
        results = {"ping": {}, "tools/list": {"tools": [tool(name) for name in TOOLS]}, "logging/setLevel": {}}
        await out.json(200, answer(id, results.get(method)))

    async def call(self, session, message, out):
        id, params = message["id"], message["params"]
        name, token = params["name"], params["arguments"]["token"]
        cancelled = session.calls[id] = asyncio.Event()
        self.executed[token] += 1
        progress = params.get("_meta", {}).get("progressToken")
        try:
            if name == "echo":
                return await self.finish(out, id, token)
            await out.begin()
            if name == "slow":
                for step in range(3):
                    await self.progress(out, progress, step, token)
                    await asyncio.sleep(STEP_S)
                return await self.finish(out, id, token)
            if name == "ask":
                reply = await self.ask(session, out, token, cancelled)
                if reply is not None:
                    return await self.finish(out, id, token, reply.get("content", {}).get("reply", reply.get("action")))
            elif not await within(cancelled.wait()):
                return await self.finish(out, id, token)
            self.cancelled.add(token)
            await out.end()
        finally:
            session.calls.pop(id, None)

    async def ask(self, session, out, token, cancelled):
        id = f"ask-{next(self.ids)}"
        future = session.asked[id] = asyncio.get_running_loop().create_future()
        await out.event({"jsonrpc": "2.0", "id": id, **elicitation(token)})
        told = asyncio.ensure_future(cancelled.wait())
        done, _ = await asyncio.wait({future, told}, timeout=ASK_MAX_S, return_when=asyncio.FIRST_COMPLETED)
        told.cancel()
        if future in done and not future.cancelled():
            return future.result()
        return None

    async def progress(self, out, progress_token, step, token):
        if progress_token is not None:
            params = {"progressToken": progress_token, "progress": step, "total": 3, "message": token}
            await out.event({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})

    async def finish(self, out, id, token, *more):
        self.answered[token] += 1
        text = ":".join([self.name, token, *more])
        await out.last(answer(id, {"content": [{"type": "text", "text": text}]}))

    def initialized(self, message):
        capabilities = {"tools": {"listChanged": True}, "logging": {}}
        info = {"name": self.name, "version": "1.0.0"}
        result = {"protocolVersion": self.revision, "capabilities": capabilities, "serverInfo": info}
        return answer(message["id"], result)

    async def sse_2024(self, method, path, message, out):
        id = path.partition("session=")[2]
        if method == "GET":
            id = f"{self.name}-{next(self.ids)}"
            session = self.sessions[id] = Session(self.revision)
            session.stream = out
            self.streams += 1
            await out.begin(f"event: endpoint\ndata: /message?session={id}\n\n")
            try:
                return await out.left()
            finally:
                self.streams -= 1
                self.sessions.pop(id, None)
        session = self.sessions.get(id)
        if method != "POST" or session is None:
            return await out.json(405 if method != "POST" else 404, None)
        await out.json(202, None)
        if message.get("method") == "initialize":
            return await session.stream.event(self.initialized(message))
        # What it does goes on beside the connection that asked for it.
        task = asyncio.ensure_future(self.legacy(session, message, OnStream(session.stream)))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def modern(self, method, headers, message, out):
        id, params = message.get("id"), message.get("params", {})
        meta = params.get("_meta", {})
        if method != "POST":
            return await out.json(405, None)
        if id is None:
            return await out.json(202, None)
        if meta.get(META + "protocolVersion") != MODERN:
            data = {"supported": [MODERN], "requested": str(meta.get(META + "protocolVersion"))}
            return await out.json(400, failure(id, -32022, "unsupported protocol version", data))
        expected = {"mcp-protocol-version": MODERN, "mcp-method": message["method"]}
        if message["method"] == "tools/call":
            expected["mcp-name"] = params["name"]
        wrong = [name for name, value in expected.items() if headers.get(name) != value]
        if wrong:
            self.wrong.append(f"{self.name}: {wrong} of {message['method']}: {headers}")
            return await out.json(400, failure(id, -32020, f"header mismatch: {wrong}"))
        hints = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
        if message["method"] == "server/discover":
            found = {"supportedVersions": [MODERN], "capabilities": {"tools": {}, "logging": {}}}
            return await out.json(200, answer(id, {**hints, **found}))
        if message["method"] == "tools/list":
            return await out.json(200, answer(id, {**hints, "tools": [tool(name) for name in TOOLS]}))
        if message["method"] != "tools/call":
            return await out.json(404, failure(id, -32601, "method not found"))
        await self.modern_call(id, params, meta, out)

    async def modern_call(self, id, params, meta, out):
        name, token = params["name"], params["arguments"]["token"]
        result = {"resultType": "complete", "content": [{"type": "text", "text": f"{self.name}:{token}"}]}
        if name == "ask":
            reply = params.get("inputResponses", {}).get("q")
            if reply is None:
                state = self.states[token] = f"state-{next(self.ids)}"
                asked = {"resultType": "input_required", "inputRequests": {"q": elicitation(token)}, "requestState": state}
                return await out.json(200, answer(id, asked))
            if params.get("requestState") != self.states.pop(token, None):
                self.wrong.append(f"{self.name}: another state for {token}")
                return await out.json(200, failure(id, -32602, "unknown state"))
            result["content"][0]["text"] += ":" + reply.get("content", {}).get("reply", reply.get("action", ""))
        self.executed[token] += 1
        if name in ("echo", "ask"):
            self.answered[token] += 1
            return await out.json(200, answer(id, result))
        await out.begin()
        if name == "slow":
            for step in range(3):
                await self.progress(out, meta.get("progressToken"), step, token)
                await asyncio.sleep(STEP_S)
            self.answered[token] += 1
            return await out.last(answer(id, result))
        try:
            await within(out.left())
        except Closed:
            self.cancelled.add(token)
            raise
        await out.last(answer(id, result))


async def within(awaitable):
    """Whether it came before everybody has lost patience."""
    try:
        await asyncio.wait_for(awaitable, ASK_MAX_S)
        return True
    except asyncio.TimeoutError:
        return False


def answer(id, result):
    if result is None:
        return failure(id, -32601, "method not found")
    return {"jsonrpc": "2.0", "id": id, "result": result}


def failure(id, code, message, data=None):
    return {"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message, **({"data": data} if data else {})}}


def elicitation(token):
    schema = {"type": "object", "properties": {"reply": {"type": "string"}}, "required": ["reply"]}
    return {"method": "elicitation/create", "params": {"message": token, "requestedSchema": schema}}


class Out:
    """The answer to one request: JSON, or events once they have begun."""

    def __init__(self, reader, writer):
        self.reader, self.writer, self.begun = reader, writer, False

    async def json(self, status, message, headers=()):
        content = json.dumps(message).encode() if message is not None else b""
        lines = [f"HTTP/1.1 {status} -", "content-type: application/json", f"content-length: {len(content)}"]
        lines += [f"{name}: {value}" for name, value in dict(headers).items()]
        await self.write("\r\n".join(lines).encode() + b"\r\n\r\n" + content)

    async def begin(self, first=""):
        self.begun = True
        head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        await self.write(head.encode())
        if first:
            await self.chunk(first)

    async def event(self, message):
        if not self.begun:
            await self.begin()
        await self.chunk(f"event: message\ndata: {json.dumps(message)}\n\n")

    async def last(self, message):
        if not self.begun:
            return await self.json(200, message)
        await self.event(message)
        await self.end()

    async def end(self):
        await self.write(b"0\r\n\r\n")

    async def chunk(self, text):
        await self.write(f"{len(text.encode()):x}\r\n{text}\r\n".encode())

    async def write(self, data):
        self.writer.write(data)
        await self.writer.drain()

    async def left(self):
        """Until the other side closes."""
        if await self.reader.read(1):
            raise Closed
        raise Closed


class OnStream(Out):
    """The answers of the 2024 transport: all on the session's one stream."""

    def __init__(self, stream):
        self.stream = stream

    async def begin(self):
        pass

    async def json(self, _status, message, _headers=()):
        if message is not None:
            await self.stream.event(message)

    async def event(self, message):
        await self.stream.event(message)

    last = event

    async def end(self):
        pass
