import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer, request } from 'node:http';
import { once } from 'node:events';
import { test } from 'node:test';
import { SignatureError, fetchCallback, nodeCallback, verifyCallback } from '../../src/callback.js';
import { BadRequestError, Reject } from '../../src/errors.js';

const cases = JSON.parse(readFileSync(new URL('../../../../gateway/wire/testdata/callbacks.json', import.meta.url)));
const SECRET = 'whsec_' + Buffer.from('thirty-two bytes of a secret, ok').toString('base64');

for (const { name, secrets, now, headers, body, ok } of cases) {
  test(`callback: ${name}: ${ok ? 'taken' : 'refused'}`, async () => {
    for (const [kind, given] of [['object', headers], ['Headers', new Headers(headers)]]) {
      const verifying = verifyCallback(given, body, secrets, { now: now * 1000 });
      if (ok) assert.deepEqual(await verifying, JSON.parse(body), kind);
      else await assert.rejects(verifying, (error) => error instanceof SignatureError && error.retry === false, kind);
    }
    if (ok) assert.deepEqual(await verifyCallback(headers, Buffer.from(body), secrets, { now: now * 1000 }), JSON.parse(body));
  });
}

const event = (id, more) => ({ specversion: '1.0', id, source: '/s', type: 't', channel: 'a', ...more });

/** A callback as the gateway posts it, signed by node:crypto. */
function post(payload, secret = SECRET) {
  const body = typeof payload === 'string' ? payload : JSON.stringify(payload);
  const timestamp = `${Math.floor(Date.now() / 1000)}`;
  const mac = createHmac('sha256', Buffer.from(secret.slice(6), 'base64')).update(`id.${timestamp}.${body}`).digest('base64');
  return { body, headers: { 'webhook-id': 'id', 'webhook-timestamp': timestamp, 'webhook-signature': `v1,${mac}` } };
}

/** The same through a fetch-style server and through node:http. */
const servers = {
  fetch: (t, handler, options) => {
    const serve = fetchCallback(handler, SECRET, options);
    return async ({ body, headers }, method = 'POST') => {
      const response = await serve(new Request('http://x/', { method, headers, body: method === 'POST' ? body : undefined }));
      return { status: response.status, headers: response.headers, body: await response.text() };
    };
  },
  'node:http': (t, handler, options) => {
    const server = createServer(nodeCallback(handler, SECRET, options));
    t.after(() => server.close());
    return async ({ body, headers }, method = 'POST') => {
      if (!server.listening) await once(server.listen(0, '127.0.0.1'), 'listening');
      const response = await fetch(`http://127.0.0.1:${server.address().port}/`, { method, headers, body: method === 'POST' ? body : undefined });
      return { status: response.status, headers: response.headers, body: await response.text() };
    };
  },
};

for (const [name, start] of Object.entries(servers)) {
  test(`${name}: an event is handled and acknowledged, and handled once`, async (t) => {
    const seen = [];
    const send = start(t, ({ id }) => { seen.push(id); });
    assert.equal((await send(post(event('1')))).status, 204);
    assert.equal((await send(post([event('2'), event('1'), event('3')]))).status, 204);
    assert.deepEqual(seen, ['1', '2', '3']);
  });

  test(`${name}: a handler that fails answers 500 once, and is called when the gateway tries again`, async (t) => {
    let calls = 0;
    const send = start(t, () => { if (++calls < 3) throw new Error('a secret thing'); });
    const { status, body } = await send(post(event('1')));
    assert.equal(status, 500);
    assert.doesNotMatch(body, /secret/);
    assert.equal((await send(post(event('1')))).status, 500);
    assert.equal((await send(post(event('1')))).status, 204);
    assert.equal(calls, 3);
  });

  test(`${name}: a handler that asks for time answers 503 with Retry-After`, async (t) => {
    const send = start(t, () => { throw Object.assign(new Error('busy'), { retryAfter: 1500 }); });
    const { status, headers } = await send(post(event('1')));
    assert.deepEqual([status, headers.get('retry-after')], [503, '2']);
  });

  test(`${name}: a handler that refuses for good: 422 for one, named in a batch`, async (t) => {
    const send = start(t, ({ id }) => { if (id === 'bad') throw new Reject('no'); });
    assert.equal((await send(post(event('bad')))).status, 422);
    const { status, body } = await send(post([event('1'), event('bad'), event('2')]));
    assert.deepEqual([status, JSON.parse(body)], [200, { rejected: ['bad'] }]);
  });

  test(`${name}: what is not signed is refused without a call, as is all but POST`, async (t) => {
    const send = start(t, () => assert.fail('called'));
    assert.equal((await send({ body: '{}', headers: {} })).status, 401);
    assert.equal((await send(post(event('1'), 'whsec_' + Buffer.from('another secret of that length, ok').toString('base64')))).status, 401);
    assert.equal((await send(post('{"half":'))).status, 400);
    assert.equal((await send(post(event('1')), 'GET')).status, 405);
  });
}

