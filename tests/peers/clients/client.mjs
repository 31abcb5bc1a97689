// Drives a server, or a gateway in front of several, with the official TypeScript client: every feature once.
//
//   client.mjs URL --target NAME[=PREFIX] [--target ...] [--only FEATURE,...] [--skip FEATURE=REASON] [--gateway]
//   client.mjs --stdio 'COMMAND ARGS' --target NAME[=PREFIX]
//   client.mjs URL --sse ...                  over HTTP+SSE of 2024-11-05; URL is the stream's
//
// NAME is a key of targets.json; PREFIX is what a federation puts before the target's tool and prompt names.
// --gateway: an ended session must be answered 404, as the specification says, even where the target itself differs.
// Prints one JSON line per feature, `{"feature", "ok", "detail"}` or `{"feature", "skipped"}`, then
// `N passed, N failed, N skipped`. Exit code 1 if anything failed.
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { SSEClientTransport } from '@modelcontextprotocol/sdk/client/sse.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import * as mcp from '@modelcontextprotocol/sdk/types.js';
import { EventSourceParserStream } from 'eventsource-parser/stream';

const WAIT_MS = 5000; // for anything that must arrive
const QUIET_MS = 300; // for anything that must not
const PARALLEL = 20;
const LARGE_BYTES = 3 << 20;
const PAGES_MAX = 100;
const ROOT = 'file:///project/one';
const TARGETS = JSON.parse(readFileSync(new URL('targets.json', import.meta.url)));

/** One connected client and everything that the server sent without being asked. */
class Session {
  constructor({ url, command, sse }) {
    this.url = url;
    this.sse = sse;
    this.command = command;
    this.logs = [];
    this.updated = [];
    this.onprogress = new Map(); // by progress token
    this.changed = { tools: 0, prompts: 0, resources: 0 };
  }

  async open() {
    this.client = new Client(
      { name: 'agentlane-driver-ts', version: '1.0.0' },
      { capabilities: { sampling: {}, elicitation: { form: {} }, roots: { listChanged: true } } },
    );
    this.#answer();
    this.#listen();
    this.transport = this.command
      ? new StdioClientTransport({ command: this.command[0], args: this.command.slice(1), stderr: 'ignore' })
      : new (this.sse ? SSEClientTransport : StreamableHTTPClientTransport)(this.url);
    await this.client.connect(this.transport);
    return this;
  }

  #answer() {
    this.client.setRequestHandler(mcp.CreateMessageRequestSchema, ({ params }) => ({
      role: 'assistant',
      model: 'driver',
      content: { type: 'text', text: `reply to ${params.messages.at(-1).content.text}` },
    }));
    this.client.setRequestHandler(mcp.ElicitRequestSchema, ({ params }) => {
      const { required = [] } = params.requestedSchema;
      return { action: 'accept', content: Object.fromEntries(required.map((name) => [name, `answer to ${params.message}`])) };
    });
    this.client.setRequestHandler(mcp.ListRootsRequestSchema, () => ({ roots: [{ uri: ROOT, name: 'one' }] }));
  }

  #listen() {
    const on = (schema, handler) => this.client.setNotificationHandler(schema, handler);
    // Not the SDK's own `onprogress`: that one loses progress which is read together with the answer.
    on(mcp.ProgressNotificationSchema, ({ params }) => this.onprogress.get(params.progressToken)?.(params));
    on(mcp.LoggingMessageNotificationSchema, ({ params }) => void this.logs.push(params));
    on(mcp.ResourceUpdatedNotificationSchema, ({ params }) => void this.updated.push(params.uri));
    on(mcp.ToolListChangedNotificationSchema, () => void (this.changed.tools += 1));
    on(mcp.PromptListChangedNotificationSchema, () => void (this.changed.prompts += 1));
    on(mcp.ResourceListChangedNotificationSchema, () => void (this.changed.resources += 1));
  }

  /** Every item of a list, all pages. */
  async all(method, key) {
    const items = [];
    let cursor;
    for (let page = 1; page <= PAGES_MAX; page += 1) {
      const result = await this.client[method](cursor === undefined ? {} : { cursor });
      items.push(...result[key]);
      cursor = result.nextCursor;
      if (cursor === undefined) return { items, pages: page };
    }
    throw new Error(`more than ${PAGES_MAX} pages`);
  }

  async call(name, args = {}, { onprogress, ...options } = {}) {
    const params = { name, arguments: args };
    if (onprogress) {
      const progressToken = `progress ${this.onprogress.size}`;
      this.onprogress.set(progressToken, onprogress);
      params._meta = { progressToken };
    }
    const result = await this.client.callTool(params, undefined, options);
    if (result.isError) throw new Error(`${name}: ${textOf(result.content)}`);
    return result;
  }

  async text(name, args, options) {
    return textOf((await this.call(name, args, options)).content);
  }

  /** A request outside the SDK, on this session. */
  raw(method, { body, headers = {}, sessionId = this.transport.sessionId, signal } = {}) {
    return fetch(this.url, {
      method,
      signal,
      headers: {
        'content-type': 'application/json',
        accept: method === 'GET' ? 'text/event-stream' : 'application/json, text/event-stream',
        'mcp-protocol-version': this.transport.protocolVersion,
        'mcp-session-id': sessionId,
        ...headers,
      },
      body: body && JSON.stringify({ jsonrpc: '2.0', ...body }),
    });
  }
}

