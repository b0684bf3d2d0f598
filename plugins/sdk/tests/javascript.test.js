//! What an author is told of a mistake in JavaScript, by the SDK alone: `node --test plugins/sdk/tests/`.

import assert from 'node:assert';
import { test } from 'node:test';

import { policyContext } from '../js/testing.js';

const { span } = await import('../js/farseal.js');
const { rotationPolicy } = await import('../js/rotation.js');

/** The error of a call in which the policy does that. */
function told(deed, state, event = { tag: 'started' }) {
  const { rotation } = rotationPolicy({
    name: 'mistaken',
    version: '1.0.0',
    summary: 'Does what the test wants.',
    stateSchema: 1,
    settings: { every: span('1d', 'How often.') },
    first: () => ({}),
    read: ({ seen }) => ({ seen: seen.length }),
    step: (own, event, cx, decisions) => deed(own, event, cx, decisions),
  });
  try {
    if (state === undefined) rotation.init(policyContext());
    else rotation.step(state, event, policyContext());
  } catch (error) {
    return error;
  }
  return undefined;
}

test('a setting that was never declared is named with those there are, and the line', () => {
  const { tag, val } = told((_own, _event, cx) => cx.settings.evry);
  assert.strictEqual(tag, 'internal');
  assert.match(val, /settings has no evry.*every/s);
  assert.match(val, /javascript\.test\.js:\d+/);
});

test('an event that there is not is named where it is looked for', () => {
  const { tag, val } = told((_own, event) => event.tagg);
  assert.strictEqual(tag, 'internal');
  assert.match(val, /event has no tagg/);
});

test('an event and an outcome are asked by a tag that there is, or the near one is named', () => {
  const state = '{"v":1,"next":1,"own":{"seen":[]}}';
  const decided = { tag: 'decided', val: { id: 1n, outcome: { tag: 'refused', val: 'too soon' } } };
  const asked = [];
  const right = (_own, event) => asked.push(event.is('decided'), event.is('timer'), event.val.outcome.is('refused'));
  assert.strictEqual(told(right, state, decided), undefined);
  assert.deepStrictEqual(asked, [true, false, true]);
  for (const [wrong, said] of [
    [(event) => event.is('rotatd'), /event is never "rotatd" \(did you mean rotated\?\); it is one of started, timer, /],
    [(event) => event.val.outcome.is('refuse'), /event\.val\.outcome is never "refuse" \(did you mean refused\?\)/],
  ]) {
    const { tag, val } = told((_own, event) => wrong(event), state, decided);
    assert.strictEqual(tag, 'internal');
    assert.match(val, said);
    assert.match(val, /javascript\.test\.js:\d+/);
  }
});

test('a state that its policy cannot read is refused, and no fault', () => {
  const { tag } = told(() => {}, '{"v":1,"next":1,"own":{}}');
  assert.strictEqual(tag, 'invalid-state');
});
