// Drives a server, or a gateway in front of several, with the TypeScript SDK's second line: every feature once.
//
//   client2.mjs URL --target NAME[=PREFIX] [...] [--mode legacy|auto|modern] [--sse]
//   client2.mjs --stdio 'COMMAND ARGS' --target NAME[=PREFIX] [--mode ...]
//
// --mode: with `initialize` (default), by asking the server, or nothing but 2026-07-28. The rest is as in client.mjs.
import { Client, LOG_LEVEL_META_KEY, SSEClientTransport, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio';
import { answers, CAPABILITIES, drive, options, raw } from './features.mjs';

const MODES = { legacy: 'legacy', auto: 'auto', modern: { pin: '2026-07-28' } };
const PAGES = {
  tools: ['listTools', 'tools'],
  prompts: ['listPrompts', 'prompts'],
  resources: ['listResources', 'resources'],
  templates: ['listResourceTemplates', 'resourceTemplates'],
};
const UNCACHED = { cacheMode: 'refresh' };

class Session {
  logs = [];
  updated = [];
  changed = { tools: 0, prompts: 0, resources: 0 };
  #progress = new Map(); // by token
  #level;

  constructor(given) {
    this.given = given;
    this.channel = given.command ? 'stdio' : given.sse ? 'sse' : 'http';
  }

  async open() {
    this.client = new Client(
      { name: 'agentlane-driver-ts2', version: '1.0.0' },
      { capabilities: CAPABILITIES, versionNegotiation: { mode: MODES[this.given.mode] } },
    );
    this.client.setRequestHandler('sampling/createMessage', ({ params }) => answers.sampling(params));
    this.client.setRequestHandler('elicitation/create', ({ params }) => answers.elicitation(params));
    this.client.setRequestHandler('roots/list', answers.roots);
    const on = (method, handler) => this.client.setNotificationHandler(`notifications/${method}`, ({ params }) => handler(params));
    on('progress', (params) => this.#progress.get(params.progressToken)?.(params));
    on('message', (params) => void this.logs.push(params));
    on('resources/updated', ({ uri }) => void this.updated.push(uri));
    on('tools/list_changed', () => void (this.changed.tools += 1));
    on('prompts/list_changed', () => void (this.changed.prompts += 1));
    on('resources/list_changed', () => void (this.changed.resources += 1));
    this.transport = this.#transport();
    await this.client.connect(this.transport);
    this.modern = this.client.getProtocolEra() === 'modern';
    this.sessionId = this.transport.sessionId;
    return this;
  }

  #transport() {
    const { command, url } = this.given;
    if (this.channel === 'stdio') return new StdioClientTransport({ command: command[0], args: command.slice(1), stderr: 'ignore' });
    return this.channel === 'sse' ? new SSEClientTransport(url) : new StreamableHTTPClientTransport(url);
  }

  identity() {
    const revision = this.client.getNegotiatedProtocolVersion();
    return { name: this.client.getServerVersion()?.name, capabilities: this.client.getServerCapabilities(), revision };
  }

  async page(kind, cursor) {
    const [method, key] = PAGES[kind];
    // Tools of all pages at once tell this client which arguments are mirrored into headers.
    const params = kind === 'tools' ? undefined : cursor === undefined ? {} : { cursor };
    const result = await this.client[method](params, UNCACHED);
    return { items: result[key], next: result.nextCursor };
  }

  call(name, args, { progress, signal }) {
    const params = { name, arguments: args, _meta: {} };
    if (progress) {
      params._meta.progressToken = `progress ${this.#progress.size}`;
      this.#progress.set(params._meta.progressToken, progress);
    }
    if (this.#level) params._meta[LOG_LEVEL_META_KEY] = this.#level;
    return this.client.callTool(params, { signal });
  }

  prompt = (params) => this.client.getPrompt(params);
  read = (uri) => this.client.readResource({ uri }, UNCACHED);
  complete = (params) => this.client.complete(params);
  ping = () => this.client.ping();

  async level(level) {
    if (this.modern) this.#level = level;
    else await this.client.setLoggingLevel(level);
  }

  async watch(uri) {
    if (this.modern) return this.#listen({ resourceSubscriptions: [uri] });
    await this.client.subscribeResource({ uri });
    return () => this.client.unsubscribeResource({ uri });
  }

  async watchLists() {
    if (!this.modern) return () => {};
    return this.#listen({ toolsListChanged: true, promptsListChanged: true, resourcesListChanged: true });
  }

  async #listen(filter) {
    const subscription = await this.client.listen(filter);
    return () => subscription.close();
  }

  raw = (method, request) => raw(this.given.url, { ...this.identity(), sessionId: this.sessionId }, method, request);
  reopened = () => new Session(this.given).open();
  end = () => this.client.close();
}

const given = options({ mode: { type: 'string', default: 'legacy' }, sse: { type: 'boolean', default: false } });
await drive(given, () => new Session(given).open());
