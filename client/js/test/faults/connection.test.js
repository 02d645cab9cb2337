import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mock, test } from 'node:test';
import { promisify } from 'node:util';
import {
  ForbiddenError, ProtocolError, Reject, TakenOverError, TooLargeError, UnauthorizedError, UnavailableError,
} from '../../src/index.js';
import { DURABLE, HELLO, ended, event, fake, jwt, settle } from './fake.js';

/** Subscribes; notes events and states. */
function subscribe(gateway, more) {
  const seen = [];
  const states = [];
  const subscription = gateway.client.subscribe({ channels: ['a', 'b.c'], types: ['x.*', 'y'], ...more },
    ({ id }) => { seen.push(id); }, { onState: (detail) => states.push(detail) });
  return { subscription, seen, states };
}

const codes = (states) => states.map(({ state, error }) => error ? `${state}: ${error.code}` : state);

test('what is asked for, by WebSocket: the token is in no URL', async () => {
  const gateway = fake();
  const { subscription, states, seen } = subscribe(gateway, { since: 'earliest', lag: 'latest' });
  const line = await gateway.line();
  assert.equal(`${line.url}`, 'ws://gateway.test/base/v1/ws?channel=a&channel=b.c&types=x.*%2Cy&since=earliest&lag=latest');
  assert.deepEqual(line.protocols, ['longline.v1', 'bearer.secret-token']);
  line.say(HELLO, event(1));
  await settle();
  assert.deepEqual(seen, ['e1']);
  await subscription.close();
  assert.equal(subscription.position, 'a@k-1');
  assert.equal(await ended(subscription), undefined);
  assert.deepEqual(codes(states), ['connecting', 'live', 'closed']);
  assert.equal(line.closed, true);
});

test('where there is no WebSocket, by SSE, the token in a header', async () => {
  const gateway = fake({ transport: 'sse' });
  const { subscription, seen } = subscribe(gateway, { since: new Date(0) });
  const line = await gateway.line();
  assert.equal(`${line.url}`, 'http://gateway.test/base/v1/sse?channel=a&channel=b.c&types=x.*%2Cy&since=1970-01-01T00%3A00%3A00.000Z');
  assert.equal(line.init.headers.authorization, 'Bearer secret-token');
  line.say(HELLO, event(1));
  await settle();
  assert.deepEqual(seen, ['e1']);
  await subscription.close();
  assert.equal(line.closed, true);
});

test('a WebSocket that does not get through is followed by SSE, and not tried again for a while', async () => {
  const gateway = fake();
  const { subscription, seen } = subscribe(gateway);
  (await gateway.line(1)).end(1006);
  const stream = await gateway.line(2);
  assert.equal(stream.kind, 'sse');
  stream.say(HELLO, event(1));
  await settle();
  stream.end();
  const next = await gateway.line(3);
  assert.equal(next.kind, 'sse');
  assert.equal(next.url.searchParams.get('since'), 'a@k-1');
  assert.deepEqual(seen, ['e1']);
  await subscription.close();
});

test('where neither gets through the gateway is away: WebSocket comes first again', async () => {
  const gateway = fake();
  const { subscription, states } = subscribe(gateway);
  (await gateway.line(1)).end();
  (await gateway.line(2)).fail();
  assert.equal((await gateway.line(3)).kind, 'websocket');
  assert.deepEqual(codes(states), ['connecting', 'waiting: connection', 'connecting: connection']);
  await subscription.close();
});

test('a refusal that the WebSocket tells is not asked for again over SSE', async () => {
  const gateway = fake();
  const { subscription } = subscribe(gateway);
  (await gateway.line()).say({ op: 'bye', code: 4403, reason: 'token may not subscribe to "a"', retry_ms: 0, reconnect: false });
  const error = await ended(subscription);
  assert.ok(error instanceof ForbiddenError);
  assert.match(error.message, /may not subscribe/);
  assert.equal(gateway.lines.length, 1);
});

