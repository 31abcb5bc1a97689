// Every feature of MCP once, for drivers on any SDK. A driver gives a `session`:
//
//   modern                      whether it speaks 2026-07-28
//   channel                     http, or one for everything: stdio, sse (HTTP+SSE of 2024-11-05)
//   identity()                  { name, capabilities, revision }
//   page(kind, cursor)          one page of tools, prompts, resources or templates: { items, next }
//   call(name, args, options)   a tool's result; options: progress(params), signal
//   prompt(params), read(uri), complete(params), ping()
//   level(level)                asks for log messages of later calls from that level on
//   watch(uri)                  subscribes to a resource; gives what ends that
//   watchLists()                makes sure that changes of lists arrive; gives what ends that
//   logs, updated, changed      what the server sent without being asked
//   raw(method, options)        a request outside the SDK on this session; only where there is one
//   reopened()                  another session, as a new client has it
//   end()
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { EventSourceParserStream } from 'eventsource-parser/stream';

const WAIT_MS = 5000; // for anything that must arrive
const QUIET_MS = 300; // for anything that must not
const FEATURE_MS = 12_000; // for one feature
const PARALLEL = 20;
const LARGE_BYTES = 3 << 20;
const PAGES_MAX = 100;
export const ROOT = 'file:///project/one';
const TARGETS = JSON.parse(readFileSync(new URL('targets.json', import.meta.url)));

/** What a client of these drivers declares. */
export const CAPABILITIES = {
  sampling: { tools: {} },
  elicitation: { form: {}, url: {} },
  roots: { listChanged: true },
};

/** The answers of a client: to sampling, elicitation and roots. */
export const answers = {
  sampling: ({ messages }) => ({
    role: 'assistant',
    model: 'driver',
    content: { type: 'text', text: `reply to ${messages.at(-1).content.text}` },
  }),
  elicitation({ mode, message, requestedSchema }) {
    if (mode === 'url') return { action: 'accept' };
    const { properties = {}, required = [] } = requestedSchema;
    const value = (name) => ({ boolean: true, integer: 7, number: 7 })[properties[name]?.type] ?? `answer to ${message}`;
    return { action: 'accept', content: Object.fromEntries(required.map((name) => [name, value(name)])) };
  },
  roots: () => ({ roots: [{ uri: ROOT, name: 'one' }] }),
};

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

/** Every item of a list, all pages. */
async function all(session, kind) {
  const items = [];
  let cursor;
  for (let page = 1; page <= PAGES_MAX; page += 1) {
    const { items: more, next } = await session.page(kind, cursor);
    items.push(...more);
    cursor = next;
    if (cursor === undefined) return { items, pages: page };
  }
  throw new Error(`more than ${PAGES_MAX} pages`);
}

const uris = async (session) => (await all(session, 'resources')).items.map(({ uri }) => uri);

async function called(session, name, args = {}, options = {}) {
  const result = await session.call(name, args, options);
  if (result.isError) throw new Error(`${name}: ${textOf(result.content)}`);
  return result;
}

const text = async (...given) => textOf((await called(...given)).content);

/** A feature that calls a tool which asks the client. */
const asking = (key) => async (session, target, named) => {
  const { tool, arguments: args, text: wanted } = target[key];
  contains(await text(session, named(tool), args), wanted);
};

