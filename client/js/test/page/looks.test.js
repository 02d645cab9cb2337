// Each page for those who see it otherwise: by a screen reader's rules (axe), on
// a phone, in the dark.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import axe from 'axe-core';
import { bench, freePort, receiver, startGateway, until, watch } from './gateway.js';

let shared;
before(async () => { shared = await bench(); });
after(() => shared?.end());

test('no page breaks an accessibility rule or a phone, by day or by night', { timeout: 120_000 }, async (t) => {
  const gateway = await startGateway(shared.binary, await freePort(), join(shared.dir, 'looks'));
  t.after(gateway.kill);
  const crm = await receiver((event) => event.data?.bad ? [422, 'no such contact'] : [200]);
  t.after(crm.close);
  await gateway.call('PUT', '/v1/subscriptions/crm-42', { channels: ['acct-42'], description: 'Opens into the CRM', callback: { url: crm.url, grace: '0s' } });
  await gateway.call('PUT', '/v1/subscriptions/shared', { channels: ['acct-42'], group: { partitions: 4 } });
  const published = await gateway.publish('acct-42', { type: 'email.opened', subject: `${'long-'.repeat(40)}@example.com`, data: { bad: true } }, { type: 'email.clicked', subject: 'alice@example.com', data: { ip: '203.0.113.7' } });
  await until(async () => (await gateway.call('GET', '/v1/subscriptions/crm-42')).status.dead === 1, 'one is set aside');
  const cursor = encodeURIComponent(published[0].cursor);
  const pages = [
    ['', '.attention'], ['channels', 'table'], ['channels/acct-42', '#state .good', async (page) => {
      await page.getByLabel('From').selectOption('earliest');
      await page.getByRole('button', { name: 'Listen' }).click();
      await page.locator('.tail summary').first().click();
    }],
    [`events/${cursor}`, '.fall'], ['subscriptions', 'tr[data-key]'], ['subscriptions/crm-42', '.place'], ['subscriptions/shared', '.place'],
    ['subscriptions/crm-42/definition', '.editor'], ['subscriptions/crm-42/attempts', '.tail li'], ['subscriptions/crm-42/dead', '.letter'],
    ['subscriptions/new', '.editor'], ['connections', 'table'], ['tokens', 'dl'],
    ['subscriptions/crm-42', '.place', (page) => page.getByRole('button', { name: 'Move position…' }).click()],
  ];
  for (const [scheme, width] of [['light', 1200], ['dark', 390]]) {
    const context = await shared.browser.newContext({ colorScheme: scheme, viewport: { width, height: 844 }, reducedMotion: 'reduce' });
    t.after(() => context.close());
    const page = await context.newPage();
    const complaints = watch(page);
    const judge = async (what) => {
      await page.evaluate(axe.source);
      // By night only the colours are others.
      const { violations } = await page.evaluate((rules) => globalThis.axe.run(document, { resultTypes: ['violations'], ...rules && { runOnly: rules } }), scheme === 'dark' && ['color-contrast']);
      assert.deepEqual(violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.html).join(' ').slice(0, 300)}`), [], `${what}, ${scheme}`);
      const over = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      assert.ok(over <= 0, `${what} is ${over} pixels too wide at ${width}`);
    };
    await page.goto(gateway.url);
    await page.getByLabel('Token').waitFor();
    await judge('sign in');
    await page.goto(`${gateway.url}/#token=${gateway.token}`);
    await page.reload();
    await page.getByRole('heading', { name: 'Overview' }).waitFor();
    for (const [address, ready, act] of pages) {
      await page.goto(`${gateway.url}/#/${address}`);
      await page.locator(ready).first().waitFor();
      await act?.(page);
      await judge(address || 'overview');
      await page.keyboard.press('Escape');
    }
    assert.deepEqual(complaints, []);
  }
});

test('all of it is a hundred kilobytes at most, and is asked for once', { timeout: 60_000 }, async (t) => {
  const gateway = await startGateway(shared.binary, await freePort(), join(shared.dir, 'size'));
  t.after(gateway.kill);
  const context = await shared.browser.newContext();
  t.after(() => context.close());
  const page = await context.newPage();
  const session = await context.newCDPSession(page);
  await session.send('Network.enable');
  let bytes = 0;
  const paths = new Map();
  session.on('Network.responseReceived', ({ requestId, response }) => paths.set(requestId, new URL(response.url).pathname));
  session.on('Network.loadingFinished', ({ requestId, encodedDataLength }) => {
    const path = paths.get(requestId) ?? '';
    if (path === '/' || path.startsWith('/console/')) bytes += encodedDataLength;
  });
  await page.goto(gateway.link);
  await page.locator('#state').waitFor();
  for (const [address, ready] of [['', '.grid'], ['subscriptions', '.empty'], ['subscriptions/new', '.editor'], ['connections', 'table'], ['tokens', 'dl']]) {
    await page.goto(`${gateway.url}/#/${address}`);
    await page.locator(ready).first().waitFor();
  }
  t.diagnostic(`${bytes} bytes for the whole console`);
  assert.ok(bytes > 10_000 && bytes <= 100 * 1024, `${bytes} bytes`);
});