test('signed, but no JSON: a BadRequestError with its cause', async () => {
  const { headers, body } = post('not json');
  await assert.rejects(verifyCallback(headers, body, SECRET), (error) => error instanceof BadRequestError && error.cause instanceof SyntaxError);
});

test('a secret that is none is named as such', async () => {
  const { headers, body } = post(event('1'));
  await assert.rejects(verifyCallback(headers, body, 'whsec_%'), TypeError);
  await assert.rejects(verifyCallback(headers, body, ''), TypeError);
});

for (const secret of [undefined, null, '', [], [undefined], 'whsec_%']) {
  test(`without a secret, ${JSON.stringify(secret) ?? secret}, there is no server to lose events by`, () => {
    for (const make of [nodeCallback, fetchCallback]) assert.throws(() => make(() => {}, secret), (error) => error instanceof TypeError && /whsec_/.test(error.message));
  });
}

/** node:http behind something that has read the body and left `parsed` in its place. */
async function behind(t, parsed, handler) {
  const callback = nodeCallback(handler, SECRET);
  const server = createServer(async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    request.body = parsed(Buffer.concat(chunks));
    await callback(request, response);
  });
  t.after(() => server.close());
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const response = await fetch(`http://127.0.0.1:${server.address().port}/`, { method: 'POST', ...post(event('1')) });
  return { status: response.status, body: await response.text() };
}

test('after a parser of bodies, the answer and the log say what is wrong, and no event is refused', async (t) => {
  const warn = t.mock.method(console, 'warn', () => {});
  const { status, body } = await behind(t, JSON.parse, () => assert.fail('called'));
  assert.equal(status, 500);
  assert.match(body, /raw body.*express\.json/);
  assert.match(warn.mock.calls[0].arguments.join(' '), /raw body/);
});

for (const [name, keep] of [['bytes', (bytes) => bytes], ['text', String]]) {
  test(`a body that was read, but not parsed, is taken: ${name}`, async (t) => {
    const seen = [];
    assert.equal((await behind(t, keep, ({ id }) => { seen.push(id); })).status, 204);
    assert.deepEqual(seen, ['1']);
  });
}

test('a body without end is cut off with 413', async (t) => {
  const server = createServer(nodeCallback(() => assert.fail('called'), SECRET));
  t.after(() => server.close());
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const sending = request({ port: server.address().port, method: 'POST', headers: { connection: 'close' } });
  const chunk = Buffer.alloc(1 << 20);
  sending.on('error', () => {}); // the socket goes while we still write
  const [response] = await Promise.all([once(sending, 'response').then(([response]) => response), (async () => {
    for (let i = 0; i < 18 && !sending.destroyed; i++) await new Promise((resolve) => sending.write(chunk, resolve));
    sending.end();
  })()]);
  assert.equal(response.statusCode, 413);
  response.resume();
});