// The features of one target: each gets the session, the target's entry of targets.json and its `named` function,
// and returns a detail for the report.
const FEATURES = {
  async initialize(session) {
    const { name, capabilities, revision } = session.identity();
    expect(name, 'no serverInfo');
    for (const part of ['tools', 'prompts', 'resources', 'logging', 'completions']) {
      expect(capabilities?.[part], `capability ${part} is missing`);
    }
    return `${name} at ${revision}`;
  },
  ping: async (session) => void (await session.ping()),
  async tools(session, target, named) {
    const { items, pages } = await all(session, 'tools');
    const names = items.map(({ name }) => name);
    expect(new Set(names).size === names.length, 'a tool is listed twice');
    for (const name of target.tools) expect(names.includes(named(name)), `tool ${named(name)} is missing in ${names}`);
    expect(items.every(({ inputSchema }) => inputSchema?.type === 'object'), 'an inputSchema is missing');
    return `${names.length} tools in ${pages} pages`;
  },
  async annotated(session, { annotated }, named) {
    const { items } = await all(session, 'tools');
    const tool = items.find(({ name }) => name === named(annotated.tool));
    for (const [key, value] of Object.entries(annotated.definition)) {
      expect(JSON.stringify(tool?.[key])?.includes(value), `${key} is ${JSON.stringify(tool?.[key])}, without ${value}`);
    }
    const result = await called(session, named(annotated.tool));
    for (const part of annotated.result) contains(JSON.stringify(result), part);
  },
  /** A tool of 2025-11-25 that is only called as a task, and asks its client while it runs. */
  async task(session, { task }, named) {
    const { items } = await all(session, 'tools');
    const tool = items.find(({ name }) => name === named(task.tool));
    expect(tool?.execution?.taskSupport === 'required', `${named(task.tool)} is shown as ${JSON.stringify(tool?.execution)}`);
    const ran = await session.task(named(task.tool), task.arguments);
    for (const status of task.statuses) expect(ran.statuses.includes(status), `${status} is missing in ${ran.statuses}`);
    contains(JSON.stringify(ran.result.content), task.text);
    expect((await session.tasks()).includes(ran.id), 'the task is not listed');
    const { id } = await session.task(named(task.tool), task.arguments, { cancelled: true });
    const { status } = await session.taskStatus(id);
    expect(status === 'cancelled', `a cancelled task is ${status}`);
    return ran.statuses.join(' ');
  },
  async prompts(session, target, named) {
    const { items, pages } = await all(session, 'prompts');
    for (const name of target.prompts) {
      expect(items.some((prompt) => prompt.name === named(name)), `prompt ${named(name)} is missing`);
    }
    return `${items.length} prompts in ${pages} pages`;
  },
  async resources(session, target) {
    const { items, pages } = await all(session, 'resources');
    for (const uri of target.resources) offered(items.map((item) => item.uri), uri);
    return `${items.length} resources in ${pages} pages`;
  },
  async templates(session, target) {
    const { items, pages } = await all(session, 'templates');
    for (const template of target.templates) offered(items.map((item) => item.uriTemplate), template);
    return `${items.length} templates in ${pages} pages`;
  },
  async call(session, { call }, named) {
    const args = call.argument ? { [call.argument]: 'zażółć 🦀' } : {};
    const said = await text(session, named(call.tool), args);
    contains(said, call.text);
    if (call.argument) contains(said, 'zażółć 🦀');
  },
  async unknown_tool(session, _, named) {
    const outcome = await called(session, named('no_such_tool')).then(() => 'a result', (error) => error);
    expect(outcome instanceof Error, 'a call of an unknown tool succeeded');
    return outcome.message.slice(0, 80);
  },
  async structured(session, { structured }, named) {
    const { structuredContent } = await called(session, named(structured.tool), structured.arguments);
    for (const key of structured.keys) expect(structuredContent?.[key] !== undefined, `${key} is missing`);
    return JSON.stringify(structuredContent);
  },
  async header(session, { header }, named) {
    await all(session, 'tools'); // tells the client which arguments are mirrored
    contains(await text(session, named(header.tool), header.arguments), header.text);
  },
  async parallel(session, { call }, named) {
    await Promise.all(
      Array.from({ length: PARALLEL }, async (_, index) => {
        const args = call.argument ? { [call.argument]: `call ${index}.` } : {};
        contains(await text(session, named(call.tool), args), call.argument ? `call ${index}.` : call.text);
      }),
    );
    return `${PARALLEL} calls`;
  },
  async large(session, { large }, named) {
    const said = await text(session, named(large.tool), { [large.argument]: LARGE_BYTES });
    expect(said.length === LARGE_BYTES, `got ${said.length} bytes`);
  },
  async progress(session, { progress }, named) {
    const seen = [];
    await called(session, named(progress.tool), progress.arguments, { progress: (event) => seen.push(event.progress) });
    await until(() => seen.length >= progress.steps, `${progress.steps} progress notifications`);
    sameList(seen, Array.from({ length: progress.steps }, (_, index) => index + 1));
  },
  async prompt(session, { prompt }, named) {
    const { messages } = await session.prompt({ name: named(prompt.name), arguments: prompt.arguments });
    contains(textOf(messages.map((message) => message.content)), prompt.text);
  },
  async prompt_input(session, { prompt_input: about }, named) {
    const { messages } = await session.prompt({ name: named(about.name), arguments: {} });
    contains(textOf(messages.map((message) => message.content)), about.text);
  },
  async read(session, { read }) {
    const uri = offered(await uris(session), read.uri);
    const { contents } = await session.read(uri);
    expect(contents[0].uri === uri, `asked for ${uri}, got ${contents[0].uri}`);
    contains(contents[0].text, read.text);
    return uri;
  },
  async unknown_resource(session) {
    const outcome = await session.read('test://no-such/resource').then(() => 'a result', (error) => error);
    expect(outcome instanceof Error, 'an unknown resource was read');
    return `${outcome.code}: ${outcome.message.slice(0, 80)}`;
  },
  async template(session, { template }) {
    const { items } = await all(session, 'templates');
    const found = offered(items.map((item) => item.uriTemplate), template.template);
    const uri = found.replace(/\{\w+\}/, template.value);
    contains((await session.read(uri)).contents[0].text, template.text);
    return uri;
  },
  async app(session, { app }) {
    const uri = offered(await uris(session), app.uri);
    const { contents } = await session.read(uri);
    for (const part of app.parts) contains(JSON.stringify(contents[0]), part);
  },
  async completion(session, { completion }, named) {
    const answer = await session.complete({
      ref: { type: 'ref/prompt', name: named(completion.prompt) },
      argument: { name: completion.argument, value: completion.value },
    });
    sameList(answer.completion.values, completion.values);
  },
  async sampling(session, { sampling }, named) {
    const said = await text(session, named(sampling.tool), sampling.arguments);
    contains(said, 'reply to');
    contains(said, sampling.text);
  },
  sampling_tools: asking('sampling_tools'),
  elicitation: asking('elicitation'),
  elicitation_url: asking('elicitation_url'),
  roots: async (session, { roots }, named) => contains(await text(session, named(roots.tool), roots.arguments), ROOT),
  inputs: asking('inputs'),
  rounds: asking('rounds'),
  reconnection: asking('reconnection'),
  async logging(session, { logging }, named) {
    for (const [level, expected] of [['error', logging.quiet], ['info', logging.loud]]) {
      await session.level(level);
      session.logs.length = 0;
      if (logging.tool) await called(session, named(logging.tool));
      else await (await session.watch(offered(await uris(session), logging.subscribe)))();
      const levels = () => session.logs.filter(({ data }) => JSON.stringify(data).includes(logging.match)).map((log) => log.level);
      await until(() => levels().length >= expected.length, `${expected.length} log messages at ${level}`);
      await sleep(QUIET_MS);
      sameList(levels(), expected);
    }
  },
  async subscription(session, { subscription }, named) {
    const uri = offered(await uris(session), subscription.uri);
    const stop = await session.watch(uri);
    session.updated.length = 0;
    await called(session, named(subscription.tool));
    await until(() => session.updated.includes(uri), `notifications/resources/updated of ${uri}`);
    if (subscription.stop) await called(session, named(subscription.stop));
    await stop();
    if (session.modern) await sleep(QUIET_MS); // nobody confirms the end of a listening
    session.updated.length = 0;
    await called(session, named(subscription.tool));
    await sleep(QUIET_MS);
    sameList(session.updated, []);
    if (subscription.stop) await called(session, named(subscription.stop));
  },
  async cancellation(session, { cancellation, call }, named) {
    const count = async () => Number(await text(session, named(cancellation.observe)));
    const before = cancellation.observe && (await count());
    const controller = new AbortController();
    let started;
    const running = new Promise((resolve) => (started = resolve));
    const outcome = called(session, named(cancellation.tool), cancellation.arguments, {
      signal: controller.signal,
      progress: () => started(),
    }).then(() => 'answered', (error) => `cancelled: ${error.message}`);
    await Promise.race([running, outcome.then((early) => Promise.reject(new Error(`before any progress: ${early}`)))]);
    controller.abort('the driver changed its mind');
    contains(await outcome, 'cancelled');
    if (cancellation.observe) await until(async () => (await count()) === before + 1, 'a cancellation seen by the server');
    await text(session, named(call.tool), call.argument ? { [call.argument]: 'still here' } : {});
    return cancellation.observe ? 'observed by the server' : 'the server does not tell; the session goes on';
  },
  async list_changed(session, { list_changed: change }, named) {
    const has = async () => {
      if (change.kind === 'resources') return (await uris(session)).some((uri) => uri.includes(change.appears));
      const { items } = await all(session, 'tools');
      return items.some(({ name }) => name === named(change.appears));
    };
    const stop = await session.watchLists();
    try {
      if (await has()) await called(session, named(change.tool), change.arguments); // left there by somebody who failed
      expect(!(await has()), `${change.appears} is there before`);
      for (const wanted of change.again ? [true, false] : [true]) {
        const before = session.changed[change.kind];
        await called(session, named(change.tool), change.arguments);
        await until(() => session.changed[change.kind] > before, `notifications/${change.kind}/list_changed`);
        await until(async () => (await has()) === wanted, `${change.appears} ${wanted ? 'appears' : 'goes'}`);
      }
    } finally {
      await stop();
    }
  },
  async resume(session, { resume }, named) {
    const controller = new AbortController();
    const body = {
      id: 'resumed call',
      method: 'tools/call',
      params: { name: named(resume.tool), arguments: resume.arguments, _meta: { progressToken: 'resumed progress' } },
    };
    const isAnswer = ({ data }) => JSON.parse(data).id === body.id;
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
  },
};