test('a WebSocket that is refused by status is explained by SSE, and its Retry-After obeyed', async (t) => {
  const gateway = fake();
  const { subscription, states } = subscribe(gateway);
  (await gateway.line(1)).end(1006);
  (await gateway.line(2)).refuse(503, '{"code":"unavailable","detail":"full"}', { 'retry-after': '7' });
  await settle();
  const { state, error, wait } = states.at(-1);
  assert.equal(state, 'waiting');
  assert.ok(error instanceof UnavailableError);
  assert.equal(wait, 7000);
  await subscription.close();
});

test('after a break it goes on behind the last event that came, over all channels', async () => {
  const gateway = fake();
  const { subscription, seen } = subscribe(gateway, { since: 'earliest' });
  const first = await gateway.line(1);
  first.say({ ...HELLO, cursor: 'a@k-0,b.c@z-4' }, event(1), event(2), { op: 'position', cursor: 'a@k-9,b.c@z-5' });
  first.end(1006);
  const second = await gateway.line(2);
  assert.equal(second.url.searchParams.get('since'), 'a@k-9,b.c@z-5');
  second.say({ ...HELLO, cursor: 'a@k-9,b.c@z-5', recovered: true }, event(10));
  await settle();
  assert.deepEqual(seen, ['e1', 'e2', 'e10']);
  await subscription.close();
});

test('over SSE an id without data moves the position', async () => {
  const gateway = fake({ transport: 'sse' });
  const { subscription } = subscribe(gateway);
  const line = await gateway.line(1);
  line.say({ ...HELLO });
  line.write('id: a@k-30\n\n');
  await settle();
  assert.equal(subscription.position, 'a@k-30');
  line.end();
  assert.equal((await gateway.line(2)).url.searchParams.get('since'), 'a@k-30');
  await subscription.close();
});

test('bye is obeyed: how long to wait, and whether to come back at all', async () => {
  const gateway = fake();
  const { subscription, states } = subscribe(gateway);
  const first = await gateway.line(1);
  first.say(HELLO, { op: 'bye', code: 1012, reason: 'restart', retry_ms: 3, reconnect: true });
  await new Promise((resolve) => setTimeout(resolve, 20));
  const second = await gateway.line(2);
  assert.equal(states.find(({ state }) => state === 'waiting').wait, 3);
  second.say(HELLO, { op: 'bye', code: 4409, reason: 'taken over', retry_ms: 0, reconnect: false });
  assert.ok(await ended(subscription) instanceof TakenOverError);
  assert.equal(subscription.state, 'closed');
});

test('a token that ran out is renewed and used; one that is refused at once is final', async () => {
  let n = 0;
  const gateway = fake({ token: async () => `token-${++n}` });
  const { subscription } = subscribe(gateway);
  const expired = { op: 'bye', code: 4401, reason: 'token expired', retry_ms: 0, reconnect: false };
  (await gateway.line(1)).say(HELLO, expired);
  await settle();
  const second = await gateway.line(2);
  assert.deepEqual(second.protocols, ['longline.v1', 'bearer.token-2']);
  second.say(expired);
  assert.ok(await ended(subscription) instanceof UnauthorizedError);

  const fixed = fake();
  const { subscription: other } = subscribe(fixed);
  (await fixed.line()).say(HELLO, expired);
  assert.ok(await ended(other) instanceof UnauthorizedError);
});

test('a token that cannot be had is tried for again, unless its error is final', async () => {
  let n = 0;
  const gateway = fake({ token: () => { if (++n < 3) throw new Error('the session service is away'); return 't'; } });
  const { subscription, states } = subscribe(gateway);
  await new Promise((resolve) => setTimeout(resolve, 20));
  await gateway.line(1);
  assert.equal(states[1].error.cause.message, 'the session service is away');
  await subscription.close();

  const final = fake({ token: () => { throw new UnauthorizedError('signed out'); } });
  const error = await ended(subscribe(final).subscription);
  assert.ok(error instanceof UnauthorizedError);
  assert.equal(error.message, 'signed out');
  assert.equal(final.lines.length, 0);
});

