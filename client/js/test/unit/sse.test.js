import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { test } from 'node:test';
import { ConnectionError, NotFoundError, ProtocolError, TooLargeError, UnavailableError } from '../../src/errors.js';
import { sse } from '../../src/sse.js';

const STREAM = { 'content-type': 'text/event-stream; charset=utf-8' };
const FAST = { min: 1, max: 5 };

/** A server that answers its n-th request by the n-th of its answers, and the last one to all further. */
async function serve(t, ...answers) {
  const requests = [];
  const server = createServer(async (request, response) => {
    const { method, headers, url } = request;
    let body = '';
    for await (const chunk of request) body += chunk;
    const answer = answers[Math.min(requests.length, answers.length - 1)];
    requests.push({ method, headers, url, body });
    answer(response);
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  t.after(() => { server.closeAllConnections(); server.close(); });
  return { url: `http://127.0.0.1:${server.address().port}/`, requests };
}

const stream = (text) => (response) => { response.writeHead(200, STREAM); response.end(text); };
const status = (code, headers) => (response) => { response.writeHead(code, headers); response.end(); };
const done = status(204);

/** An address where nobody listens. */
async function unused() {
  const server = createServer();
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return `http://127.0.0.1:${port}/`;
}

async function all(messages) {
  const got = [];
  for await (const message of messages) got.push(message);
  return got;
}

test('a stream is read to its end, and again from where it ended, until 204', async (t) => {
  const { url, requests } = await serve(t, stream('retry: 1\nid: 7\ndata: a\n\n'), stream('data: b\n\n'), done);
  assert.deepEqual(await all(sse(url)), [{ type: 'message', data: 'a', id: '7' }, { type: 'message', data: 'b', id: '7' }]);
  assert.deepEqual(requests.map(({ headers }) => headers['last-event-id']), [undefined, '7', '7']);
  assert.match(requests[0].headers.accept, /^text\/event-stream/);
});

test('a stream that breaks in the middle is resumed after its last complete event', async (t) => {
  const broken = (response) => {
    response.writeHead(200, STREAM);
    response.write('retry: 1\n\nid: 1\ndata: a\n\nid: 2\ndata: half', () => response.destroy());
  };
  const { url, requests } = await serve(t, broken, stream('id: 2\ndata: whole\n\n'), done);
  assert.deepEqual((await all(sse(url))).map(({ data }) => data), ['a', 'whole']);
  assert.deepEqual(requests.map(({ headers }) => headers['last-event-id']), [undefined, '1', '2']);
});

test('any method, headers and body, sent each time; headers by a function are fresh', async (t) => {
  const { url, requests } = await serve(t, stream('retry: 1\ndata: a\n\n'), done);
  let n = 0;
  await all(sse(url, { method: 'POST', body: '{"ask":1}', headers: async () => ({ authorization: `Bearer ${++n}` }), lastEventId: 'zoë' }));
  assert.deepEqual(requests.map(({ method, body, headers }) => [method, body, headers.authorization]),
    [['POST', '{"ask":1}', 'Bearer 1'], ['POST', '{"ask":1}', 'Bearer 2']]);
  assert.equal(Buffer.from(requests[0].headers['last-event-id'], 'latin1').toString(), 'zoë');
});

test('what may pass is tried again: 503, then 429, then a refused connection is not the end', async (t) => {
  const { url, requests } = await serve(t, status(503), status(429, { 'retry-after': '0' }), status(500), stream('data: a\n\n'), done);
  assert.deepEqual((await all(sse(url, { backoff: FAST }))).map(({ data }) => data), ['a']);
  assert.equal(requests.length, 5);
});

test('redirects are followed', async (t) => {
  const target = await serve(t, stream('data: there\n\n'), done);
  const { url } = await serve(t, status(301, { location: target.url }), status(307, { location: target.url }));
  assert.deepEqual((await all(sse(url, { backoff: FAST }))).map(({ data }) => data), ['there']);
});

test('what stays is thrown: 404, another media type, an event without end', async (t) => {
  const { url } = await serve(t, status(404));
  await assert.rejects(all(sse(url)), (error) => error instanceof NotFoundError && error.status === 404);
  const html = await serve(t, (response) => { response.writeHead(200, { 'content-type': 'text/html' }); response.end('<p>'); });
  await assert.rejects(all(sse(html.url)), ProtocolError);
  const endless = await serve(t, (response) => {
    response.writeHead(200, STREAM);
    response.write('data: ' + 'x'.repeat(100_000));
  });
  await assert.rejects(all(sse(endless.url, { maxLength: 50_000 })), TooLargeError);
});

// HTML §9.2.3: only 200 and text/event-stream, whatever its parameters, make a
// stream; the rest fails the connection, and asking again changes nothing.
for (const type of ['text/event-stream-x', 'text/event-stream+json', 'application/json; x=text/event-stream', '']) {
  test(`an answer of type "${type}" is no stream, and is asked for once`, async (t) => {
    const { url, requests } = await serve(t, (response) => { response.writeHead(200, { 'content-type': type }); response.end('data: a\n\n'); });
    await assert.rejects(all(sse(url, { backoff: FAST })), ProtocolError);
    assert.equal(requests.length, 1);
  });
}

for (const code of [201, 205, 206]) {
  test(`${code} is no stream, whatever its type, and is asked for once`, async (t) => {
    const { url, requests } = await serve(t, status(code, STREAM));
    await assert.rejects(all(sse(url, { backoff: FAST })), (error) => error.status === code && error.retry === false);
    assert.equal(requests.length, 1);
  });
}

test('the type is taken in any case and with parameters', async (t) => {
  const { url } = await serve(t, (response) => { response.writeHead(200, { 'content-type': 'Text/Event-Stream ; charset=UTF-8' }); response.end('data: a\n\n'); }, done);
  assert.deepEqual((await all(sse(url, { backoff: FAST }))).map(({ data }) => data), ['a']);
});

test('a circle of redirections is told, once, instead of gone round for ever', async (t) => {
  const { url, requests } = await serve(t, status(302, { location: '/' }));
  await assert.rejects(all(sse(url, { backoff: FAST })), (error) => error instanceof ConnectionError && error.retry === false);
  assert.ok(requests.length <= 21, `asked ${requests.length} times`);
});

test('without reconnecting, one stream is all, and its trouble is thrown', async (t) => {
  const { url } = await serve(t, stream('data: a\n\n'), status(503));
  assert.equal((await all(sse(url, { reconnect: false }))).length, 1);
  await assert.rejects(all(sse(url, { reconnect: false })), UnavailableError);
  await assert.rejects(all(sse(await unused(), { reconnect: false })), (error) => error instanceof ConnectionError && !!error.cause);
});

test('aborting ends the iteration, without an error, wherever it is', async (t) => {
  const { url } = await serve(t, (response) => { response.writeHead(200, STREAM); response.write('data: a\n\n'); });
  const abort = new AbortController();
  for await (const { data } of sse(url, { signal: abort.signal })) {
    assert.equal(data, 'a');
    abort.abort();
  }
  const waiting = new AbortController();
  const ended = all(sse(await unused(), { signal: waiting.signal, backoff: { min: 1e9, max: 1e9 } }));
  setTimeout(() => waiting.abort(), 20);
  assert.deepEqual(await ended, []);
});

test('breaking out of the loop closes the connection', async (t) => {
  let closed;
  const { url } = await serve(t, (response) => {
    closed = once(response, 'close');
    response.writeHead(200, STREAM);
    response.write('data: a\n\ndata: b\n\n');
  });
  for await (const { data } of sse(url)) {
    assert.equal(data, 'a');
    break;
  }
  await closed;
});

test('a reader that is slow slows the server down', async (t) => {
  let written = 0;
  const block = `data: ${'x'.repeat(64 << 10)}\n\n`;
  const { url } = await serve(t, (response) => {
    response.writeHead(200, STREAM);
    const write = () => {
      while (!response.destroyed && response.write(block)) written++;
      written++;
      response.once('drain', write);
    };
    write();
  });
  for await (const _ of sse(url)) {
    const before = written;
    // Nothing is read meanwhile: what is under way fills the buffers and stops.
    let last = -1;
    while (last !== written) {
      last = written;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    assert.ok(written - before < 200, `${written} blocks were written to a reader that took none`);
    break;
  }
});
