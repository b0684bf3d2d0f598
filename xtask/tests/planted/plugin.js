//! Rotation policy `planted`: what authors get wrong in JavaScript, each mistake at the request of its name.

import { log } from '../sdk/js/farseal.js';
import { rotationPolicy } from '../sdk/js/rotation.js';

const MISTAKES = {
  'date-now': () => Date.now(),
  'new-date': () => new Date(),
  'math-random': () => Math.random(),
  'beyond-64-bits': (cx, decisions) => decisions.wakeAt(cx.now + (1n << 64n), 'far away'),
  negative: (cx, decisions) => decisions.wakeAt(cx.now - (1n << 63n), 'long ago'),
  fraction: (_cx, decisions) => decisions.watchBytes(1.5, 'half a byte'),
  'misspelt-key': (cx) => cx.sealing.bytesealed,
  'misspelt-context': (cx) => cx.link_up,
  'misspelt-setting': (cx) => cx.settings.intervall,
  'misspelt-action': (_cx, decisions) => decisions.make('', { tag: 'wakeat', val: 0n }),
  'misspelt-field': (_cx, decisions) => decisions.make('', { tag: 'rotate', val: { how: 'pause', raeson: 'x' } }),
  'lacking-field': (_cx, decisions) => decisions.make('', { tag: 'rotate', val: { how: 'pause' } }),
  'no-text': (_cx, decisions) => decisions.alert(5),
  'log-level': () => log('warning', 'x'),
  'misspelt-event': (_cx, _decisions, event) => event.is('rotatd'),
  thrown: () => undefined.x,
};

const plugin = rotationPolicy({
  name: 'planted',
  version: '0.1.0',
  summary: 'Goes wrong when it is asked to.',
  settings: {},
  first: () => ({}),
  read: (own) => own,

  step(_own, event, cx, decisions) {
    if (event.is('requested')) MISTAKES[event.val]?.(cx, decisions, event);
  },
});

export const meta = plugin.meta;
export const rotation = plugin.rotation;
