import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { test } from 'node:test';
import { TooLargeError } from '../../src/errors.js';
import { Parser } from '../../src/parser.js';

const dir = new URL('../../../../gateway/wire/testdata/sse/', import.meta.url);
const names = readdirSync(dir).filter((name) => name.endsWith('.txt')).map((name) => name.slice(0, -4));

/** Parses the chunks as one stream. */
function parse(chunks) {
  const parser = new Parser();
  const events = chunks.flatMap((chunk) => parser.push(chunk));
  const { lastEventId, retry } = parser;
  return { events, lastEventId, ...(retry !== undefined && { retry }) };
}

for (const name of names) {
  const bytes = new Uint8Array(readFileSync(new URL(`${name}.txt`, dir)));
  const want = JSON.parse(readFileSync(new URL(`${name}.json`, dir)));
  test(`stream "${name}" parses the same however it is cut`, () => {
    assert.deepEqual(parse([bytes]), want, 'whole');
    assert.deepEqual(parse([...bytes].map((byte) => Uint8Array.of(byte))), want, 'byte by byte');
    for (let at = 0; at <= bytes.length; at++) {
      assert.deepEqual(parse([bytes.subarray(0, at), new Uint8Array(), bytes.subarray(at)]), want, `cut at ${at}`);
    }
    for (let size = 2; size < 12; size++) {
      const chunks = [];
      for (let at = 0; at < bytes.length; at += size) chunks.push(bytes.subarray(at, at + size));
      assert.deepEqual(parse(chunks), want, `in pieces of ${size}`);
    }
  });
}

test('a message is there with the CR that ends it, not with the next byte', () => {
  assert.equal(new Parser().push(new TextEncoder().encode('data: a\r\r')).length, 1);
});

test('the id of the stream before is kept by an event without one', () => {
  const parser = new Parser('7');
  assert.deepEqual(parser.push(new TextEncoder().encode('data: a\n\n')), [{ type: 'message', data: 'a', id: '7' }]);
});

test('an event that never ends is given up', () => {
  const line = new TextEncoder().encode('data: ' + 'x'.repeat(1000) + '\n');
  const parser = new Parser();
  parser.limit = 10_000;
  assert.throws(() => { for (;;) parser.push(line); }, TooLargeError);
  const endless = new Parser();
  endless.limit = 10_000;
  assert.throws(() => { for (;;) endless.push(line.subarray(0, 500)); }, TooLargeError);
});

test('random bytes never throw, and lines split the same at random places', () => {
  let seed = 1;
  const random = (n) => (seed = seed * 48271 % 2147483647) % n;
  const alphabet = ['\r', '\n', '\r\n', ':', ' ', 'data', 'id', 'event', 'retry', '7', 'ü', '\0', '\ufeff'];
  for (let round = 0; round < 500; round++) {
    const bytes = new TextEncoder().encode(Array.from({ length: random(60) }, () => alphabet[random(alphabet.length)]).join(''));
    const cut = random(bytes.length + 1);
    assert.deepEqual(parse([bytes.subarray(0, cut), bytes.subarray(cut)]), parse([bytes]));
  }
});
