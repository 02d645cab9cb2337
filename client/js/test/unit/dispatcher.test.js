import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Dispatcher } from '../../src/dispatcher.js';
import { Reject } from '../../src/errors.js';

const fast = { min: 0, max: 0 };
const event = (id, partitionkey) => ({ specversion: '1.0', id: `${id}`, source: '/s', type: 't', channel: 'a', ...(partitionkey && { partitionkey }) });

/** Adds events; resolves with the outcomes in their order. */
const addAll = (dispatcher, events, more) => Promise.all(events.map((event) => new Promise((settled) => dispatcher.add({ event, settled, ...more }))));
const turn = () => new Promise(setImmediate);

/** A handler whose calls end when the test says so. */
function gate() {
  const calls = [];
  const handler = (value) => new Promise((done, fail) => calls.push({ value, done, fail }));
  return { calls, handler };
}

test('one handler at a time sees events in order', async () => {
  const seen = [];
  const dispatcher = new Dispatcher(async ({ id }) => { await turn(); seen.push(+id); }, {});
  await addAll(dispatcher, Array.from({ length: 50 }, (_, i) => event(i, `k${i % 3}`)));
  assert.deepEqual(seen, Array.from({ length: 50 }, (_, i) => i));
});

test('several handlers at once keep the order of each key, and no more than allowed run', async () => {
  const seen = {};
  let running = 0;
  let most = 0;
  const dispatcher = new Dispatcher(async ({ id, partitionkey }) => {
    most = Math.max(most, ++running);
    for (let i = +id % 4; i >= 0; i--) await turn();
    (seen[partitionkey] ??= []).push(+id);
    running--;
  }, { concurrency: 8 });
  await addAll(dispatcher, Array.from({ length: 400 }, (_, i) => event(i, `k${i % 13}`)));
  assert.equal(most, 8);
  for (const ids of Object.values(seen)) assert.deepEqual(ids, ids.toSorted?.((a, b) => a - b) ?? [...ids].sort((a, b) => a - b));
  assert.equal(Object.values(seen).flat().length, 400);
});

test('a slow key holds up neither the others nor events without a key', async () => {
  const { calls, handler } = gate();
  const dispatcher = new Dispatcher(handler, { concurrency: 3 });
  addAll(dispatcher, [event(1, 'slow'), event(2, 'slow'), event(3, 'other'), event(4), event(5, 'slow')]);
  assert.deepEqual(calls.map(({ value }) => value.id), ['1', '3', '4']);
  calls[1].done();
  await turn();
  assert.equal(calls.length, 3, 'a key was handled twice at once');
  calls[0].done();
  await turn();
  assert.deepEqual(calls.map(({ value }) => value.id), ['1', '3', '4', '2']);
});

test('batches fill up to max, or go when they have waited', async () => {
  const sizes = [];
  const dispatcher = new Dispatcher((events) => { sizes.push(events.length); }, { batch: { max: 10, wait: 20 } });
  await addAll(dispatcher, Array.from({ length: 25 }, (_, i) => event(i)));
  assert.deepEqual(sizes, [10, 10, 5]);
});

test('a key is never in two batches at once', async () => {
  const { calls, handler } = gate();
  const dispatcher = new Dispatcher(handler, { concurrency: 2, batch: { max: 3 } });
  addAll(dispatcher, [event(1, 'a'), event(2, 'a'), event(3, 'b'), event(4, 'b'), event(5, 'a'), event(6, 'c')]);
  // The first event found nobody to wait for.
  assert.deepEqual(calls.map(({ value }) => value.map(({ id }) => id)), [['1'], ['3']]);
  calls[0].done();
  await turn();
  assert.deepEqual(calls[2].value.map(({ id }) => id).sort(), ['2', '5', '6']);
});

test('a handler that fails is called again, the key waiting', async () => {
  const seen = [];
  const dispatcher = new Dispatcher(({ id }, { attempt }) => {
    seen.push(`${id}/${attempt}`);
    if (id === '1' && attempt < 3) throw new Error('not yet');
  }, { retry: fast });
  assert.deepEqual(await addAll(dispatcher, [event(1, 'k'), event(2, 'k')]), [undefined, undefined]);
  assert.deepEqual(seen, ['1/1', '1/2', '1/3', '2/1']);
});

