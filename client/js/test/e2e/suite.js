/**
 * What the client promises, against a real gateway. Runs in Node and in a
 * browser alike, over WebSocket and over SSE: `env` is all that differs.
 *
 * @typedef {object} Env
 * @property {typeof import('../../src/index.js')} sdk
 * @property {string} url
 * @property {'websocket' | 'sse'} transport
 * @property {(method: string, ...args: any[]) => Promise<any>} control a method of Control
 * @property {boolean} browser
 * @property {() => Promise<any>} [receiver] makes a server for callbacks; not in a browser
 */

/** @type {{name: string, run: (env: Env) => Promise<void>, only?: (env: Env) => boolean}[]} */
export const scenarios = [];
const scenario = (name, run, only) => scenarios.push({ name, run, only });

let names = 0;
/** A name that no other scenario has. */
const unique = (prefix) => `${prefix}-${Date.now().toString(36)}-${++names}`;

function check(ok, message) {
  if (!ok) throw new Error(message);
}
function same(got, want, what = 'got') {
  const [a, b] = [JSON.stringify(got), JSON.stringify(want)];
  check(a === b, `${what}: ${a?.slice(0, 2000)}, want ${b?.slice(0, 2000)}`);
}
/** Waits until it is true: a scenario has the time that its runner gives it. */
async function until(what, condition, ms = 20_000) {
  for (const deadline = Date.now() + ms; Date.now() < deadline; ) {
    if (await condition()) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error(`waited in vain until ${what}`);
}
const range = (from, to) => Array.from({ length: to - from + 1 }, (_, i) => from + i);
const numbered = (from, to, more) => range(from, to).map((n) => ({ type: 'test.counted', data: { n }, ...more?.(n) }));

async function client(env, options = {}) {
  const token = await env.control('token');
  return new env.sdk.Longline(env.url, { token, transport: env.transport, backoff: { min: 20, max: 200 }, ...options });
}

/** Resolves with what ended a subscription, or with nothing. */
const ended = ({ closed }) => closed.then(() => undefined, (error) => error);

/** Subscribes to a new channel; notes what comes and what happens. */
async function counting(env, { what = {}, more, options, handler } = {}) {
  const line = await client(env, options);
  const channel = unique('count');
  const got = [];
  const states = [];
  const gaps = [];
  const subscription = line.subscribe({ channels: [channel], ...what }, handler ?? (({ data }) => { got.push(data.n); }),
    { onState: (detail) => states.push(detail), onGap: (gap) => gaps.push(gap), ...more });
  await until('the subscription is live', () => subscription.state === 'live' || subscription.state === 'closed');
  return { line, channel, got, states, gaps, subscription };
}

scenario('events come live, in order, whole, and only of the types asked for', async (env) => {
  const line = await client(env);
  const channel = unique('live');
  const got = [];
  const subscription = line.subscribe({ channels: [channel], types: ['email.*'] }, (event) => { got.push(event); });
  await until('it is live', () => subscription.state === 'live');
  const results = await line.publish(channel, [
    { type: 'email.opened', subject: 'Zoë 😀', partitionkey: 'k', traceparent: '00-1-2-01', data: { text: 'a\nb\u2028c' } },
    { type: 'mailshot.completed' },
    { type: 'email.clicked', id: 'my-id', source: '/mine' },
  ]);
  same(results.length, 3);
  const one = await line.publish(channel, { type: 'email.bounced' });
  await until('three events came', () => got.length === 3);
  same(got.map(({ type }) => type), ['email.opened', 'email.clicked', 'email.bounced']);
  const [{ subject, partitionkey, traceparent, data, cursor, channel: of }, clicked] = got;
  same({ subject, partitionkey, traceparent, data, cursor, of }, {
    subject: 'Zoë 😀', partitionkey: 'k', traceparent: '00-1-2-01', data: { text: 'a\nb\u2028c' }, cursor: results[0].cursor, of: channel,
  });
  same([clicked.id, clicked.source], ['my-id', '/mine']);
  await subscription.close();
  same(subscription.position, one.cursor);
  same(await subscription.closed, undefined);
});

scenario('since: the beginning, a cursor, a time', async (env) => {
  const line = await client(env);
  const channel = unique('since');
  const results = await line.publish(channel, numbered(1, 5));
  const read = async (since) => {
    const got = [];
    for await (const { data } of line.subscribe({ channels: [channel], since })) {
      got.push(data.n);
      if (data.n === 5) break;
    }
    return got;
  };
  same(await read('earliest'), [1, 2, 3, 4, 5]);
  same(await read(results[2].cursor), [4, 5]);
  same(await read(new Date(0)), [1, 2, 3, 4, 5]);
});

scenario('the gateway is killed and comes back: nothing is lost and nothing comes twice', async (env) => {
  const { line, channel, got, states, subscription } = await counting(env);
  await line.publish(channel, numbered(1, 50));
  await until('50 came', () => got.length === 50);
  await env.control('kill');
  // Published into the dark: the client keeps trying until the gateway is back.
  const publishing = line.publish(channel, numbered(51, 100), { attempts: 100 });
  await until('the break is noticed', () => subscription.state !== 'live');
  await env.control('up');
  await publishing;
  await env.control('publish', channel, numbered(101, 120));
  await until('all came', () => got.length >= 120);
  same(got, range(1, 120));
  check(states.some(({ state }) => state === 'waiting'), 'no state "waiting"');
  await subscription.close();
});

scenario('what was published while a connection was cut is caught up with', async (env) => {
  const { channel, got, subscription } = await counting(env);
  // Over SSE each takes as long as the gateway asks to wait.
  const rounds = env.transport === 'sse' ? 1 : 3;
  for (let round = 0; round < rounds; round++) {
    await env.control('cut');
    await env.control('publish', channel, numbered(round * 40 + 1, round * 40 + 40));
    await until('the round came', () => got.length >= round * 40 + 40);
  }
  same(got, range(1, rounds * 40));
  await subscription.close();
});

scenario('a restart: bye says when to come back', async (env) => {
  const { channel, got, states, subscription } = await counting(env);
  await env.control('kill', 'SIGTERM');
  await env.control('up');
  await env.control('publish', channel, numbered(1, 3));
  await until('the events came', () => got.length === 3);
  const waiting = states.find(({ state }) => state === 'waiting');
  check(waiting.error instanceof env.sdk.UnavailableError && waiting.error.retry, `error is ${waiting.error}`);
  await subscription.close();
});

scenario('what a token may not is final: a ForbiddenError; no token an UnauthorizedError', async (env) => {
  const token = await env.control('token', { subscribe: ['mine'] });
  const line = await client(env, { token });
  const forbidden = await ended(line.subscribe({ channels: ['theirs'] }, () => {}));
  check(forbidden instanceof env.sdk.ForbiddenError && !forbidden.retry, `closed with ${forbidden}`);
  check(/theirs/.test(forbidden.message), `it does not say what: ${forbidden.message}`);
  const outdated = await client(env, { token: await env.control('token', undefined, -3600) });
  const unauthorized = await ended(outdated.subscribe({ channels: ['mine'] }, () => {}));
  check(unauthorized instanceof env.sdk.UnauthorizedError, `closed with ${unauthorized}`);
  const rejected = await line.publish('theirs', { type: 't' }).catch((error) => error);
  check(rejected instanceof env.sdk.ForbiddenError, `publishing: ${rejected}`);
});

scenario('bad input is a BadRequestError that says what is wrong', async (env) => {
  const line = await client(env);
  for (const what of [{ channels: ['a b'] }, { channels: ['a'], since: 'yesterday' }, { channels: ['a'], types: ['*.**.x'] }]) {
    const error = await ended(line.subscribe(what, () => {}));
    check(error instanceof env.sdk.BadRequestError, `${JSON.stringify(what)} closed with ${error}`);
  }
  const error = await line.publish(unique('bad'), { data: 1 }).catch((error) => error);
  check(error instanceof env.sdk.BadRequestError && /type/.test(error.message), `publishing without type: ${error}`);
  const large = await line.publish(unique('bad'), { type: 't', data: 'x'.repeat(300_000) }).catch((error) => error);
  check(large instanceof env.sdk.TooLargeError, `publishing too much: ${large}`);
});

scenario('a token is renewed before it runs out', async (env) => {
  let asked = 0;
  const { channel, got, subscription } = await counting(env, {
    options: { token: () => { asked++; return env.control('token', undefined, 3); } },
  });
  await until('the token is renewed twice', () => asked >= 3);
  await env.control('publish', channel, numbered(1, 3));
  await until('events came', () => got.length === 3);
  same(subscription.state, 'live');
  await subscription.close();
});

scenario('a log that is gone: a gap tells, and its successor is read from the beginning', async (env) => {
  const { channel, got, gaps, subscription } = await counting(env);
  await env.control('publish', channel, numbered(1, 3));
  await until('three came', () => got.length === 3);
  const { position } = subscription;
  await subscription.close();
  await env.control('request', 'DELETE', `/v1/channels/${channel}`);
  await env.control('publish', channel, numbered(4, 6));
  const line = await client(env);
  const again = line.subscribe({ channels: [channel], since: position }, ({ data }) => { got.push(data.n); }, { onGap: (gap) => gaps.push(gap) });
  await until('the new ones came', () => got.length >= 6);
  same(got, range(1, 6));
  same(gaps.map(({ channel, reason }) => [channel, reason]), [[channel, 'reset']]);
  await again.close();
});

scenario('a handler slower than the events: little is held, and all of it comes', async (env) => {
  let held = 0;
  let most = 0;
  const got = [];
  const { channel, subscription } = await counting(env, {
    more: { window: 50 },
    handler: async ({ data }) => {
      most = Math.max(most, subscription.dispatcher?.size ?? 0);
      held++;
      await new Promise((resolve) => setTimeout(resolve, 1));
      held--;
      got.push(data.n);
    },
  });
  for (let i = 0; i < 4; i++) await env.control('publish', channel, numbered(i * 250 + 1, i * 250 + 250, () => ({ subject: 'x'.repeat(2000) })));
  await until('all came', () => got.length >= 1000, 40_000);
  same(got, range(1, 1000));
  same(held, 0);
  if (!env.browser) check(most > 0 && most <= 100, `${most} events were held`); // the module hides it
  await subscription.close();
});

scenario('for await', async (env) => {
  const line = await client(env);
  const channel = unique('iterate');
  const subscription = line.subscribe({ channels: [channel], since: 'earliest' });
  await env.control('publish', channel, numbered(1, 500));
  const got = [];
  for await (const { data } of subscription) {
    got.push(data.n);
    if (data.n === 500) break;
  }
  same(got, range(1, 500));
  same(await subscription.closed, undefined);
});

scenario('two hundred channels', async (env) => {
  const line = await client(env);
  const prefix = unique('many');
  const channels = range(1, 200).map((n) => `${prefix}.c${n}`);
  const got = [];
  const subscription = line.subscribe({ channels }, ({ channel }) => { got.push(channel); });
  await until('it is live', () => subscription.state === 'live');
  await env.control('publish', channels[0], { type: 't' });
  await env.control('publish', channels[199], { type: 't' });
  await until('both came', () => got.length === 2);
  await env.control('cut');
  await env.control('publish', channels[100], { type: 't' });
  await until('the third came', () => got.length === 3);
  same(got, [channels[0], channels[199], channels[100]]);
  await subscription.close();
}, ({ transport }) => transport === 'websocket');

scenario('WebSocket refused by a proxy: SSE is found by itself', async (env) => {
  await env.control('network', 'noWebSocket');
  try {
    const { channel, got, subscription } = await counting(env, { options: { transport: undefined } });
    await env.control('publish', channel, numbered(1, 3));
    await until('events came', () => got.length === 3);
    await subscription.close();
  } finally {
    await env.control('network', 'open');
  }
}, ({ transport }) => transport === 'websocket');

scenario('WebSocket swallowed by a proxy: SSE is found by itself', async (env) => {
  await env.control('network', 'swallow');
  try {
    const { channel, got, subscription } = await counting(env, { options: { transport: undefined, timeout: 200 } });
    await env.control('publish', channel, numbered(1, 3));
    await until('events came', () => got.length === 3);
    await subscription.close();
  } finally {
    await env.control('network', 'open');
  }
}, ({ transport }) => transport === 'websocket');

scenario('the network comes back: a line that went silent is made anew at once', async (env) => {
  const { channel, got, subscription } = await counting(env);
  await env.control('network', 'stall');
  await env.control('network', 'open');
  await env.control('publish', channel, numbered(1, 3));
  const began = Date.now();
  window.dispatchEvent(new Event('online'));
  await until('events came', () => got.length === 3);
  check(Date.now() - began < 15_000, 'it took as long as noticing silence takes');
  await subscription.close();
}, ({ browser }) => browser);

scenario('a page that is hidden and shown loses nothing', async (env) => {
  const { channel, got, subscription } = await counting(env);
  for (let i = 0; i < 20; i++) {
    document.dispatchEvent(new Event('visibilitychange', { bubbles: true }));
    await env.control('publish', channel, numbered(i + 1, i + 1));
  }
  await until('all came', () => got.length >= 20);
  same(got, range(1, 20));
  await subscription.close();
}, ({ browser }) => browser);

scenario('publishing twice with the same ids publishes once', async (env) => {
  const { line, channel, got, subscription } = await counting(env);
  const events = numbered(1, 3, (n) => ({ id: `same-${n}`, source: '/twice' }));
  const first = await line.publish(channel, events);
  const again = await line.publish(channel, events);
  same(again.map(({ cursor }) => cursor), first.map(({ cursor }) => cursor));
  check(again.every(({ duplicate }) => duplicate), 'no duplicate: true');
  await line.publish(channel, numbered(4, 4));
  await until('all came', () => got.length >= 4);
  same(got, [1, 2, 3, 4]);
  await subscription.close();
});

/** Makes a durable subscription of a new channel and attaches to it; notes what comes and what happens. */
async function durable(env, { definition, options, attach, handler, line } = {}) {
  line ??= await client(env, options);
  const channel = unique('log');
  const name = unique('sub');
  const made = await env.control('request', 'PUT', `/v1/subscriptions/${name}`, { channels: [channel], ...definition?.(channel) });
  const got = [];
  const states = [];
  const subscription = line.attach(name, handler?.(got) ?? (({ data }) => { got.push(data.n); }), {
    onState: (detail) => states.push(detail), onReject() {}, retry: { min: 1, max: 5 }, ...attach,
  });
  await until('the subscription is live', () => subscription.state === 'live' || subscription.state === 'closed');
  return { line, channel, name, got, states, subscription, secret: made.callback?.secret };
}
const status = (env, name) => env.control('request', 'GET', `/v1/subscriptions/${name}`);
const caughtUp = (env, name) => until('all is acknowledged', async () => (await status(env, name)).status.lag.events === 0);

scenario('durable: what is handled is acknowledged, and what came while nobody was there comes later', async (env) => {
  const { line, channel, name, got, subscription } = await durable(env);
  await line.publish(channel, numbered(1, 20));
  await until('20 came', () => got.length === 20);
  await caughtUp(env, name);
  await subscription.close();
  await line.publish(channel, numbered(21, 40));
  const again = line.attach(name, ({ data }) => { got.push(data.n); });
  await until('all came', () => got.length >= 40);
  same(got, range(1, 40));
  await caughtUp(env, name);
  await again.close();
});

scenario('durable: the gateway is killed: every event is handled, none twice by one client', async (env) => {
  const { line, channel, name, got, subscription } = await durable(env, {
    attach: { concurrency: 4 },
    handler: (got) => async ({ data }) => { await new Promise((resolve) => setTimeout(resolve, 5)); got.push(data.n); },
  });
  await line.publish(channel, numbered(1, 100));
  await until('some came', () => got.length >= 30);
  await env.control('kill');
  const publishing = line.publish(channel, numbered(101, 150), { attempts: 100 });
  await env.control('up');
  await publishing;
  await until('all came', () => got.length >= 150);
  await caughtUp(env, name);
  same([...got].sort((a, b) => a - b), range(1, 150));
  await subscription.close();
});

scenario('durable: 10,000 events in order per key at concurrency 8', async (env) => {
  const byKey = {};
  let running = 0;
  let most = 0;
  let count = 0;
  const { channel, name, subscription } = await durable(env, {
    attach: { concurrency: 8 },
    handler: () => async ({ partitionkey, data }) => {
      most = Math.max(most, ++running);
      if (data.n % 16 === 0) await new Promise((resolve) => setTimeout(resolve));
      (byKey[partitionkey] ??= []).push(data.n);
      running--;
      count++;
    },
  });
  for (let i = 0; i < 10; i++) {
    await env.control('publish', channel, numbered(i * 1000 + 1, i * 1000 + 1000, (n) => ({ partitionkey: `k${n * 7919 % 101}` })));
  }
  await until('all came', () => count >= 10_000, 45_000);
  same(count, 10_000);
  for (const [key, ns] of Object.entries(byKey)) check(ns.every((n, i) => !i || n > ns[i - 1]), `${key} is out of order: ${ns}`);
  check(most > 1 && most <= 8, `${most} handlers ran at once`);
  await caughtUp(env, name);
  await subscription.close();
});

scenario('durable: a slow handler: the window holds what it has not done', async (env) => {
  let most = 0;
  const { channel, name, got, subscription } = await durable(env, {
    attach: { window: 20 },
    handler: (got) => async ({ data }) => {
      most = Math.max(most, subscription?.dispatcher?.size ?? 0);
      await new Promise((resolve) => setTimeout(resolve, 2));
      got.push(data.n);
    },
  });
  await env.control('publish', channel, numbered(1, 300));
  await until('all came', () => got.length >= 300);
  same(got, range(1, 300));
  if (!env.browser) check(most > 0 && most <= 20, `${most} events were held`);
  await caughtUp(env, name);
  await subscription.close();
});

scenario('durable: a handler that fails is tried again, then the event is a dead letter; put back, it comes again', async (env) => {
  let bad = true;
  const attempts = [];
  const { line, channel, name, got, subscription } = await durable(env, {
    attach: { retry: { attempts: 3, min: 1, max: 5 } },
    handler: (got) => ({ data }, { attempt }) => {
      if (data.n === 2) attempts.push(attempt);
      if (data.n === 2 && bad) throw new Error('no such contact');
      got.push(data.n);
    },
  });
  await line.publish(channel, numbered(1, 3));
  await until('the others came', () => got.length === 2);
  same(attempts, [1, 2, 3]);
  const dead = async () => (await env.control('request', 'GET', `/v1/subscriptions/${name}/dead`)).dead;
  await until('it is a dead letter', async () => (await dead()).length === 1);
  const [{ event, reason, attempts: tries }] = await dead();
  same([event.data.n, reason, tries], [2, 'no such contact', 3]);
  await caughtUp(env, name);
  bad = false;
  await env.control('request', 'POST', `/v1/subscriptions/${name}/dead/redrive`, { all: true });
  await until('it came again', () => got.length === 3);
  await line.publish(channel, numbered(4, 4));
  await until('the next came', () => got.length === 4);
  same(got, [1, 3, 2, 4]);
  await until('no dead letter is left', async () => (await dead()).length === 0);
  await subscription.close();
});

scenario('durable: a cursor moved back has the events handled again', async (env) => {
  const { line, channel, name, got, subscription } = await durable(env);
  await line.publish(channel, numbered(1, 5));
  await until('five came', () => got.length === 5);
  await caughtUp(env, name);
  await env.control('request', 'POST', `/v1/subscriptions/${name}/seek`, { to: 'earliest' });
  await until('they came again', () => got.length >= 10);
  same(got, [...range(1, 5), ...range(1, 5)]);
  await subscription.close();
});

scenario('durable: another consumer stands by until the first is gone; the same one takes over', async (env) => {
  const { line, channel, name, got, subscription } = await durable(env, { attach: { consumer: 'one' } });
  const second = [];
  const states = [];
  const standby = line.attach(name, ({ data }) => { second.push(data.n); }, { consumer: 'two', onState: ({ state }) => states.push(state) });
  await until('the second stands by', () => standby.state === 'standby');
  await line.publish(channel, numbered(1, 3));
  await until('the first got them', () => got.length === 3);
  same(second, []);
  await caughtUp(env, name);
  await subscription.close();
  await until('the second is live', () => standby.state === 'live');
  await line.publish(channel, numbered(4, 6));
  await until('the second got them', () => second.length === 3);
  same([got, second], [[1, 2, 3], [4, 5, 6]]);

  const third = line.attach(name, () => {}, { consumer: 'two' });
  const error = await ended(standby);
  check(error instanceof env.sdk.TakenOverError && !error.retry, `closed with ${error}`);
  await until('the third is live', () => third.state === 'live');
  await third.close();
});

scenario('durable: batches, and a loop', async (env) => {
  const sizes = [];
  const { line, channel, name, got, subscription } = await durable(env, {
    attach: { batch: { max: 25, wait: 100 }, concurrency: 2 },
    handler: (got) => (events) => { sizes.push(events.length); got.push(...events.map(({ data }) => data.n)); },
  });
  await line.publish(channel, numbered(1, 110));
  await until('all came', () => got.length >= 110);
  same(got, range(1, 110));
  check(Math.max(...sizes) === 25, `batches of ${sizes}`);
  await caughtUp(env, name);
  await subscription.close();
  await line.publish(channel, numbered(111, 115));
  const looped = [];
  for await (const { data } of line.attach(name)) {
    looped.push(data.n);
    if (data.n === 115) break;
  }
  same(looped, range(111, 115));
  // The one in hand when the loop was left is not done.
  await until('the last one waits', async () => (await status(env, name)).status.lag.events === 1);
});

scenario('durable: no such subscription is a NotFoundError, not allowed a ForbiddenError', async (env) => {
  const line = await client(env);
  const error = await ended(line.attach(unique('none'), () => {}));
  check(error instanceof env.sdk.NotFoundError, `closed with ${error}`);
  const narrow = await client(env, { token: await env.control('token', { subscribe: ['**'], subscriptions: ['mine'] }) });
  const forbidden = await ended(narrow.attach('theirs', () => {}));
  check(forbidden instanceof env.sdk.ForbiddenError, `closed with ${forbidden}`);
});

scenario('live, callback, live: one handler counts each event once', async (env) => {
  const secret = `whsec_${btoa('thirty-two bytes of a secret, ok')}`;
  const receiver = await env.receiver();
  const counts = {};
  const { line, channel, name, subscription } = await durable(env, {
    definition: () => ({ callback: { url: receiver.url, grace: '100ms', secret } }),
    handler: () => async ({ data }) => {
      await new Promise((resolve) => setTimeout(resolve, 3));
      counts[data.n] = (counts[data.n] ?? 0) + 1;
    },
  });
  receiver.use(env.sdk.nodeCallback(subscription, secret));
  const total = () => Object.keys(counts).length;
  let n = 0;
  for (let round = 0; round < 2; round++) {
    await line.publish(channel, numbered(n + 1, n += 20));
    await until('they came live', () => total() === n);
    await env.control('publish', channel, numbered(n + 1, n += 20));
    await until('half came', () => total() >= n - 10);
    // In the middle: what was handled and not acknowledged is called for again.
    await env.control('network', 'down');
    await env.control('publish', channel, numbered(n + 1, n += 20));
    await until('the rest came by callback', () => total() === n);
    await env.control('network', 'open');
    await until('it is live again', () => subscription.state === 'live');
  }
  await caughtUp(env, name);
  same([...new Set(Object.values(counts))], [1], 'times that an event was counted');
  check(receiver.calls > 0, 'there was no callback');
  await subscription.close();
}, ({ browser }) => !browser);
