// Drives a server, or a gateway in front of several, with the TypeScript SDK's first line: every feature once.
//
//   client.mjs URL --target NAME[=PREFIX[,SCHEME]] [--target ...] [--only FEATURE,...]
//             [--skip FEATURE=REASON] [--gateway] [--sse]
//   client.mjs --stdio 'COMMAND ARGS' --target NAME[=PREFIX]
//
// NAME is a key of targets.json; PREFIX is what a federation puts before the target's tool and prompt names,
// SCHEME that of a fixture's URIs when it was given one.
// --gateway: an ended session must be answered 404, as the specification says, even where the target itself differs.
// --sse: the HTTP+SSE transport of 2024-11-05; URL is that of the stream.
// Prints one JSON line per feature, `{"feature", "ok", "detail"}` or `{"feature", "skipped"}`, then
// `N passed, N failed, N skipped`. Exit code 1 if anything failed.
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { SSEClientTransport } from '@modelcontextprotocol/sdk/client/sse.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import * as mcp from '@modelcontextprotocol/sdk/types.js';
import { answers, CAPABILITIES, drive, options, raw } from './features.mjs';

const PAGES = {
  tools: ['listTools', 'tools'],
  prompts: ['listPrompts', 'prompts'],
  resources: ['listResources', 'resources'],
  templates: ['listResourceTemplates', 'resourceTemplates'],
};

class Session {
  modern = false;
  logs = [];
  updated = [];
  changed = { tools: 0, prompts: 0, resources: 0 };
  #progress = new Map(); // by token

  constructor(given) {
    this.given = given;
    this.channel = given.command ? 'stdio' : given.sse ? 'sse' : 'http';
  }

  async open() {
    this.client = new Client({ name: 'agentlane-driver-ts', version: '1.0.0' }, { capabilities: CAPABILITIES });
    const asked = (schema, answer) => this.client.setRequestHandler(schema, ({ params }) => answer(params));
    asked(mcp.CreateMessageRequestSchema, answers.sampling);
    asked(mcp.ElicitRequestSchema, answers.elicitation);
    asked(mcp.ListRootsRequestSchema, answers.roots);
    const on = (schema, handler) => this.client.setNotificationHandler(schema, handler);
    // Not the SDK's own `onprogress`: that one loses progress which is read together with the answer.
    on(mcp.ProgressNotificationSchema, ({ params }) => this.#progress.get(params.progressToken)?.(params));
    on(mcp.LoggingMessageNotificationSchema, ({ params }) => void this.logs.push(params));
    on(mcp.ResourceUpdatedNotificationSchema, ({ params }) => void this.updated.push(params.uri));
    on(mcp.ToolListChangedNotificationSchema, () => void (this.changed.tools += 1));
    on(mcp.PromptListChangedNotificationSchema, () => void (this.changed.prompts += 1));
    on(mcp.ResourceListChangedNotificationSchema, () => void (this.changed.resources += 1));
    this.transport = this.#transport();
    await this.client.connect(this.transport);
    this.sessionId = this.transport.sessionId;
    return this;
  }

  #transport() {
    const { command, url } = this.given;
    if (this.channel === 'stdio') return new StdioClientTransport({ command: command[0], args: command.slice(1), stderr: 'ignore' });
    return this.channel === 'sse' ? new SSEClientTransport(url) : new StreamableHTTPClientTransport(url);
  }

  identity() {
    const revision = this.transport.protocolVersion ?? mcp.LATEST_PROTOCOL_VERSION;
    return { name: this.client.getServerVersion()?.name, capabilities: this.client.getServerCapabilities(), revision };
  }

  async page(kind, cursor) {
    const [method, key] = PAGES[kind];
    const result = await this.client[method](cursor === undefined ? {} : { cursor });
    return { items: result[key], next: result.nextCursor };
  }

  call(name, args, { progress, signal }) {
    const params = { name, arguments: args };
    if (progress) {
      const progressToken = `progress ${this.#progress.size}`;
      this.#progress.set(progressToken, progress);
      params._meta = { progressToken };
    }
    return this.client.callTool(params, undefined, { signal });
  }

  /** Runs a tool as a task to its end, or cancels it as soon as it is one. */
  async task(name, args, { cancelled = false } = {}) {
    const { tasks } = this.client.experimental;
    const ran = { statuses: [] };
    for await (const message of tasks.callToolStream({ name, arguments: args }, undefined, { task: { ttl: 60_000 } })) {
      if (message.type === 'taskCreated') {
        ran.id = message.task.taskId;
        if (cancelled) {
          await tasks.cancelTask(ran.id);
          return ran;
        }
      } else if (message.type === 'taskStatus') ran.statuses.push(message.task.status);
      else if (message.type === 'result') ran.result = message.result;
      else throw message.error;
    }
    return ran;
  }

  tasks = async () => (await this.client.experimental.tasks.listTasks()).tasks.map(({ taskId }) => taskId);
  taskStatus = (id) => this.client.experimental.tasks.getTask(id);
  prompt = (params) => this.client.getPrompt(params);
  read = (uri) => this.client.readResource({ uri });
  complete = (params) => this.client.complete(params);
  ping = () => this.client.ping();
  level = (level) => this.client.setLoggingLevel(level);

  async watch(uri) {
    await this.client.subscribeResource({ uri });
    return () => this.client.unsubscribeResource({ uri });
  }

  /** They arrive anyway. */
  watchLists = async () => () => {};
  raw = (method, request) => raw(this.given.url, { ...this.identity(), sessionId: this.sessionId }, method, request);
  reopened = () => new Session(this.given).open();
  end = () => this.client.close();
}

const given = options({ sse: { type: 'boolean', default: false } });
await drive(given, () => new Session(given).open());
