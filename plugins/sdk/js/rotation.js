//! Rotation policies in JavaScript: one function that is told what happened and answers with decisions, and the part that
//! every policy needs and that is easy to get wrong.

import { between, declared, guarded, higher, later, log, lower, metaOf, number, settingsOf, spanText, stateOf, stateText } from './farseal.js';
import * as form from './form.js';
import { strict } from './form.js';

/** How long a rotation may stay without an answer and without a key on its way before it is asked for again. */
const PATIENCE = 600000n;
/** The wait after a first refusal; doubled by each that follows. */
const FIRST_RETRY = 60000n;
/** The longest wait after a refusal. */
const LAST_RETRY = 3600000n;
/** The host clamps wake-ups that are closer than this. */
const NEAREST_WAKE = 1000n;
/** How much of a request's text goes into the reason. */
const LONGEST_QUOTE = 200;

const ACTION = form.variant({
  rotate: form.record({ how: form.oneOf('as-configured', 'in-band', 'pause'), reason: form.text }),
  'wake-at': form.u64,
  watch: form.record({ bytes: form.optional(form.u64), blocks: form.optional(form.u64) }),
  alert: form.text,
  ext: form.record({ name: form.text, json: form.text }),
});

/** What a policy may be told, and what became of a decision. */
const TAGS = [
  ['started', 'timer', 'usage', 'requested', 'suspect', 'rotated', 'decided', 'ext'],
  ['applied', 'clamped', 'refused'],
];

/**
 * The exports of a policy: `{ meta, rotation }` of
 * `{name, version, summary, stateSchema, settings, check, first, read, step, migrate}`.
 *
 * `first()` is the state of a policy that has seen nothing, `read(own)` makes it of what JSON kept of it (and throws where
 * that is somebody else's), `step(state, event, cx, decisions)` changes it and decides.
 */
export function rotationPolicy(policy) {
  declared(policy, 'the policy', { migrate: form.optional(form.call) });
  const answer = (own, next, event, ctx) => {
    const seen = strict(ctx, 'cx');
    const cx = strict({ ...seen, settings: settingsOf(policy, ctx.config), ...looks(seen) }, 'cx');
    const decisions = new Decisions(next);
    policy.step(own, strict(event, 'event', TAGS), cx, decisions);
    return { state: stateText(policy, decisions.next, own), decisions: decisions.made };
  };
  return {
    meta: metaOf(policy),
    rotation: {
      init: guarded((ctx) => answer(policy.first(), 1n, { tag: 'started' }, ctx)),
      step: guarded((state, event, ctx) => {
        settingsOf(policy, ctx.config);
        const { own, next } = stateOf(policy, state);
        return answer(own, next, event, ctx);
      }),
      migrate: guarded((from, state) => {
        const older = from === policy.stateSchema ? policy : { read: (own) => migrated(policy, from, own) };
        const { own, next } = stateOf(older, state, from);
        return stateText(policy, next, own);
      }),
    },
  };
}

/** The answer in the making. Decisions are carried out in the order made; each has an id of its own. */
export class Decisions {
  constructor(next) {
    this.next = next;
    this.made = [];
  }

  /** Ask for a new key. The reason is shown to the operator. Returns the id under which the outcome comes back. */
  rotate(reason) {
    return this.make('', { tag: 'rotate', val: { how: 'as-configured', reason } });
  }

  /** Have the event `timer` sent at this time, instead of any time asked for before. */
  wakeAt(at, why) {
    this.make(why, { tag: 'wake-at', val: at });
  }

  /** Have the event `usage` sent once, when the active key has sealed this much; replaces the mark set before. */
  watchBytes(bytes, why) {
    this.make(why, { tag: 'watch', val: { bytes, blocks: undefined } });
  }

  /** Tell the operator. */
  alert(text) {
    this.make('', { tag: 'alert', val: text });
  }

  make(why, action) {
    form.text(why, 'why');
    ACTION(action, 'the action');
    const id = this.next;
    this.next += 1n;
    this.made.push({ id, why, action });
    return id;
  }
}

/**
 * One rotation at a time. `want(reason)` when a key is due; what becomes of it is looked after here. `born` is when the key in force
 * came into force, never ahead of now.
 */
export class Asking {
  constructor() {
    this.forget(0n, 0n);
    this.suspect = undefined;
  }

  /** What JSON kept of it. */
  static read(kept) {
    const asking = new Asking();
    asking.epoch = number(kept.epoch);
    asking.born = number(kept.born);
    asking.want_ = kept.want == null ? undefined : String(kept.want);
    asking.asked = kept.asked && { id: number(kept.asked.id), at: number(kept.asked.at) };
    asking.suspect = kept.suspect === undefined ? undefined : number(kept.suspect);
    asking.retry = kept.retry && { at: number(kept.retry.at), refusals: Number(number(kept.retry.refusals)) };
    return asking;
  }

  toJSON() {
    const { epoch, born, want_: want, asked, suspect, retry } = this;
    return { epoch, born, want, asked, suspect, retry };
  }

