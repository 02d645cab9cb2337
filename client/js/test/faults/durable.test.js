import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { test } from 'node:test';
import { fetchCallback } from '../../src/index.js';
import { DURABLE, ended, event, fake, settle } from './fake.js';

const fast = { min: 0, max: 0 };
const ACK_EVERY = 50;

/** Attaches with a handler whose calls end when the test says so, unless one is given. */
function attach(gateway, { handler, ...options } = {}) {
  const calls = [];
  const subscription = gateway.client.attach('crm/42',
    handler ?? ((value, context) => new Promise((done, fail) => calls.push({ value, context, done, fail }))),
    { consumer: 'me', onReject() {}, ...options });
  return { subscription, calls };
}
const acks = (line) => line.sent.filter(({ op }) => op === 'ack').map(({ cursor }) => cursor);
const acked = async () => { await new Promise((resolve) => setTimeout(resolve, 2 * ACK_EVERY)); await settle(); };
const end = async (subscription, calls = []) => {
  const closed = subscription.close();
  for (const { done } of calls) done();
  return closed;
};

test('what is asked for: name, consumer, window; each attachment is a consumer of its own', async () => {
  const gateway = fake();
  const { subscription } = attach(gateway, { window: 64 });
  const { searchParams } = (await gateway.line(1)).url;
  assert.deepEqual(Object.fromEntries(searchParams), { subscription: 'crm/42', consumer: 'me', window: '64', ack: 'manual' });
  const one = gateway.client.attach('s', () => {});
  const two = gateway.client.attach('s', () => {}, { batch: { max: 200 }, concurrency: 4 });
  const [first, second] = [await gateway.line(2), await gateway.line(3)].map(({ url }) => url.searchParams);
  assert.ok(first.get('consumer').length > 20);
  assert.notEqual(first.get('consumer'), second.get('consumer'));
  assert.equal(second.get('window'), '1600', 'room for the batches in work and as many to come');
  await Promise.all([end(subscription), one.close(), two.close()]);
});

test('the contiguous prefix of what is done is acknowledged', async () => {
  const gateway = fake();
  const { subscription, calls } = attach(gateway, { concurrency: 3 });
  const line = await gateway.line();
  line.say(DURABLE, event(1), event(2), event(3));
  await settle();
  calls[1].done();
  calls[2].done();
  await acked();
  assert.deepEqual(acks(line), []);
  calls[0].done();
  await acked();
  assert.deepEqual(acks(line), ['a@k-3']);
  assert.equal(subscription.position, 'a@k-3');
  await end(subscription);
});

test('however fast events come, acknowledgements stay few', async () => {
  const gateway = fake();
  const { subscription } = attach(gateway, { handler() {}, window: 1e6 });
  const line = await gateway.line();
  line.say(DURABLE);
  const began = Date.now();
  let offset = 0;
  while (Date.now() - began < 500) {
    for (let i = 0; i < 100; i++) line.say(event(++offset));
    await new Promise(setImmediate);
  }
  await acked();
  assert.equal(acks(line).at(-1), `a@k-${offset}`);
  const allowed = (Date.now() - began) / ACK_EVERY + 1;
  assert.ok(acks(line).length <= allowed, `${acks(line).length} acknowledgements, want at most ${allowed}`);
  await end(subscription);
});

test('a handler that fails is tried again, then the event is rejected and the next one handled', async () => {
  const gateway = fake();
  const given = [];
  const { subscription } = attach(gateway, {
    retry: { attempts: 3, ...fast }, onReject: (event, error) => given.push([error.message, event.id]),
    handler({ id }) { if (id === 'e1') throw new Error('no such contact'); },
  });
  const line = await gateway.line();
  line.say(DURABLE, event(1), event(2));
  await acked();
  assert.deepEqual(line.sent.filter(({ op }) => op === 'reject'), [{ op: 'reject', cursor: 'a@k-1', reason: 'no such contact', attempts: 3 }]);
  assert.deepEqual(acks(line), ['a@k-2']);
  assert.deepEqual(given, [['no such contact', 'e1']]);
  await end(subscription);
});

test('after a break what comes again is not handled again, and acknowledged once it has come', async () => {
  const gateway = fake();
  const { subscription, calls } = attach(gateway, { concurrency: 4 });
  const first = await gateway.line(1);
  first.say(DURABLE, event(1), event(2), event(3), event(4));
  await settle();
  first.end(1006);
  calls[0].done();
  calls[1].done();
  const second = await gateway.line(2);
  assert.equal(second.url.searchParams.get('consumer'), 'me');
  second.say({ ...DURABLE, connection: 'c2' });
  await acked();
  assert.deepEqual(acks(second), [], 'acknowledged what this connection has not delivered');
  second.say({ op: 'redelivery', cursor: 'a@k-4' }, event(1), event(2), event(3), event(4), event(5));
  await acked();
  assert.deepEqual(acks(second), ['a@k-2']);
  assert.deepEqual(calls.map(({ value }) => value.id), ['e1', 'e2', 'e3', 'e4', 'e5']);
  for (const { done } of calls) done();
  await acked();
  assert.deepEqual(acks(second), ['a@k-2', 'a@k-5']);
  await end(subscription);
});

