//! What a plugin may not ask: the clock and chance. In a component both stand still, and the same answer every time looks for a
//! while like one that works; so asking is an error that says where time and chance come from.

/** The error, with the words for what was asked. */
const refuse = (what) => {
  throw new Error(
    `${what} is not there: a policy gets its time from context.now and its chance from context.entropy ` +
      '(cx.now and cx.entropy in step)',
  );
};

const refusing = (what) => () => refuse(what);

const RealDate = Date;
RealDate.now = refusing('Date.now()');
// With arguments it reads a time that is given, as in `new Date(Number(cx.now))`.
globalThis.Date = new Proxy(RealDate, {
  construct: (target, words, asked) =>
    words.length === 0 ? refuse('new Date() without a time') : Reflect.construct(target, words, asked),
  apply: refusing('Date()'),
});
RealDate.prototype.constructor = globalThis.Date;

Math.random = refusing('Math.random()');
replaceIn(globalThis.performance, 'performance', ['now']);
replaceIn(globalThis.crypto, 'crypto', ['getRandomValues', 'randomUUID']);

function replaceIn(owner, spelled, names) {
  for (const name of owner ? names : []) {
    Object.defineProperty(owner, name, { value: refusing(`${spelled}.${name}()`), configurable: true });
  }
}
