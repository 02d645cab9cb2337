import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Longline, UnauthorizedError } from '../../src/index.js';
import { Control } from './control.js';

let control;
before(async () => { control = await Control.start(); });
after(() => control?.stop());

/** Subscribes with a token that runs out at once, and `next` to get another one. */
function subscribe(transport, next) {
  let first = control.token(undefined, 1);
  const states = [];
  const subscription = new Longline(control.url, {
    transport, backoff: { min: 1, max: 10 },
    token: next ? () => {
      const token = first ?? next(subscription);
      first = undefined;
      return token;
    } : first,
  }).subscribe({ channels: ['a'] }, () => {}, { onState: ({ state }) => states.push(state) });
  // Both lines may end before the first is looked at.
  return { subscription, states, ended: subscription.closed.catch((error) => error) };
}

// The gateway gives clocks 30 s of leeway, so this one takes as long.
test('a token that runs out ends the line; who can get another one then comes back', { timeout: 60_000 }, async () => {
  const lines = ['websocket', 'sse'].map((transport) => ({
    fixed: subscribe(transport),
    // What renews it is away until the line has ended.
    renewed: subscribe(transport, ({ state }) => {
      if (state === 'live') throw new Error('the session service is away');
      return control.token();
    }),
  }));
  for (const { fixed, renewed } of lines) {
    const error = await fixed.ended;
    assert.ok(error instanceof UnauthorizedError, `closed with ${error}`);
    while (renewed.subscription.state !== 'live' || !renewed.states.includes('waiting')) await new Promise((resolve) => setTimeout(resolve, 20));
    await renewed.subscription.close();
  }
});
