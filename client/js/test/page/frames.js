// Measures whether the console keeps its frames on a machine four times slower:
// tasks of the page over 50 ms while 1,000 events a second are tailed and while
// 10,000 subscriptions are loaded and scrolled, and when the first page is
// painted: npm run frames. What counts is the time that the page's thread
// computed, so that whatever else the machine does is left out. Figures are for
// whoever reads them; no test depends on them.
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { bench, freePort, startGateway } from './gateway.js';

const { dir, binary, browser, end } = await bench();
const gateway = await startGateway(binary, await freePort(), join(dir, 'data'));

const SLOWER = 4, BUDGET = 50; // ms
const tracer = await browser.newBrowserCDPSession();

async function open() {
  const context = await browser.newContext();
  return context.newPage();
}

/** The tasks of the page's thread while something goes on, in ms of a slower machine. */
async function during(what, run) {
  const events = [], hear = ({ value }) => events.push(...value);
  tracer.on('Tracing.dataCollected', hear);
  await tracer.send('Tracing.start', { traceConfig: { includedCategories: ['toplevel'] } });
  await run();
  const complete = new Promise((resolve) => { tracer.once('Tracing.tracingComplete', resolve); });
  await tracer.send('Tracing.end');
  await complete;
  tracer.off('Tracing.dataCollected', hear);
  const threads = new Set(events.filter((e) => e.name === 'thread_name' && e.args.name === 'CrRendererMain').map((e) => `${e.pid}.${e.tid}`));
  const tasks = events.filter((e) => e.name === 'ThreadControllerImpl::RunTask' && threads.has(`${e.pid}.${e.tid}`)).map((e) => e.tdur / 1000 * SLOWER).sort((a, b) => b - a);
  const long = tasks.filter((ms) => ms > BUDGET);
  console.log(`${what}: ${long.length} of ${tasks.length} tasks over ${BUDGET} ms; the longest ${tasks.slice(0, 5).map(Math.round).join(', ')} ms`);
}

try {
  let page = await open();
  await page.goto(gateway.link);
  await page.locator('#state .good').waitFor();
  const paint = await page.evaluate(() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime);
  console.log(`first paint: ${Math.round(paint)} ms`);

  page = await open();
  await page.goto(gateway.link);
  await page.locator('#state .good').waitFor();
  await during('a tail of 1,000 events/s for 10 s', async () => {
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
  page = await open();
  await page.goto(`${gateway.url}/#token=${gateway.token}`);
  await page.locator('.attention, .card').first().waitFor();
  const began = Date.now();
  await page.goto(`${gateway.url}/#/subscriptions`);
  await during('loading 10,000 subscriptions', () => page.getByText('10,000 subscriptions').waitFor({ timeout: 60_000 }));
  console.log(`all of them after ${Date.now() - began} ms`);
  await during('scrolling through them', () => page.locator('.long').evaluate(async (e) => {
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
