"""Starts and ends the processes of a test from outside: peers, the gateway, drivers. Knows how to talk to them, not what
to expect of them. Standard library only.
"""

import atexit
import contextlib
import http.client
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

TESTS = pathlib.Path(__file__).resolve().parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or TESTS.parent / "target").resolve()
PEER = TESTS / "peers/peer"
CONFORMANCE = TESTS / "conformance/run"
# Below what the kernel gives to outgoing connections, so that nobody takes a chosen port in between.
PORTS = range(20_000, 32_000)
START_S = 20
END_S = 20  # above the gateway's own deadlines for an end
REVISION = "2025-11-25"
RETRY_S = 1  # before a stream is resumed whose server names no time

os.environ["CARGO_TARGET_DIR"] = str(TARGET)  # absolute: children run in other folders


class Failed(Exception):
    """Something is not as it should be."""


def expect(condition, message):
    if not condition:
        raise Failed(message() if callable(message) else message)


def until(ready, what, seconds=10.0, every=0.02):
    """The first true answer of `ready`."""
    end = time.monotonic() + seconds
    while True:
        answer = ready()
        if answer:
            return answer
        expect(time.monotonic() < end, lambda: f"{what() if callable(what) else what} did not happen within {seconds} s")
        time.sleep(every)


def free_ports(count):
    """Ports of 127.0.0.1 that nobody listens on; all held until all are found, so that they differ."""
    with contextlib.ExitStack() as held:
        found = []
        for port in random.sample(PORTS, len(PORTS)):
            if len(found) == count:
                return found
            holder = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                holder.bind(("127.0.0.1", port))
                found.append(port)
    raise Failed("no free ports")


class Processes:
    """Every process of a test, ended by its id when the program ends, in whatever way it can notice."""

    def __init__(self, folder):
        self.folder = folder
        self.running = []
        self.closing = False
        # Reentrant: a signal may come while the main thread holds it.
        self.lock = threading.RLock()
        folder.mkdir(parents=True, exist_ok=True)
        atexit.register(self.end_all)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self.interrupted)

    def start(self, command, log, env=None, **options):
        """A process in a group of its own; what it writes goes to the file `log` of the folder."""
        with (self.folder / log).open("wb") as file, self.lock:
            expect(not self.closing, "the test is being ended")
            outputs = {"stderr": file} if "stdout" in options else {"stdout": file, "stderr": subprocess.STDOUT}
            process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                env={**os.environ, **(env or {})},
                start_new_session=True,
                **outputs,
                **options,
            )
            self.running.append(process)
        return process

    def peer(self, name, *arguments, port=0, log=None):
        """A server peer over HTTP, and its port."""
        command = [PEER, name, *arguments, "--port", port]
        process = self.start(command, f"{log or name}.log", stdout=subprocess.PIPE, text=True)
        line = process.stdout.readline().split()
        expect(line[:1] == ["listening"], f"{name} did not start: {line}, see {self.folder / (log or name)}.log")
        process.port = int(line[1])
        process.url = f"http://127.0.0.1:{process.port}/{'sse' if name.endswith('-sse') else 'mcp'}"
        # What it prints later must not fill the pipe.
        threading.Thread(target=lambda: shutil.copyfileobj(process.stdout, open(os.devnull, "w")), daemon=True).start()
        return process

    def run(self, command, log, seconds, env=None):
        """Runs a program to its end: its exit code and output; code 124 when it took too long."""
        process = self.start(command, log, env)
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = 124
        self.end(process, hard=True)
        return code, (self.folder / log).read_text(errors="replace")

    def end(self, process, hard=False):
        """Ends a process and its group; gives its exit code."""
        with self.lock:
            if process in self.running:
                self.running.remove(process)
        if not hard:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(END_S)
        if process.poll() is None or hard:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        return process.wait()

    def end_all(self):
        for process in reversed(self.running[:]):
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        for process in reversed(self.running[:]):
            self.end(process)

    def interrupted(self, *_):
        """Threads that drive something fail as soon as their processes are gone, and start no more."""
        self.closing = True
        self.end_all()
        sys.exit(1)