test('a rejection waits for its event to come again, too', async () => {
  const gateway = fake();
  const { subscription, calls } = attach(gateway, { retry: { attempts: 1 } });
  const first = await gateway.line(1);
  first.say(DURABLE, event(1));
  await settle();
  first.end(1006);
  calls[0].fail(new Error('bad'));
  const second = await gateway.line(2);
  second.say(DURABLE);
  await acked();
  assert.deepEqual(second.sent, []);
  second.say(event(1));
  await acked();
  assert.deepEqual(second.sent.map(({ op }) => op), ['reject', 'ack']);
  await end(subscription);
});

test('an acknowledgement that was lost is sent again, and its event not handled again', async () => {
  const gateway = fake();
  let handled = 0;
  const { subscription } = attach(gateway, { handler() { handled++; } });
  const first = await gateway.line(1);
  first.say(DURABLE, event(1), event(2));
  await acked();
  first.end(1006);
  const second = await gateway.line(2);
  second.say(DURABLE, event(1), event(2));
  await acked();
  assert.deepEqual(acks(second), ['a@k-2']);
  assert.equal(handled, 2);
  await end(subscription);
});

test('what was acknowledged elsewhere meanwhile is not begun any more', async () => {
  const gateway = fake();
  const { subscription, calls } = attach(gateway);
  const first = await gateway.line(1);
  first.say(DURABLE, event(1), event(2), event(3), event(4));
  await settle();
  first.end(1006);
  (await gateway.line(2)).say({ ...DURABLE, cursor: 'a@k-3' }, event(4));
  calls[0].done();
  await settle();
  assert.deepEqual(calls.map(({ value }) => value.id), ['e1', 'e4']);
  await end(subscription, calls);
});

test('a cursor moved back: what was handled is handled again, what is being handled is not', async () => {
  const gateway = fake();
  const { subscription, calls } = attach(gateway, { concurrency: 3 });
  const first = await gateway.line(1);
  first.say({ ...DURABLE, placed: 'when it was made' }, event(1), event(2), event(3));
  await settle();
  calls[0].done();
  await acked();
  first.say({ op: 'bye', code: 1012, reason: 'the position was moved', retry_ms: 1, reconnect: true });
  const second = await gateway.line(2);
  second.say({ ...DURABLE, placed: 'just now', cursor: 'a@k-0' }, event(1), event(2), event(3));
  await settle();
  assert.deepEqual(calls.map(({ value }) => value.id), ['e1', 'e2', 'e3', 'e1']);
  for (const { done } of calls) done();
  await acked();
  assert.deepEqual(acks(second), ['a@k-3']);
  await end(subscription);
});

test('a log that forked: the same events under new cursors are not handled again', async () => {
  const gateway = fake();
  const { subscription, calls } = attach(gateway, { concurrency: 2 });
  const first = await gateway.line(1);
  first.say(DURABLE, event(1), event(2));
  await settle();
  calls[0].done();
  await settle();
  first.end(1006);
  const second = await gateway.line(2);
  second.say({ ...DURABLE, cursor: 'a@new-0' }, event(1, { cursor: 'a@new-1' }), event(2, { cursor: 'a@new-2' }));
  await acked();
  assert.equal(calls.length, 2);
  assert.deepEqual(acks(second), ['a@new-1']);
  calls[1].done();
  await acked();
  assert.deepEqual(acks(second), ['a@new-1', 'a@new-2']);
  await end(subscription);
});

test('over SSE acknowledgements go by POST, one at a time, with the connection they belong to', async () => {
  const gateway = fake({ transport: 'sse' });
  let answer;
  gateway.answer = () => new Promise((resolve) => { answer = () => resolve(Response.json({})); });
  const { subscription } = attach(gateway, { handler() {} });
  const line = await gateway.line();
  line.say(DURABLE, event(1));
  await acked();
  line.say(event(2));
  await acked();
  line.say(event(3));
  await acked();
  assert.equal(gateway.posts.length, 1);
  answer();
  await acked();
  answer();
  assert.deepEqual(gateway.posts.map(({ body }) => body), [{ cursor: 'a@k-1', connection: 'c1' }, { cursor: 'a@k-3', connection: 'c1' }]);
  assert.equal(`${gateway.posts[0].url}`, 'http://gateway.test/base/v1/subscriptions/crm%2F42/ack');
  assert.equal(gateway.posts[0].init.headers.authorization, 'Bearer secret-token');
  await end(subscription);
});

