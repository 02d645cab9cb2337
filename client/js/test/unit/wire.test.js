import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { partitionOf } from '../../src/partition.js';
import { ProtocolError, TooLargeError, closeError, errorFor, responseError } from '../../src/errors.js';
import { decode, move, parseCursor, text } from '../../src/wire.js';

export const golden = (name) => readFileSync(new URL(`../../../../gateway/wire/testdata/${name}`, import.meta.url));

test('frames of the gateway are decoded as the golden file says', () => {
  for (const { name, from, frame, value, error } of JSON.parse(golden('frames.json'))) {
    if (from === 'client') continue;
    if (error) assert.throws(() => decode(frame), ProtocolError, name);
    else assert.deepEqual(decode(frame), value, name);
  }
});

test('control frames survive being written again', () => {
  for (const { name, from, frame, value, error } of JSON.parse(golden('frames.json'))) {
    if (from === 'client' && !error) assert.equal(JSON.stringify(value), frame, name);
  }
});

test('a frame beyond reason is refused before it is parsed', () => {
  assert.throws(() => decode(' '.repeat((16 << 20) + 1)), (error) => error instanceof TooLargeError && error.retry === false);
});

test('a binary frame is refused', () => {
  assert.throws(() => decode(new ArrayBuffer(8)), ProtocolError);
});

test('positions are read as the golden file says', () => {
  for (const { position, cursors, error } of JSON.parse(golden('positions.json'))) {
    // The gateway refuses a channel named twice; whoever reads its positions need not.
    if (position === 'a@k-1,a@k-2') continue;
    if (error) {
      assert.throws(() => move(position), ProtocolError, position);
      continue;
    }
    const got = move(position);
    assert.equal(text(got), position);
    assert.deepEqual([...got.values()].map(({ channel, epoch, offset }) => ({ channel, epoch, offset })), cursors);
  }
});

test('a position moves channel by channel', () => {
  const position = move('a@k-1,b@k-5');
  for (const to of ['a@k-2', 'c@z-0', '']) move(to, position);
  assert.equal(text(position), 'a@k-2,b@k-5,c@z-0');
});

test('anything but a cursor is a ProtocolError', () => {
  for (const bad of [undefined, null, 7, {}, 'x'.repeat(1e6)]) assert.throws(() => parseCursor(bad), ProtocolError);
});

test('close codes become errors that say whether to come back', () => {
  const rows = [
    [1000, 'ConnectionError', true],
    [1001, 'UnavailableError', true],
    [1006, 'ConnectionError', true],
    [1009, 'TooLargeError', false],
    [1012, 'UnavailableError', true],
    [4400, 'BadRequestError', false],
    [4401, 'UnauthorizedError', false],
    [4403, 'ForbiddenError', false],
    [4404, 'NotFoundError', false],
    [4408, 'ConnectionError', true],
    [4409, 'TakenOverError', false],
    [4429, 'RateLimitedError', true],
    [4503, 'UnavailableError', true],
  ];
  for (const [code, name, retry] of rows) {
    const error = closeError(code, '');
    assert.deepEqual([error.name, error.retry, error.status], [name, retry, code]);
  }
});

test('bye says whether to come back, whatever its code', () => {
  assert.equal(closeError(4401, 'token expired', { reconnect: true, retry_ms: 70 }).retry, true);
  assert.equal(closeError(4401, 'token expired', { reconnect: true, retry_ms: 70 }).retryAfter, 70);
  assert.equal(closeError(1012, 'closed by an operator', { reconnect: false }).retry, false);
});

test('problem documents become errors', async () => {
  const problem = (status, body, headers) => responseError(new Response(body, { status, headers }));
  const rows = [
    [await problem(403, '{"code":"forbidden","detail":"not \\"a\\""}'), 'ForbiddenError', false, 'not "a"', undefined],
    [await problem(409, '{"code":"conflict"}'), 'LonglineError', false, 'status 409', undefined],
    [await problem(410, ''), 'LonglineError', false, 'status 410', undefined],
    [await problem(413, '{"code":"too_large"}'), 'TooLargeError', false, 'status 413', undefined],
    [await problem(418, '<html>'), 'LonglineError', false, 'status 418', undefined],
    [await problem(429, '', { 'retry-after': '7' }), 'RateLimitedError', true, 'status 429', 7000],
    [await problem(500, 'null'), 'UnavailableError', true, 'status 500', undefined],
    [await problem(502, '', { 'retry-after': 'soon' }), 'UnavailableError', true, 'status 502', undefined],
    [await problem(503, '{"code":"unavailable"}', { 'retry-after': '0' }), 'UnavailableError', true, 'status 503', undefined],
  ];
  for (const [error, name, retry, message, retryAfter] of rows) {
    assert.deepEqual([error.name, error.retry, error.message, error.retryAfter], [name, retry, message, retryAfter]);
  }
});

test('an unknown code is an error all the same', () => {
  const error = errorFor('new_trouble', 'what', { cause: 1 });
  assert.deepEqual([error.name, error.code, error.retry, error.cause], ['LonglineError', 'new_trouble', false, 1]);
});

test('an event of a group belongs to the partition that the gateway takes it for', () => {
  const of = (event) => [16, 7, 255].map((n) => partitionOf(event, n));
  assert.deepEqual(of({ partitionkey: 'alice@example.com' }), [6, 6, 133]);
  assert.deepEqual(of({ partitionkey: 'Zoë' }), [12, 6, 130]);
  assert.deepEqual(of({ source: '/mailshots/42', id: '0198f2' }), [13, 4, 49]);
});