async function* events(response) {
  expect(response.headers.get('content-type')?.startsWith('text/event-stream'), 'not an event stream');
  const stream = response.body.pipeThrough(new TextDecoderStream()).pipeThrough(new EventSourceParserStream());
  yield* stream;
}

/** Sampling, elicitation, roots and progress of all targets at the same time: nothing may reach the wrong one. */
async function together(session, targets) {
  const kinds = ['sampling', 'elicitation', 'roots', 'progress', 'parallel'];
  const jobs = targets.flatMap((target) =>
    kinds.filter((kind) => !target.skip[kind]).map((kind) => FEATURES[kind](session, target, target.named)),
  );
  await Promise.all(jobs);
  return `${jobs.length} features of ${targets.length} targets at once`;
}

/** Ends the session; whoever still uses it gets 404 and a client can start anew. */
async function session_end(session, targets, gateway) {
  const answer = await session.raw('DELETE');
  expect(answer.ok, `status ${answer.status} to DELETE`);
  const late = await session.raw('POST', { body: { id: 'after the end', method: 'ping' } });
  const wanted = gateway ? 404 : targets[0].ended_status;
  expect(late.status === wanted, `status ${late.status} after DELETE, expected ${wanted}`);
  const fresh = await session.reopened();
  expect(fresh.sessionId !== session.sessionId, 'the session id was given again');
  await FEATURES.tools(fresh, targets[0], targets[0].named);
  await fresh.end();
}

