//! What an author of a plugin in JavaScript imports, whatever its kind: settings, state, time, log lines. The twin of
//! `plugins/sdk/src` in Rust and of `plugins/sdk/python` in Python: the same calls give the same answers in all three.

import './pure.js';
import { emit } from 'farseal:plugin/log@0.1.0';
import * as form from './form.js';
import { MOST, strict } from './form.js';

// Times, spans and sizes are BigInt, in milliseconds and bytes.

/** Far more decisions than any policy makes: behind it there would soon be no number left. */
const LAST_ID = MOST >> 1n;

const LEVEL = form.oneOf('trace', 'debug', 'info', 'warn', 'error');
const COMPLAINTS = form.list(form.record({ path: form.text, message: form.text, help: form.optional(form.text) }));
const DECLARED = {
  name: form.text,
  version: form.text,
  summary: form.text,
  stateSchema: form.optional(form.u32),
  understands: form.optional(form.list(form.text)),
  settings: form.object,
  check: form.optional(form.call),
  first: form.call,
  read: form.call,
  step: form.call,
};
/** The contract's errors. */
const ERRORS = ['invalid-config', 'invalid-state', 'unsupported', 'rejected', 'internal'];

/** Characters of settings. */
const LONGEST_CONFIG = 8192;
/** Characters of a wrong value that are quoted. */
const LONGEST_VALUE = 200;
/** Characters of a mistake that are told. */
const LONGEST_MISTAKE = 2000;

// Largest first, as they are written.
const SPANS = [['w', 604800000n], ['d', 86400000n], ['h', 3600000n], ['m', 60000n], ['s', 1000n], ['ms', 1n]];
const SIZES = [
  ['PiB', 1n << 50n], ['TiB', 1n << 40n], ['GiB', 1n << 30n], ['MiB', 1n << 20n], ['KiB', 1n << 10n], ['B', 1n],
];

/** Later by the span; the last instant there is when that overflows. */
export const later = (instant, span) => lower(instant + span, MOST);
/** From the earlier to the later; zero when `earlier` is the later one, as after a clock that stepped back. */
export const between = (earlier, instant) => (instant > earlier ? instant - earlier : 0n);
export const lower = (one, other) => (one < other ? one : other);
export const higher = (one, other) => (one > other ? one : other);

/** `1h30m` of milliseconds. Without weeks: "90d" says more than "12w6d". */
export const spanText = (millis) => withUnits(millis, SPANS.slice(1), '0s');
/** `1GiB512MiB` of bytes. */
export const sizeText = (bytes) => withUnits(bytes, SIZES, '0B');

/** A line for the operator at level `debug`, `info`, `warn` or `error`, with any fields that print. */
export function log(level, message, fields = {}) {
  LEVEL(level, 'the level of log');
  emit(level, String(message), Object.entries(fields).map(([key, value]) => ({ key, value: String(value) })));
}

// Settings: each is its schema, its default as JSON, and how it is read. `undefined` from `read` is a complaint.

/** A span of time such as `"1h30m"`. */
export const span = (byDefault, about) => ({
  schema: { type: 'string', pattern: '^([0-9]+(ms|s|m|h|d|w))+$', description: about, default: byDefault },
  read: (value) => fromUnits(value, SPANS),
  what: 'a span of time',
  example: '"250ms", "15m", "1h30m", "90d"',
});
/** A size such as `"64GiB"`. */
export const size = (byDefault, about) => ({
  schema: { type: 'string', pattern: '^([0-9]+(B|KiB|MiB|GiB|TiB|PiB))+$', description: about, default: byDefault },
  read: (value) => fromUnits(value, SIZES),
  what: 'a size',
  example: '"512MiB", "64GiB"',
});
/** A whole number from `least` to `most`. */
export const whole = (byDefault, about, least = 0, most = 4294967295) => ({
  schema: { type: 'integer', minimum: least, maximum: most, description: about, default: byDefault },
  read: (value) => (Number.isInteger(value) && value >= least && value <= most ? value : undefined),
  what: `a whole number from ${least} to ${most}`,
  example: String(byDefault),
});
export const text = (byDefault, about) => ({
  schema: { type: 'string', description: about, default: byDefault },
  read: (value) => (typeof value === 'string' ? value : undefined),
  what: 'a text',
  example: '"text"',
});

/** The settings that the operator wrote, or every complaint about them. */
export function readSettings(declared, config) {
  // An interpreter takes hundreds of units of fuel a character; nobody writes so many.
  if (config.length > LONGEST_CONFIG) {
    return { wrong: [complaint('', `settings of ${config.length} characters; more than ${LONGEST_CONFIG} are not read`)] };
  }
  let given;
  try {
    given = JSON.parse(config);
  } catch (error) {
    return { wrong: [complaint('', `not JSON: ${error.message}`)] };
  }
  if (given === null || typeof given !== 'object' || Array.isArray(given)) {
    return { wrong: [complaint('', 'the settings must be a JSON object')] };
  }
  const settings = {};
  const wrong = [];
  for (const [name, { schema, read, what, example }] of Object.entries(declared)) {
    const value = Object.hasOwn(given, name) ? given[name] : schema.default;
    settings[name] = read(value);
    if (settings[name] === undefined) {
      const quoted = JSON.stringify(value).slice(0, LONGEST_VALUE);
      wrong.push(complaint(`/${name}`, `${quoted} is not ${what}`, `for example ${example}`));
    }
  }
  const known = Object.keys(declared);
  const help = known.length === 0 ? 'there are no settings' : `there are: ${known.join(', ')}`;
  for (const name of Object.keys(given).filter((name) => !known.includes(name)).sort()) {
    const pointer = name.replaceAll('~', '~0').replaceAll('/', '~1');
    wrong.push(complaint(`/${pointer}`, `there is no setting "${name}"`, help));
  }
  return { settings, wrong };
}