test('a token is renewed in place before it runs out', async () => {
  mock.timers.enable({ apis: ['setTimeout', 'Date'], now: 1e12 });
  try {
    let n = 0;
    const gateway = fake({ token: () => jwt(1e9 + 100 * ++n) });
    const { subscription } = subscribe(gateway);
    const line = await gateway.line();
    line.say(HELLO);
    mock.timers.tick(79_000);
    await settle();
    const auths = () => line.sent.filter(({ op }) => op === 'auth').map(({ token }) => token);
    assert.deepEqual(auths(), []);
    mock.timers.tick(2000);
    await settle();
    assert.deepEqual(auths(), [jwt(1e9 + 200)]);
    line.say({ op: 'ok', ref: 0 });
    mock.timers.tick(100_000);
    await settle();
    assert.equal(auths().length, 2);
    assert.equal(gateway.lines.length, 1);
    await subscription.close();
  } finally {
    mock.timers.reset();
  }
});

test('over SSE a token is renewed by a new connection, which goes on where the old one was', async () => {
  mock.timers.enable({ apis: ['setTimeout', 'Date'], now: 1e12 });
  try {
    let n = 0;
    const gateway = fake({ transport: 'sse', token: () => jwt(1e9 + 100 * ++n) });
    const { subscription } = subscribe(gateway);
    (await gateway.line(1)).say(HELLO, event(1));
    await settle();
    mock.timers.tick(81_000);
    await settle();
    mock.timers.tick(1);
    const second = await gateway.line(2);
    assert.equal(gateway.lines[0].closed, true);
    assert.equal(second.url.searchParams.get('since'), 'a@k-1');
    const closed = subscription.close();
    await settle();
    await closed;
  } finally {
    mock.timers.reset();
  }
});

test('what is no frame breaks the line, not the client', async () => {
  for (const bad of ['{"half":', '42', 'null', '{"specversion":"1.0"}', '{"specversion":"1.0","id":"1","source":"/","type":"t","cursor":"?"}']) {
    const gateway = fake();
    const { subscription, states } = subscribe(gateway);
    (await gateway.line(1)).say(HELLO, bad);
    await gateway.line(2);
    assert.ok(states.find(({ state }) => state === 'waiting').error instanceof ProtocolError, bad);
    assert.equal(gateway.lines[0].closed, true);
    await subscription.close();
  }
});

test('a control event that is not JSON breaks the stream, not the client', async () => {
  const gateway = fake({ transport: 'sse' });
  const { subscription } = subscribe(gateway);
  const line = await gateway.line(1);
  line.say(HELLO);
  line.write('event: longline.gap\ndata: {\n\n');
  await gateway.line(2);
  await subscription.close();
});

test('a frame beyond reason is final', async () => {
  const gateway = fake();
  const { subscription } = subscribe(gateway);
  (await gateway.line()).say(HELLO, ' '.repeat((16 << 20) + 1));
  assert.ok(await ended(subscription) instanceof TooLargeError);
});

test('an op of a later version is ignored', async () => {
  const gateway = fake();
  const { subscription, seen } = subscribe(gateway);
  (await gateway.line()).say(HELLO, { op: 'weather', sunny: true }, event(1));
  await settle();
  assert.deepEqual(seen, ['e1']);
  await subscription.close();
});

test('a gateway that takes the WebSocket and then says nothing is given up for SSE', async () => {
  mock.timers.enable({ apis: ['setTimeout', 'Date'], now: 1e12 });
  try {
    const gateway = fake();
    const { subscription } = subscribe(gateway);
    await gateway.line(1);
    for (let i = 0; i < 5; i++) {
      mock.timers.tick(3000);
      await settle();
    }
    assert.equal((await gateway.line(2)).kind, 'sse');
    assert.equal(gateway.lines[0].closed, true);
    const closed = subscription.close();
    await settle();
    await closed;
  } finally {
    mock.timers.reset();
  }
});

test('a silent line is asked, and given up when it does not answer', async () => {
  mock.timers.enable({ apis: ['setTimeout', 'Date'], now: 1e12 });
  try {
    const gateway = fake();
    const { subscription, states } = subscribe(gateway);
    const line = await gateway.line(1);
    line.say(HELLO);
    const pings = () => line.sent.filter(({ op }) => op === 'ping').length;
    const pass = async (seconds) => { for (let i = 0; i < seconds; i++) { mock.timers.tick(1000); await settle(); } };
    await pass(29);
    assert.equal(pings(), 0);
    await pass(5);
    assert.equal(pings(), 1);
    line.say({ op: 'ok', ref: 0 });
    await pass(60);
    assert.ok(line.closed, 'the line is kept, silent as it is');
    assert.equal(pings(), 2);
    assert.equal(states.find(({ state }) => state === 'waiting').error.code, 'connection');
    mock.timers.tick(1);
    await gateway.line(2);
    const closed = subscription.close();
    await settle();
    await closed;
  } finally {
    mock.timers.reset();
  }
});

