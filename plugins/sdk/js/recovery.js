//! Recovery strategies in JavaScript: one function that is told what happened and plans what is opened next.

import { declared, guarded, metaOf, settingsOf, stateOf, stateText } from './farseal.js';
import * as form from './form.js';
import { strict } from './form.js';

export { Background } from './background.js';

const ACTION = form.variant({
  access: form.oneOf('open', 'refuse'),
  open: form.record({ first: form.u64, blocks: form.u64 }),
  'wake-at': form.u64,
  finished: null,
  alert: form.text,
  ext: form.record({ name: form.text, json: form.text }),
});

/** What a strategy may be told. */
const TAGS = [['begin', 'swept', 'accessed', 'timer', 'requested', 'ext']];

/**
 * The exports of a strategy: `{ meta, recovery }` of `{name, version, summary, stateSchema, settings, check, first, read,
 * step}`, which are as in `rotationPolicy`.
 */
export function recoveryStrategy(strategy) {
  declared(strategy, 'the strategy');
  const answer = (own, ctx, event) => {
    const settings = settingsOf(strategy, ctx.config);
    const decisions = new Decisions();
    if (event) strategy.step(own, strict(event, 'event', TAGS), strict({ ...ctx, settings }, 'cx'), decisions);
    return { state: stateText(strategy, undefined, own), decisions: decisions.made };
  };
  return {
    meta: metaOf(strategy),
    recovery: {
      // The event `begin` follows, so that nothing is decided here.
      init: guarded((ctx) => answer(strategy.first(), ctx)),
      step: guarded((state, event, ctx) => {
        settingsOf(strategy, ctx.config);
        return answer(stateOf(strategy, state).own, ctx, event);
      }),
    },
  };
}

/** The answer in the making: at most 64 decisions, of which at most 16 open. */
export class Decisions {
  constructor() {
    this.made = [];
  }

  /** Open in the background what is not open yet in this extent of at most 65 536 blocks. */
  open(first, blocks, why) {
    this.make(why, { tag: 'open', val: { first, blocks } });
  }

  /** The rule for accesses to blocks that are not open yet: `open` or `refuse`. */
  access(rule, why) {
    this.make(why, { tag: 'access', val: rule });
  }

  /** Be called again then; at most one an answer, no sooner than a second from now. */
  wakeAt(at, why) {
    this.make(why, { tag: 'wake-at', val: at });
  }

  /** Nothing more to open in the background. */
  finished(why) {
    this.make(why, { tag: 'finished' });
  }

  /** Tell the operator. */
  alert(text) {
    this.make('', { tag: 'alert', val: text });
  }

  make(why, action) {
    form.text(why, 'why');
    ACTION(action, 'the action');
    this.made.push({ why, action });
  }
}
