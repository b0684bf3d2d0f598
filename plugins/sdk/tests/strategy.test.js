//! Recovery strategies in JavaScript: what an author's mistake is told as, and the background's order, rate and wishes:
//! `node --test plugins/sdk/tests/`.

import assert from 'node:assert';
import { test } from 'node:test';

import { strategyContext } from '../js/testing.js';

const { Background, recoveryStrategy } = await import('../js/recovery.js');

const BLOCKS = 10_000n;
const extent = (first, blocks = 1024n) => ({ first, blocks });

/** The strategy that does that, begun. */
function strategy(deed) {
  const { recovery } = recoveryStrategy({
    name: 'tried',
    version: '1.0.0',
    summary: 'Does what the test wants.',
    settings: {},
    first: () => ({ background: new Background() }),
    read: ({ background }) => ({ background: Background.read(background) }),
    step: ({ background }, event, cx, decisions) => deed(background, event, cx, decisions),
  });
  return recovery;
}

/** What is decided at each of these events in turn, with what is kept read back in between: `open 0`, `wake-at 1500`. */
function decided(events, pace = { chunk: 1024, atOnce: 2 }) {
  const recovery = strategy((background, event, cx, decisions) => {
    if (event.tag === 'begin') background.begin(pace, cx.volumeBlocks);
    if (event.tag === 'swept') background.swept(event.val.extent);
    if (event.tag === 'accessed') event.val.forEach((read) => background.accessed(read));
    if (event.tag === 'ext') background.prefer([extent(5120n), extent(0n)]);
    if (event.tag === 'requested') background.obey(event.val, decisions);
    background.goOn(pace, cx, decisions);
  });
  let { state } = recovery.init(strategyContext());
  return events.map(([now, tag, val]) => {
    const answer = recovery.step(state, { tag, val }, strategyContext({ now, volumeBlocks: BLOCKS }));
    state = answer.state;
    return answer.decisions.map(({ action }) => `${action.tag} ${action.val?.first ?? action.val ?? ''}`.trim());
  });
}

const swept = (first) => ({ extent: extent(first), opened: 1024n, failed: 0n });

test('reads come first, then what is preferred, then the rest, and after a restart what was being opened has its turn again', () => {
  const told = decided([
    [0n, 'begin'],
    [1n, 'accessed', [extent(7000n, 8n)]],
    [2n, 'swept', swept(0n)],
    [3n, 'ext', { name: 'test', json: '{}' }],
    [4n, 'swept', swept(1024n)],
    [5n, 'swept', swept(6144n)],
    [6n, 'begin'],
    [7n, 'swept', swept(2048n)],
    [8n, 'swept', swept(3072n)],
    [9n, 'swept', swept(4096n)],
    [10n, 'swept', swept(5120n)],
  ]);
  const before = [['open 0', 'open 1024'], [], ['open 6144'], [], ['open 7168'], ['open 5120']];
  const after = [['open 2048', 'open 3072'], ['open 4096'], ['open 5120'], ['open 7168'], ['open 8192']];
  assert.deepStrictEqual(told, [...before, ...after]);
});

test('an operator sets the rate, stops it and lets it go on, and what is not understood is said', () => {
  const told = decided([
    [10_000n, 'requested', 'rate 1024'],
    [10_000n, 'begin'],
    [11_000n, 'timer'],
    [11_500n, 'requested', 'pause'],
    [19_000n, 'swept', swept(0n)],
    [20_000n, 'requested', 'resume'],
    [20_000n, 'requested', 'faster'],
  ]);
  const refused = 'alert not understood; there are: pause, resume, rate N (blocks a second), rate off';
  // Before it begins there is nothing to open.
  assert.deepStrictEqual(told[0], ['finished']);
  assert.deepStrictEqual(told.slice(1), [
    ['open 0', 'open 1024'],
    [],
    [],
    [],
    ['open 2048'],
    [refused],
  ]);
});

test('a value that the contract has not is named with its place', () => {
  for (const [deed, said] of [
    [(decisions) => decisions.open(-1n, 8n, 'x'), /open\.first is -1.*whole number from 0/],
    [(decisions) => decisions.open(0n, 1.5, 'x'), /open\.blocks is 1\.5/],
    [(decisions) => decisions.access('opened', 'x'), /access is "opened".*'open'.*'refuse'/s],
    [(decisions) => decisions.wakeAt(1n << 64n, 'x'), /wake-at is 18446744073709551616/],
    [(decisions) => decisions.make('x', { tag: 'opne', val: extent(0n) }), /tag is "opne".*did you mean open\?/s],
    [(decisions) => decisions.make('x', { tag: 'open', val: { first: 0n, block: 8n } }), /open has no block.*did you mean blocks\?/s],
  ]) {
    const recovery = strategy((_background, _event, _cx, decisions) => deed(decisions));
    const { state } = recovery.init(strategyContext());
    assert.throws(() => recovery.step(state, { tag: 'begin' }, strategyContext()), ({ val }) => said.test(val) || assert.fail(val));
  }
});