test('after sleep a line has to prove itself at once', async () => {
  mock.timers.enable({ apis: ['setTimeout', 'Date'], now: 1e12 });
  try {
    const gateway = fake();
    const { subscription } = subscribe(gateway);
    const line = await gateway.line(1);
    line.say(HELLO);
    // The clock on the wall goes on while timers stand still.
    mock.timers.setTime(1e12 + 3_600_000);
    mock.timers.tick(3000);
    await settle();
    assert.equal(line.sent.at(-1)?.op, 'ping');
    mock.timers.tick(3000);
    await settle();
    assert.equal(line.closed, true);
    mock.timers.tick(1);
    await gateway.line(2);
    const closed = subscription.close();
    await settle();
    await closed;
  } finally {
    mock.timers.reset();
  }
});

/** Node has no window: the test is one. */
function withWindow(t) {
  const window = new EventTarget();
  globalThis.addEventListener = window.addEventListener.bind(window);
  t.after(() => { delete globalThis.addEventListener; });
  return (type) => window.dispatchEvent(new Event(type));
}

test('when the network is back, waiting is over', async (t) => {
  const happens = withWindow(t);
  const gateway = fake({ backoff: { min: 1e9, max: 1e9 } });
  const { subscription } = subscribe(gateway);
  (await gateway.line(1)).say(HELLO);
  (await gateway.line(1)).end(1006);
  await settle();
  assert.equal(gateway.lines.length, 1);
  happens('online');
  await gateway.line(2);
  await subscription.close();
});

test('when the network is back, a stream is made anew: it cannot be asked', async (t) => {
  const happens = withWindow(t);
  const gateway = fake({ transport: 'sse' });
  const { subscription } = subscribe(gateway);
  (await gateway.line(1)).say(HELLO);
  await settle();
  happens('online');
  await gateway.line(2);
  await subscription.close();
});

test('a page that is hidden and shown again loses nothing, and its line is asked', async (t) => {
  const happens = withWindow(t);
  const gateway = fake();
  const { subscription, seen } = subscribe(gateway);
  const line = await gateway.line(1);
  line.say(HELLO, event(1));
  happens('visibilitychange');
  line.say(event(2));
  happens('visibilitychange');
  line.say({ op: 'ok', ref: 0 }, event(3));
  await settle();
  assert.deepEqual(seen, ['e1', 'e2', 'e3']);
  assert.equal(gateway.lines.length, 1);
  assert.ok(line.sent.some(({ op }) => op === 'ping'));
  await subscription.close();
  happens('online');
  await settle();
  assert.equal(gateway.lines.length, 1, 'a closed subscription came back');
});

test('a handler slower than a WebSocket: the line is left, and made again when there is room', async () => {
  const gateway = fake();
  const waiting = [];
  const seen = [];
  const subscription = gateway.client.subscribe({ channels: ['a'] },
    ({ id }) => new Promise((done) => { seen.push(id); waiting.push(done); }), { window: 10 });
  const line = await gateway.line(1);
  line.say(HELLO, ...Array.from({ length: 100 }, (_, i) => event(i + 1)));
  await settle();
  assert.equal(line.closed, true);
  assert.equal(gateway.lines.length, 1);
  for (let i = 0; i < 40 && gateway.lines.length < 2; i++) {
    waiting.shift()?.();
    await settle();
  }
  const second = await gateway.line(2);
  // It took 21 before it left: it goes on behind them.
  assert.equal(second.url.searchParams.get('since'), 'a@k-21');
  assert.ok(seen.length >= 10 && seen.length <= 21, `${seen.length} events handled`);
  const closed = subscription.close();
  while (waiting.length) { waiting.shift()(); await settle(); }
  await closed;
});

