import assert from 'node:assert/strict';
import { test } from 'node:test';
import { backoff, sleep } from '../../src/backoff.js';

test('waits grow to a limit, and are jittered in full', () => {
  const most = (attempt) => backoff(attempt, { min: 100, max: 1000 }, () => 1);
  assert.deepEqual([0, 1, 2, 3, 4, 5, 2000].map(most), [100, 200, 400, 800, 1000, 1000, 1000]);
  assert.equal(backoff(3, {}, () => 0), 0);
});

test('sleep ends early when its signal aborts, and leaves no listener', async () => {
  const abort = new AbortController();
  const long = sleep(1e12, abort.signal);
  abort.abort();
  await long;
  await sleep(1e12, abort.signal);
  await sleep(0);
});
