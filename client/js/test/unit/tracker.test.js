import assert from 'node:assert/strict';
import { test } from 'node:test';
import { reassign } from '../../src/partition.js';
import { AckTracker } from '../../src/tracker.js';
import { parseCursor, text } from '../../src/wire.js';

function deliver(tracker, link, ...cursors) {
  for (const cursor of cursors) tracker.add({ link, ...parseCursor(cursor) });
}
const take = (tracker, link) => tracker.take(link).map(({ cursor }) => cursor);
const done = (tracker, ...cursors) => { for (const cursor of cursors) tracker.listed.get(cursor).done = true; };

test('only the contiguous prefix is acknowledged', () => {
  const tracker = new AckTracker();
  deliver(tracker, 1, 'a@k-1', 'a@k-2', 'a@k-3', 'a@k-4');
  assert.deepEqual(take(tracker, 1), []);
  done(tracker, 'a@k-2', 'a@k-4');
  assert.deepEqual(take(tracker, 1), []);
  done(tracker, 'a@k-1');
  assert.deepEqual(take(tracker, 1), ['a@k-2']);
  assert.deepEqual(take(tracker, 1), []);
  done(tracker, 'a@k-3');
  assert.deepEqual(take(tracker, 1), ['a@k-4']);
  assert.equal(tracker.listed.size, 0);
});

test('channels are acknowledged each by itself', () => {
  const tracker = new AckTracker();
  deliver(tracker, 1, 'a@k-1', 'b@k-1', 'a@k-2', 'b@k-2');
  done(tracker, 'a@k-2', 'b@k-1', 'b@k-2');
  assert.deepEqual(take(tracker, 1), ['b@k-2']);
  done(tracker, 'a@k-1');
  assert.deepEqual(take(tracker, 1), ['a@k-2']);
  assert.equal(text(tracker.position), 'b@k-2,a@k-2');
});

test('what an earlier connection delivered waits to be delivered again', () => {
  const tracker = new AckTracker();
  deliver(tracker, 1, 'a@k-1', 'a@k-2');
  done(tracker, 'a@k-1', 'a@k-2');
  assert.deepEqual(take(tracker, 2), []);
  tracker.listed.get('a@k-1').link = 2;
  assert.deepEqual(take(tracker, 2), ['a@k-1']);
});

test('what the gateway has as acknowledged is struck out, and not begun any more', () => {
  const tracker = new AckTracker();
  deliver(tracker, 1, 'a@k-1', 'a@k-2', 'a@k-3');
  const [first, second, third] = tracker.listed.values();
  first.started = true;
  tracker.rebase('a@k-2', false);
  assert.deepEqual([...tracker.listed.keys()], ['a@k-3']);
  assert.deepEqual([first.gone, second.gone, third.gone], [false, true, undefined]);
});

test('a new log strikes out what the old one delivered', () => {
  const tracker = new AckTracker();
  deliver(tracker, 1, 'a@k-7', 'b@k-7');
  tracker.rebase('a@z-3', false);
  assert.deepEqual([...tracker.listed.keys()], ['b@k-7']);
});

test('a cursor moved back strikes out everything, a lost acknowledgement nothing', () => {
  for (const [moved, cursor] of [[true, 'a@k-0'], [false, 'a@k-0'], [false, 'a@k-1'], [false, 'a@z-0']]) {
    const tracker = new AckTracker();
    tracker.rebase('a@k-0', false);
    deliver(tracker, 1, 'a@k-1', 'a@k-2');
    done(tracker, 'a@k-1');
    tracker.take(1);
    tracker.rebase(cursor, moved);
    assert.equal(tracker.listed.has('a@k-2'), !moved && cursor !== 'a@z-0');
    assert.equal(text(tracker.position), cursor);
  }
});

test('a dead letter that was put back comes late: it holds up nothing and is acknowledged by itself', () => {
  const tracker = new AckTracker();
  deliver(tracker, 1, 'a@k-7', 'a@k-2', 'a@k-8', 'b@k-1');
  done(tracker, 'a@k-7', 'a@k-8', 'b@k-1');
  assert.deepEqual(take(tracker, 1), ['a@k-8,b@k-1']);
  done(tracker, 'a@k-2');
  assert.deepEqual(take(tracker, 1), ['a@k-2']);
  assert.equal(text(tracker.position), 'a@k-8,b@k-1');
});

test('what is delivered again after a new beginning is not late', () => {
  const tracker = new AckTracker();
  deliver(tracker, 1, 'a@k-1', 'a@k-2');
  tracker.rebase('a@k-0', false);
  deliver(tracker, 2, 'a@k-1', 'a@k-2');
  done(tracker, 'a@k-2');
  assert.deepEqual(take(tracker, 2), []);
});

test('what is done behind an event whose partition went away acknowledges nothing beyond it', () => {
  const tracker = new AckTracker();
  deliver(tracker, 1, 'a@k-1', 'a@k-2', 'a@k-3');
  for (const entry of tracker.listed.values()) entry.partition = 0;
  const [one, two, three] = tracker.listed.values();
  one.started = three.started = true; // the second waits behind another of its key
  reassign(tracker, [0, 1], [1]);
  assert.deepEqual([one.gone, two.gone, three.gone], [false, true, false]);
  one.done = three.done = true;
  assert.deepEqual(take(tracker, 1), ['a@k-1']);
  reassign(tracker, [1], [0, 1]);
  assert.equal(tracker.listed.size, 0);
});
