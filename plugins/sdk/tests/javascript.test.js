//! What an author is told of a mistake in JavaScript, by the SDK alone: `node --test plugins/sdk/tests/`.

import assert from 'node:assert';
import { test } from 'node:test';

import { policyContext } from '../js/testing.js';

const { span } = await import('../js/farseal.js');
const { rotationPolicy } = await import('../js/rotation.js');

/** The error of a call in which the policy does that. */
function told(deed, state) {
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
    else rotation.step(state, { tag: 'started' }, policyContext());
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

test('a state that its policy cannot read is refused, and no fault', () => {
  const { tag } = told(() => {}, '{"v":1,"next":1,"own":{}}');
  assert.strictEqual(tag, 'invalid-state');
});