const textOf = (content) => content.map((block) => block.text ?? '').join('\n');

function expect(condition, message) {
  if (!condition) throw new Error(message);
}

function contains(haystack, needle) {
  expect(haystack.includes(needle), `${JSON.stringify(haystack.slice(0, 300))} does not contain ${JSON.stringify(needle)}`);
}

function sameList(actual, expected) {
  expect(JSON.stringify(actual) === JSON.stringify(expected), `got ${JSON.stringify(actual)}, expected ${JSON.stringify(expected)}`);
}

/** Waits until `ready()` is true. */
async function until(ready, what) {
  for (const end = Date.now() + WAIT_MS; Date.now() < end; await sleep(20)) if (await ready()) return;
  throw new Error(`${what} did not happen within ${WAIT_MS} ms`);
}

/** The URI under which a federation offers `uri`: unchanged, or an own one that ends in the same path. */
function offered(uris, uri) {
  const found = uris.find((candidate) => candidate === uri) ?? uris.find((candidate) => candidate.endsWith(uri.split('://')[1]));
  expect(found !== undefined, `${uri} is not among ${uris.join(', ')}`);
  return found;
}

// The features of one target: each gets the session, the target's entry of targets.json and its `named` function,
// and returns a detail for the report.
const FEATURES = {
  async initialize({ client, transport }) {
    const server = client.getServerVersion();
    expect(server?.name, 'no serverInfo');
    for (const part of ['tools', 'prompts', 'resources', 'logging', 'completions']) {
      expect(client.getServerCapabilities()?.[part], `capability ${part} is missing`);
    }
    return `${server.name} at ${transport.protocolVersion ?? mcp.LATEST_PROTOCOL_VERSION}`;
  },
  ping: async ({ client }) => void (await client.ping()),
  async tools(session, target, named) {
    const { items, pages } = await session.all('listTools', 'tools');
    const names = items.map(({ name }) => name);
    expect(new Set(names).size === names.length, 'a tool is listed twice');
    for (const name of target.tools) expect(names.includes(named(name)), `tool ${named(name)} is missing in ${names}`);
    expect(items.every(({ inputSchema }) => inputSchema?.type === 'object'), 'an inputSchema is missing');
    return `${names.length} tools in ${pages} pages`;
  },
  async prompts(session, target, named) {
    const { items, pages } = await session.all('listPrompts', 'prompts');
    for (const name of target.prompts) {
      expect(items.some((prompt) => prompt.name === named(name)), `prompt ${named(name)} is missing`);
    }
    return `${items.length} prompts in ${pages} pages`;
  },
  async resources(session, target) {
    const { items, pages } = await session.all('listResources', 'resources');
    for (const uri of target.resources) offered(items.map((item) => item.uri), uri);
    return `${items.length} resources in ${pages} pages`;
  },
  async templates(session, target) {
    const { items, pages } = await session.all('listResourceTemplates', 'resourceTemplates');
    for (const template of target.templates) offered(items.map((item) => item.uriTemplate), template);
    return `${items.length} templates in ${pages} pages`;
  },
  async call(session, { call }, named) {
    const args = call.argument ? { [call.argument]: 'zażółć 🦀' } : {};
    const text = await session.text(named(call.tool), args);
    contains(text, call.text);
    if (call.argument) contains(text, 'zażółć 🦀');
  },
  async unknown_tool(session, _, named) {
    const outcome = await session.call(named('no_such_tool')).then(() => 'a result', (error) => error);
    expect(outcome instanceof Error, 'a call of an unknown tool succeeded');
    return outcome.message.slice(0, 80);
  },
  async structured(session, { structured }, named) {
    const { structuredContent } = await session.call(named(structured.tool), structured.arguments);
    for (const key of structured.keys) expect(structuredContent?.[key] !== undefined, `${key} is missing`);
    return JSON.stringify(structuredContent);
  },
  async parallel(session, { call }, named) {
    await Promise.all(
      Array.from({ length: PARALLEL }, async (_, index) => {
        const args = call.argument ? { [call.argument]: `call ${index}.` } : {};
        contains(await session.text(named(call.tool), args), call.argument ? `call ${index}.` : call.text);
      }),
    );
    return `${PARALLEL} calls`;
  },
  async large(session, { large }, named) {
    const text = await session.text(named(large.tool), { [large.argument]: LARGE_BYTES });
    expect(text.length === LARGE_BYTES, `got ${text.length} bytes`);
  },
  async progress(session, { progress }, named) {
    const seen = [];
    const onprogress = (event) => seen.push(event.progress);
    await session.call(named(progress.tool), progress.arguments, { onprogress });
    await until(() => seen.length >= progress.steps, `${progress.steps} progress notifications`);
    sameList(seen, Array.from({ length: progress.steps }, (_, index) => index + 1));
  },
  async prompt(session, { prompt }, named) {
    const { messages } = await session.client.getPrompt({ name: named(prompt.name), arguments: prompt.arguments });
    contains(textOf(messages.map((message) => message.content)), prompt.text);
  },
  async read(session, { read }) {
    const { items } = await session.all('listResources', 'resources');
    const uri = offered(items.map((item) => item.uri), read.uri);
    const { contents } = await session.client.readResource({ uri });
    expect(contents[0].uri === uri, `asked for ${uri}, got ${contents[0].uri}`);
    contains(contents[0].text, read.text);
    return uri;
  },
  async template(session, { template }) {
    const { items } = await session.all('listResourceTemplates', 'resourceTemplates');
    const found = offered(items.map((item) => item.uriTemplate), template.template);
    const uri = found.replace(/\{\w+\}/, template.value);
    const { contents } = await session.client.readResource({ uri });
    contains(contents[0].text, template.text);
    return uri;
  },
  async completion(session, { completion }, named) {
    const answer = await session.client.complete({
      ref: { type: 'ref/prompt', name: named(completion.prompt) },
      argument: { name: completion.argument, value: completion.value },
    });
    sameList(answer.completion.values, completion.values);
  },
  async sampling(session, { sampling }, named) {
    const text = await session.text(named(sampling.tool), sampling.arguments);
    contains(text, 'reply to');
    contains(text, sampling.text);
  },
  elicitation: async (session, { elicitation }, named) =>
    contains(await session.text(named(elicitation.tool), elicitation.arguments), elicitation.text),
  roots: async (session, { roots }, named) => contains(await session.text(named(roots.tool), roots.arguments), ROOT),
  async logging(session, { logging }, named) {
    for (const [level, expected] of [['error', logging.quiet], ['info', logging.loud]]) {
      await session.client.setLoggingLevel(level);
      session.logs.length = 0;
      if (logging.tool) await session.call(named(logging.tool));
      else await subscribeOnce(session, logging.subscribe);
      const levels = () => session.logs.filter(({ data }) => JSON.stringify(data).includes(logging.match)).map((log) => log.level);
      await until(() => levels().length >= expected.length, `${expected.length} log messages at ${level}`);
      await sleep(QUIET_MS);
      sameList(levels(), expected);
    }
  },
  async subscription(session, { subscription }, named) {
    const { items } = await session.all('listResources', 'resources');
    const uri = offered(items.map((item) => item.uri), subscription.uri);
    await session.client.subscribeResource({ uri });
    session.updated.length = 0;
    await session.call(named(subscription.tool));
    await until(() => session.updated.includes(uri), `notifications/resources/updated of ${uri}`);
    if (subscription.stop) await session.call(named(subscription.stop));
    await session.client.unsubscribeResource({ uri });
    session.updated.length = 0;
    await session.call(named(subscription.tool));
    await sleep(QUIET_MS);
    sameList(session.updated, []);
    if (subscription.stop) await session.call(named(subscription.stop));
  },
  async cancellation(session, { cancellation, call }, named) {
    const count = async () => Number(await session.text(named(cancellation.observe)));
    const before = cancellation.observe && (await count());
    const controller = new AbortController();
    let started;
    const running = new Promise((resolve) => (started = resolve));
    const outcome = session
      .call(named(cancellation.tool), cancellation.arguments, { signal: controller.signal, onprogress: () => started() })
      .then(() => 'answered', () => 'cancelled');
    await running;
    controller.abort('the driver changed its mind');
    expect((await outcome) === 'cancelled', 'the cancelled call was answered');
    if (cancellation.observe) await until(async () => (await count()) === before + 1, 'a cancellation seen by the server');
    await session.text(named(call.tool), call.argument ? { [call.argument]: 'still here' } : {});
    return cancellation.observe ? 'observed by the server' : 'the server does not tell; the session goes on';
  },
  async list_changed(session, { list_changed: change }, named) {
    const has = async () => {
      if (change.kind === 'resources') {
        const { items } = await session.all('listResources', 'resources');
        return items.some(({ uri }) => uri.includes(change.appears));
      }
      const { items } = await session.all('listTools', 'tools');
      return items.some(({ name }) => name === named(change.appears));
    };
    expect(!(await has()), `${change.appears} is there before`);
    for (const wanted of change.again ? [true, false] : [true]) {
      const before = session.changed[change.kind];
      await session.call(named(change.tool), change.arguments);
      await until(() => session.changed[change.kind] > before, `notifications/${change.kind}/list_changed`);
      await until(async () => (await has()) === wanted, `${change.appears} ${wanted ? 'appears' : 'goes'}`);
    }
  },
  async resume(session, { resume }, named) {
    const controller = new AbortController();
    const body = {
      id: 'resumed call',
      method: 'tools/call',
      params: { name: named(resume.tool), arguments: resume.arguments, _meta: { progressToken: 'resumed progress' } },
    };
    const first = await session.raw('POST', { body, signal: controller.signal });
    let last;
    for await (const event of events(first)) {
      if (event.data) expect(!isAnswer(event), 'answered before the stream could be cut');
      if (event.id) last = event.id;
      if (last !== undefined) break;
    }
    expect(last !== undefined, 'no event id before the stream ended');
    controller.abort();
    await sleep(1000 * (resume.wait_s ?? 0));
    const second = await session.raw('GET', { headers: { 'last-event-id': last }, signal: AbortSignal.timeout(WAIT_MS) });
    expect(second.ok, `GET with Last-Event-ID: status ${second.status}`);
    for await (const event of events(second)) {
      if (event.data && isAnswer(event)) {
        contains(textOf(JSON.parse(event.data).result.content), resume.text);
        return `resumed after event ${last}`;
      }
    }
    throw new Error('the resumed stream ended without the answer');

    function isAnswer({ data }) {
      return JSON.parse(data).id === body.id;
    }
  },
};