test('an event that always fails is given up, and the next one handled', async () => {
  const bad = new Error('no such contact');
  let calls = 0;
  const dispatcher = new Dispatcher(({ id }) => { if (id === '1') { calls++; throw bad; } }, { retry: { attempts: 4, ...fast } });
  assert.deepEqual(await addAll(dispatcher, [event(1), event(2)]), [bad, undefined]);
  assert.equal(calls, 4);
});

test('a Reject is final at once, and nothing else is; throwing nothing is an error too', async () => {
  let calls = 0;
  const final = new Reject('gone');
  const dispatcher = new Dispatcher(({ id }) => { calls++; throw id === '1' ? final : undefined; }, { retry: { attempts: 2, ...fast } });
  const [first, second] = await addAll(dispatcher, [event(1), event(2)]);
  assert.equal(first, final);
  assert.match(second.message, /handler failed/);
  assert.equal(calls, 3);
});

test('a batch that fails is tried one by one, and only the bad event is given up', async () => {
  const bad = new Error('bad');
  const dispatcher = new Dispatcher((events) => { if (events.some(({ id }) => id === '3')) throw bad; },
    { batch: { max: 10, wait: 1 }, retry: { attempts: 2, ...fast } });
  assert.deepEqual(await addAll(dispatcher, [1, 2, 3, 4].map((id) => event(id))), [undefined, undefined, bad, undefined]);
});

test('the same event is handled once: while it waits, while it runs and afterwards', async () => {
  const { calls, handler } = gate();
  const dispatcher = new Dispatcher(handler, {});
  const first = addAll(dispatcher, [event(1), event(2)]);
  const again = addAll(dispatcher, [event(1), event(2)]);
  await turn();
  calls[0].done();
  await turn();
  calls[1].done();
  await Promise.all([first, again]);
  assert.deepEqual(await addAll(dispatcher, [event(1), event(2)]), [undefined, undefined]);
  assert.equal(calls.length, 2);
});

test('an event that was given up is handled anew when it is sent again', async () => {
  let fail = true;
  const dispatcher = new Dispatcher(() => { if (fail) throw new Error('bad'); }, { retry: { attempts: 1 } });
  assert.match((await addAll(dispatcher, [event(1)]))[0].message, /bad/);
  fail = false;
  assert.deepEqual(await addAll(dispatcher, [event(1)]), [undefined]);
});

test('the same id in another channel or of another source is another event', async () => {
  let calls = 0;
  const dispatcher = new Dispatcher(() => { calls++; }, {});
  await addAll(dispatcher, [event(1), { ...event(1), channel: 'b' }, { ...event(1), source: '/other' }]);
  assert.equal(calls, 3);
});

test('what is remembered is bounded', async () => {
  let calls = 0;
  const dispatcher = new Dispatcher(() => { calls++; }, { remember: 10 });
  for (let round = 0; round < 2; round++) await addAll(dispatcher, Array.from({ length: 11 }, (_, i) => event(i)));
  assert.equal(calls, 22);
});

test('what somebody else has handled meanwhile is left out', async () => {
  const { calls, handler } = gate();
  const dispatcher = new Dispatcher(handler, {});
  const items = [1, 2, 3].map((id) => ({ event: event(id), settled() {} }));
  items.forEach((item) => dispatcher.add(item));
  items[1].gone = true;
  calls[0].done();
  await turn();
  assert.deepEqual(calls.map(({ value }) => value.id), ['1', '3']);
});

test('stopping starts nothing more, ends waits and tells running handlers', async () => {
  let calls = 0;
  const dispatcher = new Dispatcher(({ id }, { signal }) => {
    calls++;
    if (id === '1') throw new Error('again');
    return new Promise((_, fail) => signal.addEventListener('abort', () => fail(new Error('stopped'))));
  }, { concurrency: 2, retry: { min: 1e9, max: 1e9 } });
  for (const id of [1, 2, 3]) dispatcher.add({ event: event(id, `${id}`), settled() { assert.fail('settled'); } });
  await turn();
  assert.equal(calls, 3);
  dispatcher.stop();
  await dispatcher.until(0);
  assert.equal(calls, 3);
});

test('fifty handlers that wait at once bring no warning', async () => {
  const warnings = [];
  const note = (warning) => warnings.push(warning);
  process.on('warning', note);
  const dispatcher = new Dispatcher((_, { attempt }) => { if (attempt === 1) throw new Error('again'); }, { concurrency: 50, retry: { min: 5, max: 5 } });
  await addAll(dispatcher, Array.from({ length: 50 }, (_, i) => event(i)));
  await turn();
  process.off('warning', note);
  assert.deepEqual(warnings, []);
});
