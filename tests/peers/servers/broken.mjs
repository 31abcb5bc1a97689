// MCP servers that misbehave, one way each, without any SDK. What is not broken works: initialize, ping, the lists,
// tools/call of `echo`.
//
//   broken.mjs --mode MODE [--port N | --stdio] [--after N] [--seconds S]
//
//   mute             accepts connections and requests, never answers any
//   refuse-late      answers `initialize`, then closes every connection without an answer
//   half-sse         tools/call: sends half an SSE event, then closes the connection
//   cut-json         tools/call: promises more body than it sends
//   html             every answer is a 200 HTML page
//   error-page       every answer is a 502 HTML page
//   slow-init        answers `initialize` only after --seconds
//   slow-lists       answers lists only after --seconds
//   endless-cursor   every list page has a new nextCursor
//   same-cursor      every list page has the same nextCursor
//   endless-body     tools/list: a body that never ends, as fast as it is read
//   huge-line        tools/call answers with --after megabytes in one message
//   not-json         tools/call answers with something that is not JSON
//   wrong-id         tools/call answers with another id
//   forget           after --after requests in a session answers 404 (for that session id, for ever)
//   forget-400       the same with 400, as some servers do
//   exit             ends the process in the middle of a tools/call
//   exit-at-start    ends the process at once
//   no-get           answers GET with 405 (legal; for completeness)
//   flood            after initialize sends log notifications without end (GET stream or stdout); over HTTP so does the
//                    answer to tools/call with the text `flood`
//   no-session       gives no session id (legal)
//   chatty-stderr    stdio: writes 64 KiB of stderr with every answer (legal)
//   hog              tools/call with the text `hog` takes memory without end
//   ignores-term     stdio: ignores SIGTERM and the end of its stdin
import { randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';

const { values: options } = parseArgs({
  options: {
    mode: { type: 'string' },
    port: { type: 'string', default: '0' },
    stdio: { type: 'boolean' },
    after: { type: 'string', default: '3' },
    seconds: { type: 'string', default: '5' },
  },
});
const { mode } = options;
const after = Number(options.after);
const waitMs = Number(options.seconds) * 1000;
const REVISIONS = ['2025-03-26', '2025-06-18', '2025-11-25'];
const ECHO = {
  name: 'echo',
  description: 'Returns its text',
  inputSchema: { type: 'object', properties: { text: { type: 'string' } } },
};
const LISTS = {
  'tools/list': { tools: [ECHO] },
  'prompts/list': { prompts: [] },
  'resources/list': { resources: [] },
  'resources/templates/list': { resourceTemplates: [] },
};
let pages = 0;

/** The result of a request, or undefined for never. */
async function answer({ method, params }) {
  if (mode === 'mute') return undefined;
  if (method === 'initialize') {
    if (mode === 'slow-init') await sleep(waitMs);
    const asked = params?.protocolVersion;
    return {
      protocolVersion: REVISIONS.includes(asked) ? asked : REVISIONS.at(-1),
      capabilities: { tools: { listChanged: true }, prompts: {}, resources: {}, logging: {} },
      serverInfo: { name: `broken-${mode}`, version: '1.0.0' },
    };
  }
  if (Object.hasOwn(LISTS, method)) {
    if (mode === 'slow-lists') await sleep(waitMs);
    if (mode === 'endless-cursor') return { ...LISTS[method], nextCursor: `page-${(pages += 1)}` };
    if (mode === 'same-cursor') return { ...LISTS[method], nextCursor: 'page' };
    return LISTS[method];
  }
  if (method === 'tools/call') {
    if (mode === 'exit') process.exit(70);
    if (mode === 'hog' && params?.arguments?.text === 'hog') for (const held = []; ; held.push(new Array(1 << 16).fill(held.length)));
    const text = mode === 'huge-line' ? 'x'.repeat(after << 20) : String(params?.arguments?.text ?? '');
    return { content: [{ type: 'text', text }] };
  }
  return {};
}

const isRequest = (message) => message.method !== undefined && message.id !== undefined;

async function reply(message) {
  const result = await answer(message);
  if (result === undefined) return undefined;
  const call = message.method === 'tools/call';
  if (mode === 'not-json' && call) return '{"jsonrpc": "2.0", "id": oops';
  return JSON.stringify({ jsonrpc: '2.0', id: mode === 'wrong-id' && call ? 'another' : message.id, result });
}

const noise = (count) =>
  JSON.stringify({
    jsonrpc: '2.0',
    method: 'notifications/message',
    params: { level: 'info', data: `${count} ${'x'.repeat(1000)}` },
  });

/** Calls `write` until it answers false; waits when it returns a promise. */
async function flood(write) {
  for (let count = 0; (await write(noise(count))) !== false; count += 1);
}

function serveStdio() {
  if (mode === 'ignores-term') {
    process.on('SIGTERM', () => {});
    setInterval(() => {}, 1000);
  }
  process.stdout.on('error', () => mode === 'ignores-term' || process.exit(0)); // nobody reads any more
  const write = (line) =>
    process.stdout.write(`${line}\n`) || new Promise((resolve) => process.stdout.once('drain', resolve));
  createInterface({ input: process.stdin }).on('line', async (line) => {
    const message = JSON.parse(line);
    if (mode === 'flood' && message.method === 'notifications/initialized') return flood(write);
    if (!isRequest(message)) return undefined;
    const text = await reply(message);
    if (mode === 'refuse-late' && message.method !== 'initialize') process.exit(0);
    if (mode === 'chatty-stderr') process.stderr.write(`${'e'.repeat(65_535)}\n`);
    if (text === undefined) return undefined;
    if (mode === 'html') return write('<!doctype html><title>not JSON</title>');
    if (message.method === 'tools/call' && (mode === 'half-sse' || mode === 'cut-json')) {
      return process.stdout.write(text.slice(0, text.length / 2), () => process.exit(0));
    }
    return write(text);
  });
}

async function bodyOf(req) {
  const chunks = [];
  for await (const chunk of req) chunks.push(chunk);
  return JSON.parse(Buffer.concat(chunks).toString());
}

/** Counts the requests of a session; false when the session is (no longer) known. */
const sessions = new Map();
function known(id) {
  const forgetful = mode === 'forget' || mode === 'forget-400';
  if (mode === 'no-session') return true;
  if (!sessions.has(id)) return false;
  sessions.set(id, sessions.get(id) + 1);
  return !(forgetful && sessions.get(id) > after);
}

function refuse(res, status, message) {
  res.writeHead(status, { 'content-type': 'application/json' });
  res.end(JSON.stringify({ jsonrpc: '2.0', error: { code: -32000, message } }));
}

async function serveGet(req, res) {
  if (mode === 'no-get') return res.writeHead(405, { allow: 'POST, DELETE' }).end();
  res.writeHead(200, { 'content-type': 'text/event-stream' }).flushHeaders();
  if (mode !== 'flood') return undefined; // an open, silent stream
  return flood(untilClosed(res, (text) => `data: ${text}\n\n`));
}

/** A `write` for flood: waits for a slow reader, answers false once it has gone. */
function untilClosed(res, frame) {
  let resume = () => {};
  res.on('drain', () => resume(true));
  res.on('close', () => resume(false));
  return (text) => {
    if (res.destroyed) return false;
    return res.write(frame(text)) || new Promise((resolve) => (resume = resolve));
  };
}

async function serve(req, res) {
  if (mode === 'html' || mode === 'error-page') {
    res.writeHead(mode === 'html' ? 200 : 502, { 'content-type': 'text/html' });
    return res.end('<!doctype html><title>not an MCP server</title>');
  }
  const id = req.headers['mcp-session-id'];
  const message = req.method === 'POST' ? await bodyOf(req) : undefined;
  const opening = message?.method === 'initialize';
  if (mode === 'mute') return undefined;
  if (!opening && !known(id)) return refuse(res, mode === 'forget-400' ? 400 : 404, 'no such session');
  if (req.method === 'GET') return serveGet(req, res);
  if (req.method === 'DELETE') return res.writeHead(sessions.delete(id) ? 200 : 404).end();
  if (mode === 'refuse-late' && !opening) return req.socket.destroy();
  if (!isRequest(message)) return res.writeHead(202).end();
  const text = await reply(message);
  if (opening && mode !== 'no-session') {
    const fresh = randomUUID();
    sessions.set(fresh, 0);
    res.setHeader('mcp-session-id', fresh);
  }
  const call = message.method === 'tools/call';
  if (mode === 'half-sse' && call) {
    res.writeHead(200, { 'content-type': 'text/event-stream' });
    return res.write(`data: ${text.slice(0, text.length / 2)}`, () => setTimeout(() => req.socket.destroy(), 20));
  }
  if (mode === 'cut-json' && call) {
    res.writeHead(200, { 'content-type': 'application/json', 'content-length': text.length + 100 });
    return res.write(text, () => setTimeout(() => req.socket.destroy(), 20));
  }
  if (mode === 'flood' && call && message.params.arguments?.text === 'flood') {
    res.writeHead(200, { 'content-type': 'text/event-stream' });
    return flood(untilClosed(res, (noisy) => `data: ${noisy}\n\n`));
  }
  res.writeHead(200, { 'content-type': 'application/json' });
  if (mode === 'endless-body' && message.method === 'tools/list') {
    res.write(`{"jsonrpc":"2.0","id":${JSON.stringify(message.id)},"result":{"tools":[${JSON.stringify(ECHO)}`);
    return flood(untilClosed(res, () => `,${JSON.stringify(ECHO)}`));
  }
  return res.end(text);
}

if (mode === undefined) {
  console.error('broken: --mode is needed; see the head of the file');
  process.exit(2);
}
if (mode === 'exit-at-start') process.exit(70);
if (options.stdio) {
  serveStdio();
} else {
  const http = createServer((req, res) => serve(req, res).catch(() => res.destroy()));
  http.listen(Number(options.port), '127.0.0.1', () => console.log(`listening ${http.address().port}`));
  process.on('SIGTERM', () => process.exit(0));
}
