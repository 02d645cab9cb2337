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

/** Subscribes to a new channel; notes what comes and what happens. */
async function counting(env, { what = {}, options, handler } = {}) {
  const line = await client(env, options);
  const channel = unique('count');
  const got = [];
  const states = [];
  const gaps = [];
  const subscription = line.subscribe({
    channels: [channel], onState: (detail) => states.push(detail), onGap: (gap) => gaps.push(gap), ...what,
  }, handler ?? (({ data }) => { got.push(data.n); }));
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
  for (let round = 0; round < 3; round++) {
    await env.control('cut');
    await env.control('publish', channel, numbered(round * 40 + 1, round * 40 + 40));
    await until('the round came', () => got.length >= round * 40 + 40);
  }
  same(got, range(1, 120));
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
  const forbidden = await line.subscribe({ channels: ['theirs'] }, () => {}).closed;
  check(forbidden instanceof env.sdk.ForbiddenError && !forbidden.retry, `closed with ${forbidden}`);
  check(/theirs/.test(forbidden.message), `it does not say what: ${forbidden.message}`);
  const outdated = await client(env, { token: await env.control('token', undefined, -3600) });
  const unauthorized = await outdated.subscribe({ channels: ['mine'] }, () => {}).closed;
  check(unauthorized instanceof env.sdk.UnauthorizedError, `closed with ${unauthorized}`);
  const rejected = await line.publish('theirs', { type: 't' }).catch((error) => error);
  check(rejected instanceof env.sdk.ForbiddenError, `publishing: ${rejected}`);
});

scenario('bad input is a BadRequestError that says what is wrong', async (env) => {
  const line = await client(env);
  for (const what of [{ channels: ['a b'] }, { channels: ['a'], since: 'yesterday' }, { channels: ['a'], types: ['*.**.x'] }]) {
    const error = await line.subscribe(what, () => {}).closed;
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
  const again = line.subscribe({ channels: [channel], since: position, onGap: (gap) => gaps.push(gap) }, ({ data }) => { got.push(data.n); });
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
    what: { window: 50 },
    handler: async ({ data }) => {
      most = Math.max(most, subscription.inbox?.size ?? 0);
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
