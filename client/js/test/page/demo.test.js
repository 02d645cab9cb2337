// The demo's page in a real browser, over the demo itself.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { chromium } from 'playwright-core';
import { chrome, startDemo } from './demo.js';

let demo, browser;

before(async () => {
  demo = await startDemo();
  browser = await chromium.launch({ executablePath: chrome, args: ['--no-sandbox'] });
});

after(async () => {
  await browser?.close();
  assert.equal(await demo?.stop(), 0);
});

test('the page moves, and its buttons do what they say', { timeout: 60_000 }, async () => {
  const page = await (await browser.newContext()).newPage();
  const complaints = [];
  page.on('pageerror', (e) => complaints.push(String(e)));
  page.on('console', (m) => m.type() === 'error' && complaints.push(m.text()));
  await page.goto(demo.url);
  const line = page.getByRole('article', { name: 'Longline' });
  const processed = () => line.locator('[data-figure=processed] dd').first().textContent().then((t) => Number(t.replace(/,/g, '')));
  await page.waitForFunction(() => document.querySelector('#longline [data-figure=processed] dd').textContent !== '0');
  const first = await processed();
  await page.waitForFunction((n) => Number(document.querySelector('#longline [data-figure=processed] dd').textContent.replace(/,/g, '')) > n, first);
  assert.equal(await line.locator('[data-figure=lost] dd').textContent(), '0');
  await page.getByText('The line is held by worker-1 (8 of 8 partitions).').waitFor();

  // By the keyboard: the focus stays where the button was.
  await page.getByRole('button', { name: 'Add a second worker' }).focus();
  await page.keyboard.press('Enter');
  await page.getByText('worker-1 (4 of 8 partitions) and worker-2 (4 of 8 partitions)').waitFor();
  await page.getByRole('button', { name: 'Send the second worker home' }).waitFor();

  await page.getByRole('button', { name: 'Unplug the CRM’s line' }).click();
  await page.getByText('the callback brings events').waitFor();
  await page.getByRole('button', { name: 'kill -9 the gateway' }).click();
  await page.getByText('The gateway is down').waitFor();
  await page.getByRole('button', { name: 'Plug the line in' }).click();
  await page.getByText('The line is held by').waitFor();
  assert.equal(await line.locator('[data-figure=lost] dd').textContent(), '0');
  await page.setViewportSize({ width: 360, height: 800 });
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= 360), 'a phone scrolls sideways');
  assert.deepEqual(complaints, []);
});
