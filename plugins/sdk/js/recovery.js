//! Recovery strategies in JavaScript: one function that is told what happened and plans what is opened next.

import { declared, guarded, metaOf, number, settingsOf, stateOf, stateText } from './farseal.js';
import * as form from './form.js';
import { strict } from './form.js';

const ACTION = form.variant({
  access: form.oneOf('open', 'refuse'),
  open: form.record({ first: form.u64, blocks: form.u64 }),
  'wake-at': form.u64,
  finished: null,
  alert: form.text,
  ext: form.record({ name: form.text, json: form.text }),
});

/**
 * The exports of a strategy: `{ meta, recovery }` of `{name, version, summary, stateSchema, settings, check, first, read,
 * step}`, which are as in `rotationPolicy`.
 */
export function recoveryStrategy(strategy) {
  declared(strategy, 'the strategy');
  const answer = (own, ctx, event) => {
    const settings = settingsOf(strategy, ctx.config);
    const decisions = new Decisions();
    if (event) strategy.step(own, strict(event, 'event'), strict({ ...ctx, settings }, 'cx'), decisions);
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

/** The whole volume from its first block on, so many blocks a decision and so many decisions at a time. */
export class InOrder {
  constructor() {
    this.restart(0n, 0n);
  }

  /** What JSON kept of it. */
  static read(kept) {
    const order = new InOrder();
    order.chunk = number(kept.chunk);
    order.blocks = number(kept.blocks);
    order.next = number(kept.next);
    order.opening = kept.opening.map(number).slice(0, 16);
    order.finished = kept.finished === true;
    return order;
  }

  restart(chunk, blocks) {
    Object.assign(this, { chunk, blocks, next: 0n, opening: [], finished: false });
  }

  /** The beginning, or a restart: what was being opened then is opened again. */
  begin(chunk, blocks) {
    if (this.chunk !== chunk || this.blocks !== blocks) this.restart(chunk, blocks);
    for (const first of this.opening) if (first < this.next) this.next = first;
    this.opening = [];
    this.finished = false;
  }

  /** An `open` is done. */
  swept(extent) {
    this.opening = this.opening.filter((first) => first !== extent.first);
  }

  /** Opens as much as may be open at once. */
  goOn(atOnce, cx, decisions) {
    while (this.chunk > 0n && this.next < this.blocks && this.opening.length < atOnce) {
      const left = this.blocks - this.next;
      const blocks = left < this.chunk ? left : this.chunk;
      decisions.open(this.next, blocks, 'next in order');
      this.opening.push(this.next);
      this.next += blocks;
    }
    if (this.next >= this.blocks && this.opening.length === 0 && !this.finished) {
      this.finished = true;
      const { failed } = cx.progress;
      if (failed > 0n) decisions.alert(`${failed} blocks failed verification and cannot be read`);
      decisions.finished('every block was gone through');
    }
  }
}