async function subscribeOnce(session, uri) {
  const { items } = await session.all('listResources', 'resources');
  const params = { uri: offered(items.map((item) => item.uri), uri) };
  await session.client.subscribeResource(params);
  await session.client.unsubscribeResource(params);
}

async function* events(response) {
  expect(response.headers.get('content-type')?.startsWith('text/event-stream'), 'not an event stream');
  const stream = response.body.pipeThrough(new TextDecoderStream()).pipeThrough(new EventSourceParserStream());
  yield* stream;
}

/** Sampling, elicitation, roots and progress of all targets at the same time: nothing may reach the wrong one. */
async function together(session, targets) {
  const kinds = ['sampling', 'elicitation', 'roots', 'progress', 'parallel'];
  const jobs = targets.flatMap((target) =>
    kinds.filter((kind) => target[kind] || kind === 'parallel').map((kind) => FEATURES[kind](session, target, target.named)),
  );
  await Promise.all(jobs);
  return `${jobs.length} features of ${targets.length} targets at once`;
}

/** Ends the session; whoever still uses it gets 404 and a client can start anew. */
async function session_end(session, targets, gateway) {
  const { sessionId } = session.transport;
  expect(sessionId, 'no session id');
  await session.transport.terminateSession();
  const answer = await session.raw('POST', { sessionId, body: { id: 'after the end', method: 'ping' } });
  const wanted = gateway ? 404 : targets[0].ended_status;
  expect(answer.status === wanted, `status ${answer.status} after DELETE, expected ${wanted}`);
  const fresh = await new Session(session).open();
  expect(fresh.transport.sessionId !== sessionId, 'the session id was given again');
  await FEATURES.tools(fresh, targets[0], targets[0].named);
  await fresh.client.close();
}

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    target: { type: 'string', multiple: true },
    only: { type: 'string' },
    skip: { type: 'string', multiple: true, default: [] },
    stdio: { type: 'string' },
    sse: { type: 'boolean', default: false },
    gateway: { type: 'boolean', default: false },
  },
});
const only = options.only?.split(',');
const skipped = Object.fromEntries(options.skip.map((entry) => entry.split(/=(.*)/s, 2)));
const tally = { passed: 0, failed: 0, skipped: 0 };

