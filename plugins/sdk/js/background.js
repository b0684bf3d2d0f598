//! What strategies that open the whole volume have in common: chunks in their turn, those around recent reads first and after them those
//! that the strategy prefers, a rate, and an operator who may pause, resume and change it.
//!
//! Everything is bounded. What falls out of a bound is opened again in its turn, which costs little: the host skips blocks that are open.

import { higher, later, lower, number } from './farseal.js';
import { MOST } from './form.js';

/** Chunks around recent reads that wait; the oldest fall out. */
const MOST_NEAR = 16;
/** Chunks opened out of order that are remembered; the furthest fall out. */
const MOST_AHEAD = 2048;
/** Chunks that a strategy prefers and that wait; the last fall out. */
const MOST_PREFERRED = 1024;
/** Chunks that one answer may open. */
const MOST_OPENING = 16;
/** The host clamps wake-ups that are closer than this. */
const NEAREST_WAKE = 1000n;

/**
 * How far it is. How fast it goes is told by a pace: `{chunk, atOnce, rate}`, blocks opened by one decision, chunks being opened at any
 * time, and blocks a second at most, where 0, or nothing, is as fast as it goes.
 */
export class Background {
  constructor() {
    this.chunks = new Chunks();
    this.paused = false;
    this.rate = undefined;
    this.ended = false;
  }

  /** What JSON kept of it. */
  static read(kept) {
    const background = new Background();
    background.chunks = Chunks.read(kept.sweep);
    background.paused = kept.paused === true;
    background.rate = kept.rate == null ? undefined : number(kept.rate);
    background.ended = kept.finished === true;
    return background;
  }

  toJSON() {
    const { chunks: sweep, paused, rate = null, ended: finished } = this;
    return { sweep, paused, rate, finished };
  }

  /** The beginning, or a restart: what was being opened then is opened again. */
  begin(pace, volumeBlocks) {
    this.chunks.begin(BigInt(pace.chunk), volumeBlocks);
    this.ended = false;
  }

  /** An `open` is done. */
  swept(extent) {
    this.chunks.swept(extent);
  }

  /** The surroundings of this read come next. */
  accessed(extent) {
    this.chunks.accessed(extent);
  }

  /** These come before the rest, in this order; at most 1024 chunks of them. */
  prefer(extents) {
    this.chunks.prefer(extents);
  }

  /** Opens as much as may be open at once, as fast as the rate lets it. */
  goOn(pace, cx, decisions) {
    if (this.paused || this.ended) return;
    const rate = this.rate ?? BigInt(pace.rate ?? 0);
    for (;;) {
      const next = this.chunks.next(cx.now, rate, pace.atOnce);
      if (next.open) {
        decisions.open(next.open.first, next.open.blocks, next.why);
      } else if (next.waitUntil !== undefined) {
        decisions.wakeAt(next.waitUntil, 'the rate');
        return;
      } else {
        if (next.finished) this.finish(cx, decisions);
        return;
      }
    }
  }

  /** An operator's `pause`, `resume`, `rate N` (blocks a second) or `rate off`. */
  obey(text, decisions) {
    const words = text.split(/\s+/).filter((word) => word !== '');
    const wish = words.join(' ');
    const rate = /^rate \+?([0-9]{1,20})$/.exec(wish)?.[1];
    if (wish === 'pause') this.paused = true;
    else if (wish === 'resume') this.paused = false;
    else if (wish === 'rate off') this.rate = 0n;
    else if (rate !== undefined && BigInt(rate) <= MOST) this.rate = BigInt(rate);
    else decisions.alert('not understood; there are: pause, resume, rate N (blocks a second), rate off');
  }

  finish(cx, decisions) {
    this.ended = true;
    const { failed } = cx.progress;
    if (failed > 0n) decisions.alert(`${failed} blocks failed verification and cannot be read`);
    decisions.finished('every block was gone through');
  }
}

/** Numbers are chunks, counted from the volume's start. */
class Chunks {
  constructor(size = 0n, volumeBlocks = 0n) {
    this.size = size;
    this.volumeBlocks = volumeBlocks;
    /** All chunks before this one are opened or being opened. */
    this.frontier = 0n;
    this.opening = [];
    /** Around recent reads, the newest last. */
    this.near = [];
    /** Preferred by the strategy, the next one last. */
    this.preferred = [];
    /** Opened or being opened, behind the frontier; ascending. */
    this.ahead = [];
    /** With a rate: when the next chunk may be opened. */
    this.notBefore = 0n;
  }

  static read(kept) {
    const chunks = new Chunks(number(kept.chunk), number(kept.volume_blocks));
    chunks.frontier = number(kept.frontier);
    chunks.opening = kept.opening.map(number).slice(0, MOST_OPENING);
    chunks.near = kept.near.map(number).slice(-MOST_NEAR);
    chunks.preferred = (kept.preferred ?? []).map(number).slice(-MOST_PREFERRED);
    chunks.ahead = kept.ahead.map(number).slice(0, MOST_AHEAD);
    chunks.notBefore = number(kept.not_before);
    return chunks;
  }

