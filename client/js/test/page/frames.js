// Measures whether the console keeps its frames: long tasks while 1,000 events a
// second are tailed and while 10,000 subscriptions are scrolled, with the CPU
// slowed down fourfold, and when the first page is painted: npm run frames.
// Figures are for whoever reads them; no test depends on them.
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { bench, freePort, startGateway } from './gateway.js';

const { dir, binary, browser, end } = await bench();
const gateway = await startGateway(binary, await freePort(), join(dir, 'data'));

async function open(slowdown) {
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.addInitScript(() => {
    globalThis.tasks = [];
    new PerformanceObserver((list) => tasks.push(...list.getEntries().map((e) => Math.round(e.duration)))).observe({ type: 'longtask', buffered: true });
  });
  const session = await context.newCDPSession(page);
  await session.send('Emulation.setCPUThrottlingRate', { rate: slowdown });
  return page;
}

/** Long tasks while something goes on; what came before it doesn't count. */
async function during(page, what, run) {
  await page.evaluate(() => { tasks.length = 0; });
  await run();
  const tasks = await page.evaluate(() => [...globalThis.tasks].sort((a, b) => b - a));
  console.log(`${what}: ${tasks.length} tasks over 50 ms${tasks.length ? `, the longest ${tasks.slice(0, 5).join(', ')} ms` : ''}`);
}

try {
  let page = await open(1);
  await page.goto(gateway.link);
  await page.locator('#state .good').waitFor();
  const paint = await page.evaluate(() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime);
  console.log(`first paint: ${Math.round(paint)} ms`);

  page = await open(4);
  await page.goto(gateway.link);
  await page.locator('#state .good').waitFor();
  await during(page, 'a tail of 1,000 events/s for 10 s, 4x slower', async () => {
    for (let i = 0; i < 100; i++) {
      const next = sleep(100);
      await gateway.publish('acct-42', ...Array.from({ length: 100 }, (_, n) => ({ type: 'email.opened', subject: `${n}@example.com`, data: { n } })));
      await next;
    }
  });
  console.log(`rows in the page: ${await page.locator('#events > li').count()}, counted: ${await page.locator('#count').textContent()}`);

  for (let i = 0; i < 10_000; i += 50) {
    await Promise.all(Array.from({ length: 50 }, (_, n) => gateway.call('PUT', `/v1/subscriptions/crm-${String(i + n).padStart(5, '0')}`, { channels: ['acct-42'] })));
  }
  page = await open(4);
  await page.goto(`${gateway.url}/#token=${gateway.token}`);
  await page.locator('.attention, .card').first().waitFor();
  const began = Date.now();
  await page.goto(`${gateway.url}/#/subscriptions`);
  await during(page, 'loading 10,000 subscriptions, 4x slower', () => page.getByText('10,000 subscriptions').waitFor({ timeout: 60_000 }));
  console.log(`all of them after ${Date.now() - began} ms`);
  await during(page, 'scrolling through them', () => page.locator('.long').evaluate(async (e) => {
    for (let i = 0; i < 120; i++) {
      e.scrollTop += e.scrollHeight / 130;
      await new Promise(requestAnimationFrame);
    }
  }));
  console.log(`rows in the page: ${await page.locator('tr[data-key]').count()}`);
} finally {
  await gateway.kill();
  await end();
}