test('over SSE an acknowledgement that fails for now is tried again, one that is refused ends the line', async () => {
  const gateway = fake({ transport: 'sse' });
  const answers = [new Response('', { status: 503 }), Response.error(), Response.json({}), Response.json({ code: 'conflict' }, { status: 409 }),
    Response.json({ code: 'forbidden', detail: 'not yours any more' }, { status: 403 })];
  gateway.answer = () => answers.shift();
  const { subscription } = attach(gateway, { handler() {} });
  const line = await gateway.line();
  line.say(DURABLE, event(1));
  await acked();
  assert.equal(gateway.posts.length, 3);
  line.say(event(2));
  await acked();
  assert.equal(line.closed, false, 'a lost ownership is told by the line itself');
  line.say(event(3));
  const error = await ended(subscription);
  assert.match(error.message, /not yours/);
});

test('closing lets the running handler end, and acknowledges it', async () => {
  const gateway = fake();
  const { subscription, calls } = attach(gateway);
  const line = await gateway.line();
  line.say(DURABLE, event(1), event(2));
  await settle();
  const closed = subscription.close();
  assert.equal(calls[0].context.signal.aborted, true);
  await settle();
  assert.equal(line.closed, false);
  calls[0].done();
  await closed;
  assert.deepEqual(acks(line), ['a@k-1']);
  assert.equal(line.closed, true);
  assert.equal(calls.length, 1);
});

test('iterating acknowledges what the loop has done when it asks for more', async () => {
  const gateway = fake();
  const subscription = gateway.client.attach('s', null, { consumer: 'me' });
  const line = await gateway.line();
  line.say(DURABLE, event(1), event(2), event(3));
  const seen = [];
  for await (const { id } of subscription) {
    seen.push(id);
    await acked();
    if (id === 'e2') break;
  }
  await subscription.closed;
  assert.deepEqual(seen, ['e1', 'e2']);
  assert.deepEqual(acks(line), ['a@k-1']);
});

test('batches reach the handler as arrays and are acknowledged whole', async () => {
  const gateway = fake();
  const { subscription, calls } = attach(gateway, { batch: { max: 3, wait: 20 } });
  const line = await gateway.line();
  line.say(DURABLE, event(1), event(2), event(3), event(4));
  await settle();
  assert.deepEqual(calls.map(({ value }) => value.map(({ id }) => id)), [['e1', 'e2', 'e3']]);
  calls[0].done();
  await acked();
  assert.deepEqual(acks(line), ['a@k-3']);
  assert.deepEqual(calls[1].value.map(({ id }) => id), ['e4']);
  await end(subscription, calls);
});

/** The event as the gateway would POST it to a fetch-style server. */
function callback(serve, payload, secret) {
  const body = JSON.stringify(payload);
  const timestamp = `${Math.floor(Date.now() / 1000)}`;
  const mac = createHmac('sha256', Buffer.from(secret.slice(6), 'base64')).update(`id.${timestamp}.${body}`).digest('base64');
  return serve(new Request('http://here/', {
    method: 'POST', body,
    headers: { 'webhook-id': 'id', 'webhook-timestamp': timestamp, 'webhook-signature': `v1,${mac}` },
  }));
}

test('live, callback, live: one handler, each event once', async () => {
  const secret = 'whsec_' + Buffer.from('thirty-two bytes of a secret, ok').toString('base64');
  const gateway = fake();
  const { subscription, calls } = attach(gateway, { concurrency: 2 });
  const serve = fetchCallback(subscription, secret);
  const first = await gateway.line(1);
  first.say(DURABLE, event(1), event(2));
  await settle();
  calls[0].done();
  await acked();
  first.end(1006);
  // The callback comes with what is done, what is being done, and what is new.
  const answers = [1, 2, 3].map((n) => callback(serve, event(n), secret));
  assert.equal((await answers[0]).status, 204);
  await settle();
  calls[1].done();
  assert.equal((await answers[1]).status, 204);
  while (calls.length < 3) await settle(); // its signature is verified first
  calls[2].done();
  assert.equal((await answers[2]).status, 204);
  (await gateway.line(2)).say({ ...DURABLE, cursor: 'a@k-2' }, { op: 'redelivery', cursor: 'a@k-3' }, event(3), event(4));
  await settle();
  assert.deepEqual(calls.map(({ value }) => value.id), ['e1', 'e2', 'e3', 'e4']);
  await end(subscription, calls);
  assert.equal((await callback(serve, event(9), secret)).status, 503, 'a closed subscription took a callback');
});

test('a partition whose announcement ends early takes back none of another one', async () => {
  const gateway = fake();
  const { subscription, calls } = attach(gateway, { concurrency: 4 });
  const line = await gateway.line(1);
  line.say({ ...DURABLE, of: 2, partitions: [0, 1] }, { op: 'redelivery', cursor: 'a@k-3' }, { op: 'redelivery', cursor: 'a@k-1' }, event(2), event(4));
  await settle();
  assert.deepEqual(calls.map(({ context }) => context.redelivered), [true, false]);
  await end(subscription, calls);
});
