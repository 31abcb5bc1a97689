// What a fixture offers, as fixture.json says, apart from any SDK and protocol era. What a call changes is seen by every
// client of the process; `call` is how a running tool reaches its own.
import { appendFileSync, existsSync, readFileSync, statSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

const STEP_MS = 50;
export const LEVELS = ['debug', 'info', 'notice', 'warning', 'error', 'critical', 'alert', 'emergency'];
export const CAPABILITIES = {
  tools: { listChanged: true },
  prompts: { listChanged: true },
  resources: { subscribe: true, listChanged: true },
  logging: {},
  completions: {},
};
export const INSTRUCTIONS = 'Fixture of the conformance suite.';
const INVALID_PARAMS = -32602;

/** Of every fixture: the scheme of its URIs, and a file that counts cancelled calls beyond the life of a process. */
export const OPTIONS = { scheme: { type: 'string', default: 'test' }, cancelled: { type: 'string' } };

let fixture;
let template;
let watched;
let cancelledFile;

/** Takes the options; to be called before anything is offered. */
export function prepare({ scheme, cancelled: file }) {
  const text = readFileSync(new URL('fixture.json', import.meta.url), 'utf8');
  fixture = JSON.parse(text.replaceAll('test://', `${scheme}://`).replaceAll('ui://fixture/', `ui://${scheme}/`));
  template = new RegExp(`^${scheme}://template/([^/]+)/data$`);
  watched = `${scheme}://watched-resource`;
  cancelledFile = file;
}

/** A JSON-RPC error: every SDK answers with the code of what is thrown. */
export class Refusal extends Error {
  constructor(code, message, data) {
    super(message);
    this.code = code;
    this.data = data;
  }
}

export const text = (value) => ({ content: [{ type: 'text', text: value }] });
export const failure = (value) => ({ ...text(value), isError: true });

let extra = false; // whether test_extra is listed
let cancelled = 0; // calls of test_slow

function noteCancelled() {
  cancelled += 1;
  if (cancelledFile) appendFileSync(cancelledFile, '.');
}

function countCancelled() {
  if (!cancelledFile) return cancelled;
  return existsSync(cancelledFile) ? statSync(cancelledFile).size : 0;
}

const tools = () => (extra ? [...fixture.tools, { definition: fixture.extra_tool, result: text('extra') }] : fixture.tools);

/** Tools with an argument that is mirrored into a header. */
export const mirrored = () =>
  fixture.tools.filter(({ definition }) => JSON.stringify(definition.inputSchema).includes('"x-mcp-header"'));

export const listTools = () => ({ tools: tools().map((tool) => tool.definition) });
export const listResources = () => ({ resources: fixture.resources });
export const listTemplates = () => ({ resourceTemplates: fixture.templates });
export const listPrompts = () => ({ prompts: fixture.prompts });

/** `missing`: the code for a resource that does not exist, which differs between the eras. */
export function read(uri, missing) {
  if (Object.hasOwn(fixture.contents, uri)) return { contents: [fixture.contents[uri]] };
  const id = template.exec(uri)?.[1];
  if (id === undefined) throw new Refusal(missing, 'resource not found', { uri });
  const body = JSON.stringify({ id, templateTest: true, data: `Data for ID: ${id}` });
  return { contents: [{ uri, mimeType: 'application/json', text: body }] };
}

export function complete({ argument }) {
  const values = fixture.completions.filter((value) => value.startsWith(argument.value));
  return { completion: { values, total: values.length, hasMore: false } };
}

const message = (content) => ({ role: 'user', content });
const said = (value) => message({ type: 'text', text: value });
const MESSAGES = {
  test_simple_prompt: () => [said('This is a simple prompt for testing.')],
  test_prompt_with_arguments: ({ arg1, arg2 }) => [said(`Prompt with arguments: arg1='${arg1}', arg2='${arg2}'`)],
  test_prompt_with_embedded_resource: ({ resourceUri: uri }) => [
    message({ type: 'resource', resource: { uri, mimeType: 'text/plain', text: 'Embedded resource content for testing.' } }),
    said('Please process the embedded resource above.'),
  ],
  test_prompt_with_image: () => [message(fixture.image), said('Please analyze the image above.')],
};

/** `converse(dialog, arguments)` gives `{ text }`, or `{ result }` that asks the client. */
export async function prompt(params, converse) {
  const found = fixture.prompts.find(({ name }) => name === params.name);
  if (!found) throw new Refusal(INVALID_PARAMS, `unknown prompt ${params.name}`);
  const given = params.arguments ?? {};
  const missing = (found.arguments ?? []).find(({ name }) => given[name] === undefined);
  if (missing) throw new Refusal(INVALID_PARAMS, `missing argument ${missing.name}`);
  const dialog = fixture.prompt_dialogs[params.name];
  if (!dialog) return { description: found.description, messages: MESSAGES[found.name](given) };
  const outcome = await converse(dialog, given);
  return outcome.result ?? { description: found.description, messages: [said(outcome.text)] };
}

/**
 * Runs a tool. `call` has: `log(level, data)`, `progress(value, total)`, `token`, `signal`, `closeStream()`,
 * `changed(kind)` and `updated(uri)` to announce to everybody, `converse(dialog, arguments)` as for prompts (a failure
 * counts as a result too).
 */
export async function callTool(params, call) {
  const entry = tools().find((tool) => tool.definition.name === params.name);
  if (!entry) throw new Refusal(INVALID_PARAMS, `unknown tool ${params.name}`);
  const given = params.arguments ?? {};
  if (entry.result) return entry.result;
  if (!entry.dialog) return CALLS[params.name](given, call);
  if (entry.dialog.progress) await call.progress(entry.dialog.progress, 2);
  const outcome = await call.converse(entry.dialog, given);
  return outcome.result ?? text(outcome.text);
}

// The tools whose result is not fixed and that ask nothing.
const CALLS = {
  async test_tool_with_logging(_, { log }) {
    await log('info', 'Tool execution started');
    await sleep(STEP_MS);
    await log('info', 'Tool processing data');
    await sleep(STEP_MS);
    await log('info', 'Tool execution completed');
    return text('logged three messages');
  },
  async test_logging_tool(_, { log }) {
    await log('info', 'logged once');
    return text('logged one message');
  },
  test_error_handling: async () => failure('This tool intentionally returns an error for testing'),
  async test_tool_with_progress(_, { progress, token }) {
    for (const value of [0, 50, 100]) {
      await progress(value, 100);
      if (value < 100) await sleep(STEP_MS);
    }
    return text(`progress token ${JSON.stringify(token ?? null)}`);
  },
  async test_reconnection(_, { closeStream }) {
    closeStream?.(); // absent outside streams of 2025-11-25
    await sleep(2 * STEP_MS);
    return text('Answered after the stream was closed');
  },
  async test_structured({ a, b }) {
    const structuredContent = { sum: a + b };
    return { ...text(JSON.stringify(structuredContent)), structuredContent };
  },
  test_custom_header: async ({ region }) => text(`region ${region}`),
  async test_slow({ seconds }, { progress, signal }) {
    const steps = Math.ceil((seconds * 1000) / STEP_MS);
    try {
      for (let step = 1; step <= steps; step += 1) {
        await sleep(STEP_MS, undefined, { signal });
        await progress(step, steps);
      }
    } catch (error) {
      if (signal.aborted) noteCancelled();
      throw error;
    }
    return text(`slept ${seconds} s`);
  },
  test_cancellations: async () => text(String(countCancelled())),
  async test_touch(_, { updated }) {
    return text((await updated(watched)) ? 'announced' : 'nobody subscribed');
  },
  async test_toggle(_, { changed }) {
    extra = !extra;
    await changed('tools');
    return text(extra ? 'added' : 'removed');
  },
  async test_trigger_tool_change(_, { changed }) {
    await changed('tools');
    return text('announced');
  },
  async test_trigger_prompt_change(_, { changed }) {
    await changed('prompts');
    return text('announced');
  },
};