async function report(feature, reason, run) {
  if (only && !only.includes(feature.split('/').at(-1))) return;
  if (reason) {
    tally.skipped += 1;
    console.log(JSON.stringify({ feature, skipped: reason }));
    return;
  }
  try {
    const detail = (await run()) ?? '';
    tally.passed += 1;
    console.log(JSON.stringify({ feature, ok: true, detail }));
  } catch (error) {
    tally.failed += 1;
    console.log(JSON.stringify({ feature, ok: false, detail: String(error.message ?? error) }));
  }
}

const targets = (options.target ?? []).map((given) => {
  const [name, prefix = ''] = given.split(/=(.*)/s, 2);
  if (!Object.hasOwn(TARGETS, name)) throw new Error(`unknown target ${name}`);
  return { ...TARGETS[name], label: prefix || name, named: (own) => prefix + own };
});
if (!targets.length) throw new Error('give at least one --target');
const stdio = options.stdio?.split(' ');
const session = new Session(stdio ? { command: stdio } : { url: new URL(positionals[0]), sse: options.sse });
const single = stdio ? 'stdio' : options.sse && 'sse'; // one channel: nothing to resume, no id to end
try {
  await session.open();
  for (const target of targets) {
    for (const [name, feature] of Object.entries(FEATURES)) {
      const reason = skipped[name] ?? target.skip[name] ?? (single && name === 'resume' ? `${single} has no streams to resume` : undefined);
      await report(`${target.label}/${name}`, reason, () => feature(session, target, target.named));
    }
  }
  await report('together', skipped.together, () => together(session, targets));
  await report('session_end', skipped.session_end ?? (single && `${single} has no session id`), () => session_end(session, targets, options.gateway));
  await session.client.close();
} catch (error) {
  await report('connect', undefined, () => Promise.reject(error));
}
console.log(`${tally.passed} passed, ${tally.failed} failed, ${tally.skipped} skipped`);
process.exit(tally.failed || !tally.passed ? 1 : 0);
