//! The contract's forms, as checks with words: what a plugin returns is checked before it crosses the border, where a number would
//! be cut to 64 bits and a misspelt name would be nothing; and what it is given complains when it is asked for what is not there.

/** What fits in the contract's 64 bits. */
export const MOST = (1n << 64n) - 1n;
/** Characters of a wrong value that are quoted. */
const LONGEST_VALUE = 80;

/** What `strict` has made. */
const VIEWS = new WeakSet();

/** A mistake in what a plugin returns or declares. */
const wrongForm = (place, value, wanted) => {
  throw new TypeError(`${place} is ${shown(value)}; it must be ${wanted}`);
};

export const text = (value, place) => {
  if (typeof value !== 'string') wrongForm(place, value, 'a text');
};

export const u64 = (value, place) => {
  const isWhole = typeof value === 'bigint' || Number.isSafeInteger(value);
  if (!isWhole || value < 0 || value > MOST) wrongForm(place, value, `a whole number from 0 to ${MOST}`);
};

export const u32 = (value, place) => {
  if (!Number.isInteger(value) || value < 0 || value > 4294967295) wrongForm(place, value, 'a whole number from 0 to 4294967295');
};

export const call = (value, place) => {
  if (typeof value !== 'function') wrongForm(place, value, 'a function');
};

export const object = (value, place) => {
  if (value === null || typeof value !== 'object') wrongForm(place, value, 'an object');
};

export const optional = (form) => {
  const check = (value, place) => value == null || form(value, place);
  check.isOptional = true;
  return check;
};

export const list = (form) => (value, place) => {
  if (!Array.isArray(value)) wrongForm(place, value, 'a list');
  value.forEach((one, at) => form(one, `${place}[${at}]`));
};

export const oneOf = (...names) => (value, place) => {
  if (!names.includes(value)) wrongForm(place, value, `one of ${names.map((name) => `'${name}'`).join(', ')}${meant(value, names)}`);
};

/** All of these properties, and no others. */
export const record = (fields) => (value, place) => {
  object(value, place);
  const known = Object.keys(fields);
  for (const name of Object.keys(value)) if (!known.includes(name)) throw unknown(place, name, known);
  for (const [name, form] of Object.entries(fields)) {
    if (!(name in value) && !form.isOptional) throw new TypeError(`${place} lacks ${name}`);
    form(value[name], `${place}.${name}`);
  }
};

/** `{ tag, val }`, where what is wrong with `val` is said of the case; a case of `null` has no `val`. */
export const variant = (cases) => (value, place) => {
  record({ tag: oneOf(...Object.keys(cases)), val: optional(() => {}) })(value, place);
  const form = cases[value.tag];
  if (form) form(value.val, value.tag);
};

/**
 * A view of what a plugin is given in which a name that is not there is an error, and not `undefined`; `place` is what it calls it.
 * What has a tag of one of the `families` has `is(tag)`, too, to which a tag that the family does not have is an error.
 */
export function strict(value, place, families = []) {
  if (VIEWS.has(value)) return value;
  if (Array.isArray(value)) return value.map((one, at) => strict(one, `${place}[${at}]`, families));
  if (value === null || typeof value !== 'object' || ArrayBuffer.isView(value)) return value;
  // A case without a value has none on purpose.
  const given = 'tag' in value ? { val: undefined } : {};
  for (const [name, one] of Object.entries(value)) given[name] = strict(one, `${place}.${name}`, families);
  const family = families.find((tags) => tags.includes(value.tag));
  if (family) given.is = (tag) => isTagged(value.tag, tag, place, family);
  const view = new Proxy(given, {
    get(target, name) {
      // JavaScript itself looks for the symbols and for these two.
      if (typeof name === 'symbol' || name in target || name === 'toJSON' || name === 'then') return target[name];
      throw unknown(place, name, Object.keys(target));
    },
  });
  VIEWS.add(view);
  return view;
}

/** Whether the tag is this one, which must be one that there is. */
function isTagged(tag, wanted, place, family) {
  if (!family.includes(wanted)) {
    throw new TypeError(`${place} is never ${shown(wanted)}${meant(wanted, family)}; it is one of ${family.join(', ')}`);
  }
  return tag === wanted;
}

function unknown(place, name, known) {
  const there = known.length === 0 ? 'it has none' : `it has ${known.join(', ')}`;
  return new TypeError(`${place} has no ${name}${meant(name, known)}; ${there}`);
}

/** The known name that was meant, if one is near. */
function meant(name, known) {
  const plain = (text) => String(text).replaceAll(/[-_]/g, '').toLowerCase();
  const far = (one) => distance(plain(one), plain(name));
  const [nearest] = known.toSorted((one, other) => far(one) - far(other));
  return nearest !== undefined && far(nearest) <= 2 ? ` (did you mean ${nearest}?)` : '';
}

/** How many letters are to be changed, put in or left out. */
function distance(one, other) {
  let above = Array.from({ length: other.length + 1 }, (_, at) => at);
  for (let row = 1; row <= one.length; row += 1) {
    const here = [row];
    for (let at = 1; at <= other.length; at += 1) {
      const change = above[at - 1] + (one[row - 1] === other[at - 1] ? 0 : 1);
      here.push(Math.min(change, above[at] + 1, here[at - 1] + 1));
    }
    above = here;
  }
  return above[other.length];
}

function shown(value) {
  if (typeof value === 'function') return 'a function';
  const json = JSON.stringify(value, (_key, one) => (typeof one === 'bigint' ? String(one) : one));
  return typeof value === 'bigint' ? String(value) : String(json).slice(0, LONGEST_VALUE);
}
