// Conversations of a fixture with its client, as fixture.json describes them: rounds of requests, then a text. Knows
// no SDK: whoever drives it sends the requests of a round in the way of its protocol revision.
import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';

const KEY = randomBytes(32);
const START = { round: 0, answers: {} };

// Whether an answer has the shape that its request wants; what does not is asked for again.
const SHAPES = {
  'elicitation/create': (answer) => typeof answer?.action === 'string',
  'sampling/createMessage': (answer) => answer?.role !== undefined && answer.content !== undefined,
  'roots/list': (answer) => Array.isArray(answer?.roots),
};

/** The capability that a request needs, as a ClientCapabilities object. */
export function needed({ method, params }) {
  if (method === 'roots/list') return { roots: {} };
  if (method === 'sampling/createMessage') return { sampling: params.tools ? { tools: {} } : {} };
  return { elicitation: params.mode === 'url' ? { url: {} } : {} };
}

/** Whether `declared` (ClientCapabilities) allows the request. An elicitation without modes means forms. */
export function allowed(request, declared = {}) {
  const [[kind, parts]] = Object.entries(needed(request));
  const given = declared[kind];
  if (!given) return false;
  if (kind === 'elicitation' && !parts.url) return given.form !== undefined || given.url === undefined;
  return Object.keys(parts).every((part) => given[part] !== undefined);
}

/**
 * One step: `{ ask, state }` with the requests that are still to be answered, or `{ text }` when the dialog is over.
 * `responses` are answers by the requests' keys; unknown keys are ignored.
 */
export function advance(dialog, args, { state, responses, declared } = {}) {
  let { round, answers } = state ?? START;
  const asked = (index) =>
    Object.entries(dialog.rounds[index]).filter(([, request]) => !dialog.declared_only || allowed(request, declared));
  const answered = ([key, { method }]) => SHAPES[method](responses?.[key]);
  if (asked(round).every(answered)) {
    answers = { ...answers, ...Object.fromEntries(asked(round).map(([key]) => [key, responses?.[key]])) };
    round += 1;
  }
  if (round === dialog.rounds.length) return { text: filled(dialog.text, { arguments: args, ...answers }) };
  const ask = asked(round).map(([key, request]) => [key, filledDeep(request, { arguments: args })]);
  return { ask: Object.fromEntries(ask), state: { round, answers } };
}

/** `{a.b}` in a template becomes that value: strings as they are, anything else as JSON, what is missing as nothing. */
function filled(template, values) {
  return template.replace(/\{([a-z0-9_.]+)\}/g, (_, path) => {
    const value = path.split('.').reduce((from, part) => from?.[part], values);
    return typeof value === 'string' ? value : (JSON.stringify(value) ?? '');
  });
}

function filledDeep(value, values) {
  if (typeof value === 'string') return filled(value, values);
  if (Array.isArray(value)) return value.map((part) => filledDeep(part, values));
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, filledDeep(part, values)]));
}

const signature = (payload) => createHmac('sha256', KEY).update(payload).digest('base64url');

/** A state as a string that cannot be changed by whoever carries it. */
export function seal(state) {
  const payload = Buffer.from(JSON.stringify(state)).toString('base64url');
  return `${payload}.${signature(payload)}`;
}

/** The state of a string made by `seal`; throws for any other. */
export function unseal(sealed) {
  const [payload, given, ...rest] = sealed.split('.');
  const wanted = Buffer.from(signature(payload));
  const shown = Buffer.from(given ?? '');
  if (rest.length || shown.length !== wanted.length || !timingSafeEqual(shown, wanted)) throw new Error('not our state');
  return JSON.parse(Buffer.from(payload, 'base64url'));
}
