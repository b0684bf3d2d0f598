//! Rotation policy `when-quiet`: a key that is old enough changes when little is written, and when it is overdue in any case.
//! At once when it may be known to others or when somebody asks.

import { between, later, lower, number, size, span, spanText, wrong } from '../sdk/js/farseal.js';
import { Asking, rotationPolicy } from '../sdk/js/rotation.js';

const plugin = rotationPolicy({
  name: 'when-quiet',
  version: '0.1.0',
  summary: 'Changes an old key when little is written.',
  stateSchema: 1,
  settings: {
    interval: span('30d', 'The age from which a key changes at the next quiet moment.'),
    overdue: span('45d', 'The age at which it changes, quiet or not.'),
    'look-every': span('15m', 'How often to look how much was written.'),
    quiet: size('1GiB', 'Less than this from one look to the next is quiet.'),
  },

  check({ interval, overdue, 'look-every': lookEvery }) {
    const found = [];
    if (overdue < interval) found.push(wrong('overdue', 'less than the interval', 'for example "45d"'));
    if (lookEvery < 60000n) found.push(wrong('look-every', 'shorter than a minute', 'for example "15m"'));
    return found;
  },

  first: () => ({ asking: new Asking(), seen: { at: 0n, bytes: 0n } }),
  read: ({ asking, seen }) => ({
    asking: Asking.read(asking),
    seen: { at: number(seen.at), bytes: number(seen.bytes) },
  }),

  step(state, event, cx, decisions) {
    const { asking } = state;
    const { interval, overdue, quiet, 'look-every': lookEvery } = cx.settings;
    const sealed = cx.sealing?.bytesSealed ?? 0n;
    // A new key has sealed nothing, and a clock that stepped back has seen nothing: look from here.
    if (asking.observe(event, cx) || cx.now < state.seen.at) state.seen = { at: cx.now, bytes: sealed };

    const age = between(asking.born, cx.now);
    const since = between(state.seen.at, cx.now);
    if (age >= overdue) {
      asking.want(`the key is ${spanText(age)} old, and it was never quiet`);
    } else if (age >= interval && since >= lookEvery) {
      // A look that came late counts for as many as it stands for.
      const written = between(state.seen.bytes, sealed);
      if (written * lookEvery < quiet * since) asking.want(`the key is ${spanText(age)} old, and it is quiet`);
    }
    if (since >= lookEvery) state.seen = { at: cx.now, bytes: sealed };

    asking.ask(cx, decisions);
    // Two looks are needed: the first one when the key is old enough.
    const due = later(asking.born, interval);
    const next = cx.now < due ? due : later(state.seen.at, lookEvery);
    decisions.wakeAt(asking.wakeAt(lower(next, later(asking.born, overdue)), cx), 'the next look');
  },
});

export const meta = plugin.meta;
export const rotation = plugin.rotation;