test('listeners that throw break nothing', async () => {
  // In a process of its own: the test runner takes uncaught errors for its own.
  const script = `
    import { HELLO, event, fake, settle } from ${JSON.stringify(new URL('fake.js', import.meta.url))};
    process.on('uncaughtException', ({ message }) => console.log(message));
    const gateway = fake();
    const onState = ({ state }) => { throw new Error('bad listener: ' + state); };
    const subscription = gateway.client.subscribe({ channels: ['a'] }, ({ id }) => console.log(id), { onState });
    (await gateway.line()).say(HELLO, event(1));
    await settle();
    await subscription.close();`;
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', script]);
  assert.deepEqual(stdout.trim().split('\n').sort(),
    ['bad listener: closed', 'bad listener: connecting', 'bad listener: live', 'e1']);
});

test('a handler that fails on an ephemeral subscription is asked again; what it rejects is told of', async () => {
  const gateway = fake();
  const told = [];
  const seen = [];
  const subscription = gateway.client.subscribe({ channels: ['a'] }, ({ id }, { attempt }) => {
    seen.push(`${id}/${attempt}`);
    if (id === 'e1' && attempt < 3) throw new Error('bad');
    if (id === 'e2') throw new Reject('no such contact');
  }, { retry: { min: 0 }, onReject: ({ id }, { message }) => told.push([id, message]) });
  (await gateway.line()).say(HELLO, event(1), event(2));
  while (!told.length) await settle();
  assert.deepEqual(seen, ['e1/1', 'e1/2', 'e1/3', 'e2/1']);
  assert.deepEqual(told, [['e2', 'no such contact']]);
  assert.deepEqual(gateway.warnings.map(([message]) => message), ['longline: the handler failed, will try again:'], 'once, not for each try');
  await subscription.close();
});

test('trouble is told at once, then rarely; a final error that nobody handles ends Node', async () => {
  // In a process of its own, as a user has it: nothing but a handler.
  const script = (more) => `
    import { Longline } from ${JSON.stringify(new URL('../../src/index.js', import.meta.url))};
    import { HELLO, event, fake, settle } from ${JSON.stringify(new URL('fake.js', import.meta.url))};
    ${more}`;
  const run = (text) => promisify(execFile)(process.execPath, ['--input-type=module', '-e', text]).catch((error) => error);
  const away = await run(script(`
    new Longline('http://127.0.0.1:9', { backoff: { min: 1, max: 1 }, transport: 'sse' }).subscribe({ channels: ['a'] }, () => {});
    setTimeout(() => process.exit(), 300);`));
  assert.match(away.stderr, /longline: no connection, will try again: ConnectionError/);
  assert.equal(away.stderr.match(/longline:/g).length, 1, away.stderr);
  const refused = await run(script(`
    const gateway = fake();
    gateway.client.subscribe({ channels: ['a'] }, () => {});
    (await gateway.line()).say({ op: 'bye', code: 4403, reason: 'not yours', retry_ms: 0, reconnect: false });
    await settle();`));
  assert.equal(refused.code, 1);
  assert.match(refused.stderr, /ForbiddenError: not yours/);
  const first = await run(`import { Longline } from ${JSON.stringify(new URL('../../src/index.js', import.meta.url))};
    await new Longline('http://127.0.0.1:9', { transport: 'sse' }).subscribe({ channels: ['a'] }, () => {}, { failFast: true }).closed;`);
  assert.equal(first.code, 1);
  assert.match(first.stderr, /ConnectionError/);
});

test('what is not taken is an error at once', async () => {
  const { client } = fake();
  for (const [args, said] of [
    [[{ channels: ['a'], concurrency: 8 }, () => {}], /selection: got concurrency, want channels/],
    [[{ channels: ['a'] }, () => {}, { attempts: 3 }], /options: got attempts, want concurrency/],
    [[{ channels: ['a'] }, { window: 3 }], /the handler is no function/],
    [[{ channels: ['a'] }, () => {}, {}, {}], /too many/],
    [[{}, () => {}], /no channels/],
  ]) assert.throws(() => client.subscribe(...args), (error) => error instanceof TypeError && said.test(error.message), `${said}`);
  assert.throws(() => client.attach('s', { window: 3 }), /the handler is no function/);
  assert.throws(() => client.attach(undefined, () => {}), /no channels or name/);
  await assert.rejects(client.publish('a', { type: 't', data: { n: 1n } }), (error) => error instanceof TypeError && /BigInt/.test(error.message));
});