class Gateway:
    """A gateway process. `binds`: backends by name, or whole routes; each gets a port of its own."""

    def __init__(self, processes, name, binds, arguments=(), env=None, settings=None):
        self.processes, self.name = processes, name
        self.binary = private_binary(processes.folder)
        self.file = processes.folder / f"{name}.json"
        ports = free_ports(len(binds) + 3)
        self.ports = dict(zip(binds, ports))
        admin, self.stats, self.readiness = ports[-3:]
        self.document = {
            "config": {
                "adminAddr": f"127.0.0.1:{admin}",
                "statsAddr": f"127.0.0.1:{self.stats}",
                "readinessAddr": f"127.0.0.1:{self.readiness}",
                **(settings or {}),
            },
            "binds": [
                {"port": self.ports[bind], "address": "127.0.0.1", "listeners": [{"routes": as_routes(given)}]}
                for bind, given in binds.items()
            ],
        }
        self.write()
        clean = {"ADMIN_ADDR", "STATS_ADDR", "READINESS_ADDR", "SESSION_KEY", "AGENTLANE_LOG", "AGENTLANE_IO_URING"}
        for variable in clean & set(os.environ):
            del os.environ[variable]
        self.process = processes.start([self.binary, "run", "-f", self.file, *arguments], f"{name}.log", env)
        self.pid = self.process.pid
        until(self._ready, lambda: f"readiness of {name} (see {self.log_file})", START_S)

    def _ready(self):
        code = self.process.poll()
        expect(code is None, lambda: f"{self.name} ended with {code}:\n{self.log()[-2000:]}")
        with contextlib.suppress(OSError):
            return get(self.readiness, "/healthz/ready")[0] == 200

    @property
    def log_file(self):
        return self.processes.folder / f"{self.name}.log"

    def log(self):
        return self.log_file.read_text(errors="replace")

    def url(self, bind):
        return f"http://127.0.0.1:{self.ports[bind]}/mcp"

    def write(self):
        """Puts the document in place in one step."""
        fresh = self.file.with_suffix(".next")
        fresh.write_text(json.dumps(self.document))
        fresh.replace(self.file)

    def metric(self, family):
        """The sum of a family's samples."""
        text = get(self.stats, "/metrics")[1].decode()
        samples = re.findall(rf"^{re.escape(family)}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)
        return sum(map(float, samples))

    def rss(self):
        """Resident bytes."""
        return status_kib(self.pid, "VmRSS") * 1024

    def fds(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def children(self):
        """`{pid: state}` of its children; state Z is a zombie."""
        return {pid: state for pid, (parent, state) in process_table().items() if parent == self.pid}

    def end(self):
        return self.processes.end(self.process)


def as_routes(given):
    return given if isinstance(given, list) else [{"backends": [given]}]


def federation(*targets, **options):
    """An MCP backend; a target is `(name, url, keys)`, `(name, url, "sse")` or `(name, [command, argument...], stdio keys)`."""
    return {"mcp": {"targets": [as_target(*target) for target in targets], **options}}


def as_target(name, where, options=None):
    if isinstance(where, str):
        transport, keys = (options, {}) if isinstance(options, str) else ("mcp", options or {})
        return {"name": name, transport: {"host": where}, **keys}
    command, *arguments = map(str, where)
    return {"name": name, "stdio": {"cmd": command, "args": arguments, **(options or {})}}


def private_binary(folder):
    """A copy of the gateway's binary: a build that replaces it in the middle of a test changes nothing."""
    given = pathlib.Path(os.environ.get("AGENTLANE_BIN") or TARGET / "debug/agentlane").resolve()
    expect(given.exists(), f"{given} is missing: cargo build, or set AGENTLANE_BIN")
    copy = folder / "agentlane"
    if not copy.exists() or copy.stat().st_mtime_ns != given.stat().st_mtime_ns:
        fresh = folder / "agentlane.next"
        shutil.copy2(given, fresh)
        fresh.replace(copy)
    return copy


def process_table():
    """`{pid: (parent, state)}` of this host."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                state, parent = pathlib.Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[:2]
                found[int(entry)] = (int(parent), state)
    return found


def status_kib(pid, field):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE)[1])


def get(port, path, seconds=5):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


class Client:
    """A client without an SDK, for what an SDK hides: one kept connection, one message at a time."""

    def __init__(self, url, capabilities=None, seconds=15, opened=True):
        self.url = url
        self.port = int(re.search(r":(\d+)/", url)[1])
        self.seconds = seconds
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds)
        self.session = None
        self.ids = 0
        if opened:
            self.initialized = self.open(capabilities or {})

    def headers(self):
        sealed = {"mcp-session-id": self.session, "mcp-protocol-version": REVISION} if self.session else {}
        return {"content-type": "application/json", "accept": "application/json, text/event-stream", **sealed}

    def open(self, capabilities):
        info = {"name": "harness", "version": "1.0.0"}
        params = {"protocolVersion": REVISION, "capabilities": capabilities, "clientInfo": info}
        result = self.request("initialize", params)
        self.notify("notifications/initialized")
        return result

    def send(self, method, body=None, **headers):
        """The raw answer: status, body, headers. Nothing is ever sent again: a lost connection is a finding."""
        try:
            self.connection.request(method, "/mcp", json.dumps(body) if body else None, {**self.headers(), **headers})
            answer = self.connection.getresponse()
            return answer.status, answer.read(), answer.headers
        except (http.client.HTTPException, OSError):
            self.connection.close()
            raise

    def exchange(self, method, params=None):
        """The JSON-RPC response of a request, result or error. A stream that ends before is resumed, as a client must."""
        self.ids += 1
        message = {"jsonrpc": "2.0", "id": self.ids, "method": method, "params": params or {}}
        status, body, headers = self.send("POST", message)
        self.session = headers.get("mcp-session-id") or self.session
        end = time.monotonic() + self.seconds
        while True:
            for text in messages(headers.get("content-type", ""), body):
                answer = json.loads(text)
                if answer.get("id") == self.ids and "method" not in answer:
                    return answer
            last = re.findall(rb"^id: ?(.*?)\r?$", body, re.MULTILINE)
            resumable = status == 200 and last and time.monotonic() < end
            expect(resumable, lambda: f"{method}: status {status}, no answer in {body[:300]!r}")
            retry = re.findall(rb"^retry: ?(\d+)", body, re.MULTILINE)
            time.sleep(int(retry[-1]) / 1000 if retry else RETRY_S)
            status, body, headers = self.send("GET", **{"last-event-id": last[-1].decode()})

    def request(self, method, params=None):
        answer = self.exchange(method, params)
        expect("result" in answer, lambda: f"{method}: {answer.get('error')}")
        return answer["result"]

    def notify(self, method):
        status, body, _ = self.send("POST", {"jsonrpc": "2.0", "method": method})
        expect(status == 202, lambda: f"{method}: status {status}, {body[:300]!r}")

    def call(self, tool, **arguments):
        """The text of a tool's result; fails on an error of either kind."""
        result = self.request("tools/call", {"name": tool, "arguments": arguments})
        text = "\n".join(block.get("text", "") for block in result["content"])
        expect(not result.get("isError"), f"{tool}: {text}")
        return text

    def end(self):
        """Ends the session; gives the status."""
        status = self.send("DELETE")[0]
        self.connection.close()
        return status


def messages(content_type, body):
    """The JSON texts of a body: the body itself, or the data of its events."""
    if not content_type.startswith("text/event-stream"):
        return [body] if body else []
    events = re.split(rb"\r?\n\r?\n", body)
    data = (b"\n".join(re.findall(rb"^data: ?(.*?)\r?$", event, re.MULTILINE)) for event in events)
    return [text for text in data if text]