  toJSON() {
    const { size: chunk, volumeBlocks: volume_blocks, frontier, opening, near, preferred, ahead, notBefore: not_before } = this;
    return { chunk, volume_blocks, frontier, opening, near, preferred: preferred.length ? preferred : undefined, ahead, not_before };
  }

  begin(size, volumeBlocks) {
    if (this.size !== size || this.volumeBlocks !== volumeBlocks) Object.assign(this, new Chunks(size, volumeBlocks));
    const interrupted = this.opening;
    this.opening = [];
    this.ahead = this.ahead.filter((chunk) => !interrupted.includes(chunk));
    this.frontier = interrupted.reduce(lower, this.frontier);
  }

  swept(extent) {
    if (this.size === 0n) return;
    const chunk = extent.first / this.size;
    this.opening = this.opening.filter((opening) => opening !== chunk);
  }

  /** The chunk of a read comes next, and the one after it behind that. */
  accessed(extent) {
    if (this.size === 0n) return;
    const chunk = (extent.first + higher(extent.blocks, 1n) - 1n) / this.size;
    for (const near of [chunk + 1n, chunk]) {
      this.near = this.near.filter((other) => other !== near);
      if (!this.isTaken(near)) this.near.push(near);
    }
    this.near = this.near.slice(-MOST_NEAR);
  }

  prefer(extents) {
    if (this.size === 0n) return;
    // In the order in which they came in.
    const wanted = new Set();
    for (const { first, blocks } of extents) {
      const end = lower(upwards(first + blocks, this.size), this.count());
      for (let chunk = first / this.size; chunk < end && wanted.size < MOST_PREFERRED; chunk += 1n) {
        if (!this.isTaken(chunk)) wanted.add(chunk);
      }
    }
    this.preferred = [...wanted].reverse();
  }

  /** `{open, why}`, `{waitUntil}`, `{finished}` or, where something is to be swept first, nothing. */
  next(now, rate, atOnce) {
    this.dropTaken(this.near);
    this.dropTaken(this.preferred);
    this.passOverAhead();
    const found = this.soonest();
    if (found === undefined) return { finished: this.opening.length === 0 };
    if (this.opening.length >= atOnce) return {};
    if (rate > 0n) {
      const pace = (this.size * 1000n) / rate;
      // Never further ahead than one pace, even if the clock stepped back; kept, or the wait would begin anew each time.
      this.notBefore = lower(this.notBefore, later(now, pace));
      if (now < this.notBefore) return { waitUntil: higher(this.notBefore, later(now, NEAREST_WAKE)) };
      // What the last second left unused is caught up, as nobody is woken more often.
      this.notBefore = later(higher(this.notBefore, now - NEAREST_WAKE), pace);
    }
    this.take(found.chunk);
    return { open: this.extent(found.chunk), why: found.why };
  }

  soonest() {
    const [near, preferred] = [this.near.at(-1), this.preferred.at(-1)];
    if (near !== undefined) return { chunk: near, why: 'close to a recent read' };
    if (preferred !== undefined) return { chunk: preferred, why: 'written last of what is not open' };
    return this.frontier < this.count() ? { chunk: this.frontier, why: 'next in order' } : undefined;
  }

  take(chunk) {
    this.near = this.near.filter((near) => near !== chunk);
    this.opening.push(chunk);
    if (chunk === this.frontier) {
      this.frontier += 1n;
      return;
    }
    const place = this.placeAhead(chunk);
    if (this.ahead[place] !== chunk) this.ahead.splice(place, 0, chunk);
    this.ahead = this.ahead.slice(0, MOST_AHEAD);
  }

  passOverAhead() {
    let passed = 0;
    while (passed < this.ahead.length && this.ahead[passed] <= this.frontier) {
      this.frontier = higher(this.frontier, this.ahead[passed] + 1n);
      passed += 1;
    }
    this.ahead.splice(0, passed);
  }

  dropTaken(waiting) {
    while (waiting.length > 0 && this.isTaken(waiting.at(-1))) waiting.pop();
  }

  /** Opened, being opened, or behind the volume's end. */
  isTaken(chunk) {
    if (chunk < this.frontier || chunk >= this.count() || this.opening.includes(chunk)) return true;
    return this.ahead[this.placeAhead(chunk)] === chunk;
  }

  /** Where it is in `ahead`, or would be. */
  placeAhead(chunk) {
    let [from, to] = [0, this.ahead.length];
    while (from < to) {
      const middle = (from + to) >> 1;
      if (this.ahead[middle] < chunk) from = middle + 1;
      else to = middle;
    }
    return from;
  }

  count() {
    return this.size === 0n ? 0n : upwards(this.volumeBlocks, this.size);
  }

  extent(chunk) {
    const first = chunk * this.size;
    return { first, blocks: lower(this.size, this.volumeBlocks - first) };
  }
}

const upwards = (one, other) => (one + other - 1n) / other;