const OF_SESSIONS = { ping: true, resume: true, session_end: true };

/** Why a feature cannot be driven on this session at all. */
function impossible(session, feature) {
  if (feature === 'task' && !session.task) return 'this SDK has no tasks of 2025-11-25';
  if (session.modern && OF_SESSIONS[feature]) return 'not part of 2026-07-28';
  if (session.channel !== 'http' && (feature === 'resume' || feature === 'session_end')) {
    return `${session.channel} has no streams to resume and no session ids`;
  }
  return undefined;
}

/** Of `NAME[=PREFIX[,SCHEME]]`: the entry of targets.json, with a scheme of its own for its URIs. */
function chosen(given) {
  const [, name, prefix = '', scheme = 'test'] = /^([^=]+)(?:=([^,]*)(?:,(.+))?)?$/.exec(given);
  if (!Object.hasOwn(TARGETS, name)) throw new Error(`unknown target ${name}`);
  const text = JSON.stringify(TARGETS[name]).replaceAll('test://', `${scheme}://`).replaceAll('ui://fixture/', `ui://${scheme}/`);
  return { ...JSON.parse(text), label: prefix || name, named: (own) => prefix + own };
}

/** The command line of every driver; `more` are the options of one. */
export function options(more = {}) {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      target: { type: 'string', multiple: true, default: [] },
      only: { type: 'string' },
      skip: { type: 'string', multiple: true, default: [] },
      stdio: { type: 'string' },
      gateway: { type: 'boolean', default: false },
      ...more,
    },
  });
  return { ...values, url: positionals[0] && new URL(positionals[0]), command: values.stdio?.split(' ') };
}

