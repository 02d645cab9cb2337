import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import * as sdk from '../../src/index.js';
import { Control } from './control.js';
import { scenarios } from './suite.js';

let control;
before(async () => { control = await Control.start(); });
after(() => control?.stop());

for (const transport of ['websocket', 'sse']) {
  describe(`Node, ${transport}`, () => {
    for (const { name, run, only } of scenarios) {
      const env = { sdk, transport, browser: false, control: async (method, ...args) => control[method](...args), receiver: () => control.receiver() };
      if (only && !only(env)) continue;
      test(name, { timeout: 60_000 }, async () => {
        assert.equal(typeof WebSocket, 'function', 'run with --experimental-websocket');
        await run({ ...env, url: control.url });
      });
    }
  });
}
