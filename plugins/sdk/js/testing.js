//! For tests of a plugin in plain Node.js (`node --test`, 20.6 or later), without a component: import this before the plugin. What
//! the plugin logs is kept in `logged`.

import { register } from 'node:module';

/** Lines that were logged: `{ level, message, fields }`. */
export const logged = (globalThis.farsealLogged ??= []);

const LOG = `export const emit = (level, message, fields) => globalThis.farsealLogged.push({ level, message, fields });`;
const HOOK = `export const resolve = (name, context, next) => name.startsWith('farseal:plugin/log@')
  ? { url: ${JSON.stringify(`data:text/javascript,${encodeURIComponent(LOG)}`)}, shortCircuit: true }
  : next(name, context);`;

register(`data:text/javascript,${encodeURIComponent(HOOK)}`);

export const DAY = 86400000n;

/** What a policy is told on an ordinary pair, but for what differs; settings as the operator writes them. */
export function policyContext(differs = {}, settings = {}) {
  const key = { epoch: 1n, state: 'active', since: 0n, bytesSealed: 0n, blocksSealed: 0n, recordsSealed: 0n };
  const limits = { minInterval: DAY / 24n, maxAge: 180n * DAY, maxBytes: 1n << 40n };
  const config = JSON.stringify(settings);
  return { now: 0n, pair: 'pair', entropy: 7919n, config, keys: [key], limits, linkUp: true, ...differs };
}

/** The same of a recovery strategy, over a volume of 10 000 blocks. */
export function strategyContext(differs = {}, settings = {}) {
  const progress = { present: 10000n, opened: 0n, failed: 0n };
  const config = JSON.stringify(settings);
  return { now: 0n, volume: 'volume', config, volumeBlocks: 10000n, progress, entropy: 7919n, ...differs };
}