/** A complaint about a setting, for checks that go beyond one of them. */
export const wrong = (name, message, help) => complaint(`/${name}`, message, help);

/** What an author declares of a plugin, whatever its kind; what only some have comes with it. */
export const declared = (plugin, place, more = {}) => form.record({ ...DECLARED, ...more })(plugin, place);

/** The interface `meta` of a plugin: `{name, version, summary, stateSchema, understands, settings, check}`. */
export function metaOf(plugin) {
  const { name, version, summary, stateSchema = 0, understands = [], settings } = plugin;
  const properties = Object.fromEntries(Object.entries(settings).map(([key, { schema }]) => [key, schema]));
  const configSchema = JSON.stringify({
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    type: 'object',
    additionalProperties: false,
    properties,
  });
  return {
    describe: () => ({ name, version, summary, stateSchema, configSchema, understands }),
    checkConfig: told((config) => complaints(plugin, config).wrong),
  };
}

/** The settings of a call, or the error that ends it. */
export function settingsOf(plugin, config) {
  const { settings, wrong } = complaints(plugin, config);
  if (wrong.length > 0) throw { tag: 'invalid-config', val: wrong };
  return settings;
}

/** The text that the host keeps: `{"v":1,"next":7,"own":{..}}`. */
export function stateText(plugin, next, own) {
  const plain = (_key, value) => {
    if (typeof value !== 'bigint') return value;
    // What JSON's numbers cannot hold exactly is written as text.
    return value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : String(value);
  };
  return JSON.stringify({ v: plugin.stateSchema, next, own }, plain);
}

/** What `stateText` wrote, with the author's part read by `plugin.read`. */
export function stateOf(plugin, state, schema = plugin.stateSchema) {
  try {
    const { v, next, own } = JSON.parse(state);
    if (v !== schema) throw new Error(`state of schema ${v}; this plugin keeps ${schema}`);
    const id = next === undefined ? 1n : number(next);
    if (id < 1n || id > LAST_ID) throw new Error(`${id} is no decision's number`);
    return { own: plugin.read(own), next: id };
  } catch (error) {
    throw { tag: 'invalid-state', val: String(error.message) };
  }
}

/** A number of 64 bits that `stateText` wrote. */
export function number(value) {
  const read = typeof value === 'number' || typeof value === 'string' ? BigInt(value) : undefined;
  if (read === undefined || read < 0n || read > MOST) throw new Error(`${value} is no number of 64 bits`);
  return read;
}

/** The call's errors as the contract has them. What else is thrown is a mistake of the plugin's: told, not lost. */
export function guarded(call) {
  return (...words) => {
    try {
      return call(...words);
    } catch (error) {
      if (ERRORS.includes(error?.tag)) throw error;
      throw { tag: 'internal', val: mistake(error) };
    }
  };
}

/** Where the contract has no error to answer with: a mistake of the plugin's is logged before it ends the call. */
function told(call) {
  return (...words) => {
    try {
      return call(...words);
    } catch (error) {
      log('error', 'a mistake', { panic: mistake(error) });
      throw error;
    }
  };
}

/** What went wrong, and in which line. */
function mistake(error) {
  const [said, stack] = [String(error), String(error?.stack ?? '')];
  // Node.js begins the stack with what was said; the interpreter of a component does not.
  return (stack.startsWith(said) ? stack : `${said} ${stack}`).slice(0, LONGEST_MISTAKE);
}

function complaints(plugin, config) {
  const read = readSettings(plugin.settings, config);
  if (read.wrong.length > 0 || plugin.check === undefined) return read;
  const wrong = plugin.check(strict(read.settings, 'settings'));
  COMPLAINTS(wrong, 'what check returns');
  return { settings: read.settings, wrong };
}

const complaint = (path, message, help = undefined) => ({ path, message, help });

/** Numbers with units, one after the other without gaps, each unit smaller than the one before. */
function fromUnits(value, units) {
  if (typeof value !== 'string' || !/^([0-9]+[A-Za-z]+)+$/.test(value)) return undefined;
  let left = units;
  let total = 0n;
  for (const [, digits, unit] of value.matchAll(/([0-9]+)([A-Za-z]+)/g)) {
    const place = left.findIndex(([known]) => known === unit);
    if (place < 0) return undefined;
    total += BigInt(digits) * left[place][1];
    left = left.slice(place + 1);
  }
  return total <= MOST ? total : undefined;
}

function withUnits(value, units, zero) {
  let rest = value;
  let written = '';
  for (const [unit, worth] of units) {
    if (rest >= worth) {
      written += `${rest / worth}${unit}`;
      rest %= worth;
    }
  }
  return written === '' ? zero : written;
}
