import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Ledger } from '../../src/ledger.js';
import { parseCursor, text } from '../../src/wire.js';

function deliver(ledger, link, ...cursors) {
  for (const cursor of cursors) ledger.add({ link, ...parseCursor(cursor) });
}
const done = (ledger, ...cursors) => { for (const cursor of cursors) ledger.listed.get(cursor).done = true; };

test('only the contiguous prefix is acknowledged', () => {
  const ledger = new Ledger();
  deliver(ledger, 1, 'a@k-1', 'a@k-2', 'a@k-3', 'a@k-4');
  assert.deepEqual(ledger.take(1), []);
  done(ledger, 'a@k-2', 'a@k-4');
  assert.deepEqual(ledger.take(1), []);
  done(ledger, 'a@k-1');
  assert.deepEqual(ledger.take(1), ['a@k-2']);
  assert.deepEqual(ledger.take(1), []);
  done(ledger, 'a@k-3');
  assert.deepEqual(ledger.take(1), ['a@k-4']);
  assert.equal(ledger.listed.size, 0);
});

test('channels are acknowledged each by itself', () => {
  const ledger = new Ledger();
  deliver(ledger, 1, 'a@k-1', 'b@k-1', 'a@k-2', 'b@k-2');
  done(ledger, 'a@k-2', 'b@k-1', 'b@k-2');
  assert.deepEqual(ledger.take(1), ['b@k-2']);
  done(ledger, 'a@k-1');
  assert.deepEqual(ledger.take(1), ['a@k-2']);
  assert.equal(text(ledger.position), 'b@k-2,a@k-2');
});

test('what an earlier connection delivered waits to be delivered again', () => {
  const ledger = new Ledger();
  deliver(ledger, 1, 'a@k-1', 'a@k-2');
  done(ledger, 'a@k-1', 'a@k-2');
  assert.deepEqual(ledger.take(2), []);
  ledger.listed.get('a@k-1').link = 2;
  assert.deepEqual(ledger.take(2), ['a@k-1']);
});

test('what the gateway has as acknowledged is struck out, and not begun any more', () => {
  const ledger = new Ledger();
  deliver(ledger, 1, 'a@k-1', 'a@k-2', 'a@k-3');
  const [first, second, third] = ledger.listed.values();
  first.started = true;
  ledger.rebase('a@k-2', false);
  assert.deepEqual([...ledger.listed.keys()], ['a@k-3']);
  assert.deepEqual([first.gone, second.gone, third.gone], [false, true, undefined]);
});

test('a new log strikes out what the old one delivered', () => {
  const ledger = new Ledger();
  deliver(ledger, 1, 'a@k-7', 'b@k-7');
  ledger.rebase('a@z-3', false);
  assert.deepEqual([...ledger.listed.keys()], ['b@k-7']);
});

test('a cursor moved back strikes out everything, a lost acknowledgement nothing', () => {
  for (const [restarted, cursor, moved] of [[true, 'a@k-0', true], [false, 'a@k-0', false], [true, 'a@k-1', false], [true, 'a@z-0', false]]) {
    const ledger = new Ledger();
    ledger.rebase('a@k-0', false);
    deliver(ledger, 1, 'a@k-1', 'a@k-2');
    done(ledger, 'a@k-1');
    ledger.take(1);
    assert.equal(ledger.rebase(cursor, restarted), moved, `${cursor}, ${restarted}`);
    assert.equal(ledger.listed.has('a@k-2'), !moved && cursor !== 'a@z-0');
    assert.equal(text(ledger.position), cursor);
  }
});

test('a dead letter that was put back comes late: it holds up nothing and is acknowledged by itself', () => {
  const ledger = new Ledger();
  deliver(ledger, 1, 'a@k-7', 'a@k-2', 'a@k-8', 'b@k-1');
  done(ledger, 'a@k-7', 'a@k-8', 'b@k-1');
  assert.deepEqual(ledger.take(1), ['a@k-8,b@k-1']);
  done(ledger, 'a@k-2');
  assert.deepEqual(ledger.take(1), ['a@k-2']);
  assert.equal(text(ledger.position), 'a@k-8,b@k-1');
});

test('what is delivered again after a new beginning is not late', () => {
  const ledger = new Ledger();
  deliver(ledger, 1, 'a@k-1', 'a@k-2');
  ledger.rebase('a@k-0', false);
  deliver(ledger, 2, 'a@k-1', 'a@k-2');
  done(ledger, 'a@k-2');
  assert.deepEqual(ledger.take(2), []);
});