test('a consumer that stands by stays', async () => {
  mock.timers.enable({ apis: ['setTimeout', 'Date'] });
  try {
    const gateway = fake();
    const subscription = gateway.client.attach('s', () => {});
    const line = await gateway.line();
    line.say({ op: 'standby' });
    await settle();
    for (let i = 0; i < 10; i++) {
      mock.timers.tick(6_000);
      await settle();
      if (line.sent.some(({ op }) => op === 'ping')) line.say({ op: 'ok', ref: 0 });
    }
    assert.equal(gateway.lines.length, 1, 'it came again');
    assert.equal(line.closed, false);
    await subscription.close();
  } finally {
    mock.timers.reset();
  }
});

test('2,000 who publish at once share few requests, and one bad event is nobody else\'s', async () => {
  const gateway = fake();
  let n = 0;
  gateway.answer = ({ body }) => body.some(({ type }) => !type)
    ? Response.json({ code: 'bad_request', detail: 'event has no type' }, { status: 400 })
    : Response.json({ events: body.map(({ id }) => ({ id, cursor: `a@k-${++n}` })) });
  const all = await Promise.all(Array.from({ length: 2000 }, (_, i) => gateway.client.publish('a', { id: `${i}`, type: 't', data: i })));
  assert.deepEqual(all.map(({ id }) => id), Array.from({ length: 2000 }, (_, i) => `${i}`));
  assert.ok(gateway.posts.length <= 3, `${gateway.posts.length} requests`);
  const [good, bad, pair] = await Promise.allSettled([
    gateway.client.publish('a', { type: 't' }), gateway.client.publish('a', { data: 1 }), gateway.client.publish('a', [{ type: 't' }, { type: 'u' }]),
  ]);
  assert.deepEqual([good.status, bad.status, pair.value?.length], ['fulfilled', 'rejected', 2]);
  assert.match(bad.reason.message, /no type/);
});

test('for await gets each event, and the final error', async () => {
  const gateway = fake();
  const subscription = gateway.client.subscribe({ channels: ['a'] });
  const line = await gateway.line();
  line.say(HELLO, event(1), event(2));
  const seen = [];
  await assert.rejects(async () => {
    for await (const { id } of subscription) {
      seen.push(id);
      if (id === 'e2') line.say({ op: 'bye', code: 4404, reason: 'no such channel', retry_ms: 0, reconnect: false });
    }
  }, /no such channel/);
  assert.deepEqual(seen, ['e1', 'e2']);
});

test('breaking out of for await closes', async () => {
  const gateway = fake();
  const subscription = gateway.client.subscribe({ channels: ['a'] });
  const line = await gateway.line();
  line.say(HELLO, event(1), event(2));
  for await (const _ of subscription) break;
  assert.equal(await ended(subscription), undefined);
  assert.equal(line.closed, true);
});

test('iterating over what has a handler is a TypeError', async () => {
  const gateway = fake();
  const { subscription } = subscribe(gateway);
  assert.throws(() => subscription[Symbol.asyncIterator](), TypeError);
  await subscription.close();
});

test('gap, standby and errors of the gateway are told', async () => {
  const gateway = fake();
  const told = [];
  const subscription = gateway.client.attach('s', () => {}, {
    onGap: ({ op, ...gap }) => told.push(gap), 
    onState: ({ state }) => told.push(state),
  });
  const gap = { channel: 'a', from: 'a@k-1', to: 'a@k-5', reason: 'retention' };
  (await gateway.line()).say({ op: 'standby' }, DURABLE, { op: 'redelivery', cursor: 'a@k-9' }, { op: 'gap', ...gap },
    { op: 'error', code: 'bad_request', detail: 'no' });
  await settle();
  assert.deepEqual(told, ['connecting', 'standby', 'live', gap]);
  assert.match(gateway.warnings.at(-1)[0], /the gateway refused/);
  await subscription.close();
});