/** Opens a session and runs the features; prints one line for each and the counts. Never returns. */
export async function drive(given, open) {
  const only = given.only?.split(',');
  const skipped = Object.fromEntries(given.skip.map((entry) => entry.split(/=(.*)/s, 2)));
  const targets = given.target.map(chosen);
  if (!targets.length) throw new Error('give at least one --target');
  const tally = { passed: 0, failed: 0, skipped: 0 };

  async function report(feature, reason, run) {
    if (only && !only.includes(feature.split('/').at(-1))) return;
    if (reason) {
      tally.skipped += 1;
      console.log(JSON.stringify({ feature, skipped: reason }));
      return;
    }
    const late = sleep(FEATURE_MS, undefined, { ref: false }).then(() => {
      throw new Error(`not over within ${FEATURE_MS} ms`);
    });
    try {
      const detail = (await Promise.race([run(), late])) ?? '';
      tally.passed += 1;
      console.log(JSON.stringify({ feature, ok: true, detail }));
    } catch (error) {
      tally.failed += 1;
      console.log(JSON.stringify({ feature, ok: false, detail: String(error.message ?? error) }));
    }
  }

  try {
    const session = await open();
    for (const target of targets) {
      for (const [name, feature] of Object.entries(FEATURES)) {
        const reason = skipped[name] ?? target.skip[name] ?? impossible(session, name);
        await report(`${target.label}/${name}`, reason, () => feature(session, target, target.named));
      }
    }
    await report('together', skipped.together, () => together(session, targets));
    const reason = skipped.session_end ?? impossible(session, 'session_end');
    await report('session_end', reason, () => session_end(session, targets, given.gateway));
    await session.end();
  } catch (error) {
    await report('connect', undefined, () => Promise.reject(error));
  }
  console.log(`${tally.passed} passed, ${tally.failed} failed, ${tally.skipped} skipped`);
  process.exit(tally.failed || !tally.passed ? 1 : 0);
}

/** A request outside the SDK on a session over HTTP. */
export function raw(url, { revision, sessionId }, method, { body, headers = {}, signal } = {}) {
  return fetch(url, {
    method,
    signal,
    headers: {
      'content-type': 'application/json',
      accept: method === 'GET' ? 'text/event-stream' : 'application/json, text/event-stream',
      'mcp-protocol-version': revision,
      'mcp-session-id': sessionId,
      ...headers,
    },
    body: body && JSON.stringify({ jsonrpc: '2.0', ...body }),
  });
}