  /** Call first in every step. `true` when a key has come into force since the last step. */
  observe(event, cx) {
    const isNew = this.observeHolding(event, cx);
    if (event.tag === 'requested') this.want(`requested: ${quote(event.val)}`);
    return isNew;
  }

  /**
   * As `observe`, for a policy that holds requests back: it keeps what was asked for, calls `want` when that is to be heeded, and
   * forgets it when this says `true`. A suspicion waits for nothing.
   */
  observeHolding(event, cx) {
    // A number that no key has, or has any more, must not stand before that of the key in force.
    const known = (epoch) => cx.keys.some((key) => key.epoch === epoch);
    if (this.suspect !== undefined && !known(this.suspect)) this.suspect = undefined;
    if (event.tag === 'suspect' && known(event.val)) this.suspicion(event.val);
    if (event.tag === 'decided') this.answered(event.val, cx);
    const isNew = this.lookAtKeys(cx);
    if (this.isSuspect) {
      this.want(`the key of epoch ${this.epoch} may be known to others`);
      // It does not wait for the end of what an earlier wish waits for, where the host's floor allows a key.
      const allowed = later(this.born, cx.floor) <= cx.now;
      if (event.tag === 'suspect' && event.val === this.epoch && allowed) this.retry = undefined;
    }
    return isNew;
  }

  /** A new key is wanted. The first reason stands until there is one. */
  want(reason) {
    this.want_ ??= reason;
  }

  /** May the key in force be known to others? */
  get isSuspect() {
    return this.suspect === this.epoch;
  }

  /** Is a new key wanted, for whatever reason? */
  get wanted() {
    return this.want_ !== undefined;
  }

  /** Asks for what is wanted, unless that was done and may still come, or a refusal was too short ago. */
  ask(cx, decisions) {
    if (this.asked && !cx.delivering && between(this.asked.at, cx.now) >= PATIENCE) {
      log('warn', 'no answer and no key', { decision: this.asked.id });
      this.asked = undefined;
    }
    const tooSoon = this.retry && cx.now < this.retry.at;
    if (this.wanted && !this.asked && !cx.delivering && !tooSoon) {
      this.asked = { id: decisions.rotate(this.want_), at: cx.now };
    }
  }

  /** When to be woken: when asking needs it, otherwise at `due`, and never so near that the host would clamp it. */
  wakeAt(due, cx) {
    if (cx.delivering) return later(cx.now, LAST_RETRY);
    let next = due;
    if (this.asked) next = later(this.asked.at, PATIENCE);
    else if (this.retry && this.wanted) next = this.retry.at;
    return next < later(cx.now, NEAREST_WAKE) ? later(cx.now, PATIENCE) : next;
  }

  /** Also where a clock that stepped back is noticed: what lies ahead of now is counted from now on. */
  lookAtKeys(cx) {
    const key = cx.sealing;
    if (!key) {
      this.born = cx.now;
      return false;
    }
    const isNew = key.epoch !== this.epoch;
    if (isNew) this.forget(key.epoch, lower(key.since, cx.now));
    if (key.state === 'suspect') this.suspicion(key.epoch);
    if (cx.now < this.born) {
      log('info', 'the clock stepped back', { by: spanText(this.born - cx.now) });
      this.born = cx.now;
    }
    if (this.asked) this.asked.at = lower(this.asked.at, cx.now);
    if (this.retry) this.retry.at = lower(this.retry.at, later(cx.now, higher(LAST_RETRY, cx.floor)));
    return isNew;
  }

  answered({ id, outcome }, cx) {
    if (this.asked?.id !== id || outcome.tag !== 'refused') return;
    log('info', `refused: ${outcome.val}`, { decision: id });
    const refusals = this.retry?.refusals ?? 0;
    const wait = lower(FIRST_RETRY << BigInt(Math.min(refusals, 6)), LAST_RETRY);
    const floor = later(this.born, cx.floor);
    this.retry = { at: floor > cx.now ? floor : later(cx.now, wait), refusals: Math.min(refusals + 1, 4294967295) };
    this.asked = undefined;
  }

  suspicion(epoch) {
    this.suspect = this.suspect === undefined ? epoch : higher(this.suspect, epoch);
  }

  forget(epoch, born) {
    Object.assign(this, { epoch, born, want_: undefined, asked: undefined, retry: undefined });
  }
}

/**
 * What a policy looks for in its context: the key that seals, one that is on its way, how far apart rotations begin at least, and
 * the age at which the host changes a key whatever the policy says.
 */
function looks(ctx) {
  const inState = (state) => ctx.keys.find((key) => key.state === state);
  const { minInterval: floor, maxAge: ceiling } = ctx.limits;
  return { sealing: inState('active') ?? inState('suspect'), delivering: inState('delivering'), floor, ceiling };
}

/** The first characters of a text that may be long: spread whole, it costs more than a call may. */
function quote(text) {
  return [...text.slice(0, 2 * LONGEST_QUOTE)].slice(0, LONGEST_QUOTE).join('');
}

function migrated(policy, from, own) {
  if (!policy.migrate) throw new Error(`there is no way from schema ${from}`);
  return policy.migrate(from, own);
}
