// Takes the pictures of the console and the portal that stand in docs/img: npm run shots.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Longline } from '../../src/index.js';
import { bench, freePort, receiver, startGateway } from './gateway.js';

const out = process.argv[2] ?? new URL('../../../../docs/img/', import.meta.url).pathname;
const format = process.env.FORMAT ?? 'webp';
mkdirSync(out, { recursive: true });
const { dir, binary, browser, end } = await bench();
const gateway = await startGateway(binary, await freePort(), join(dir, 'data'));
const fine = await receiver(() => [200]);
const crm = await receiver((e) => e.data?.bounce ? [422, '{"error":"no such contact"}'] : [200]);
let tries = 0;
const flaky = await receiver(() => ++tries % 3 ? [503, 'try later'] : [200]);
const down = await receiver(() => [500, 'database is away']);
const stop = new AbortController();
let lines = [];

const people = ['alice', 'bob', 'carol', 'dave', 'erin', 'frank', 'grace', 'heidi'];
const types = ['email.opened', 'email.opened', 'email.opened', 'email.clicked', 'email.clicked', 'email.bounced', 'email.unsubscribed'];
const any = (list) => list[Math.floor(Math.random() * list.length)];
const event = () => {
  const who = `${any(people)}@example.com`, type = any(types);
  return { type, subject: who, partitionkey: who, data: { mailshot: 42, ip: `203.0.113.${Math.floor(Math.random() * 250)}`, ...type === 'email.clicked' && { url: 'https://example.com/offer?ref=42' }, ...type === 'email.bounced' && Math.random() < 0.02 && { bounce: 'hard' } } };
};
try {
  for (const name of ['acct-42', 'acct-43', 'mail.eu.acct-7', 'mail.us.acct-7', 'public.news']) await gateway.publish(name, event(), event());
  const put = (name, d) => gateway.call('PUT', `/v1/subscriptions/${name}`, d);
  await put('crm-42', { channels: ['acct-42'], types: ['email.*'], filter: '!has(event.data.bot)', description: 'Opens and clicks into the CRM of customer 42', labels: { customer: '42' }, callback: { url: crm.url, concurrency: 8, order: 'key' } });
  await put('crm-43', { channels: ['acct-43'], labels: { customer: '43' }, callback: { url: flaky.url } });
  await put('warehouse', { channels: ['acct-42', 'acct-43'], group: { partitions: 8 }, description: 'Rows for the nightly reports' });
  await put('billing', { channels: ['mail.eu.acct-7'], callback: { url: down.url } });
  await put('audit', { channels: ['acct-42'], start: 'earliest' });
  for (let i = 1; i < 9; i++) await put(`crm-7-${i}`, { channels: ['mail.us.acct-7'], labels: { customer: '7' }, callback: { url: fine.url } });
  await gateway.call('POST', '/v1/subscriptions/crm-7-3/pause', {});
  const line = new Longline(gateway.url, { token: gateway.token });
  lines = ['worker-1', 'worker-2', 'worker-3'].flatMap((consumer) => [
    line.attach('warehouse', () => sleep(2), { consumer, concurrency: 4 }), line.subscribe({ channels: ['acct-42'] }, () => {}),
  ]);
  (async () => {
    for (let t = 0; !stop.signal.aborted; t++) {
      await gateway.publish('acct-42', ...Array.from({ length: 12 + Math.round(8 * Math.sin(t / 9)) }, event)).catch(() => {});
      if (t % 3 === 0) await gateway.publish('acct-43', event()).catch(() => {});
      if (t % 10 === 0) await gateway.publish('mail.eu.acct-7', event()).catch(() => {});
      if (t % 4 === 0) await gateway.publish('mail.us.acct-7', event()).catch(() => {});
      await sleep(200);
    }
  })();
  await sleep(Number(process.env.FOR ?? 60) * 1000); // so that charts have a line

  const shoot = async (name, address, { width = 1100, height = 740, scheme = 'light', ready, act, link } = {}) => {
    const context = await browser.newContext({ viewport: { width, height }, colorScheme: scheme });
    const page = await context.newPage();
    page.on('pageerror', (e) => console.error(name, String(e)));
    await page.goto(link ?? `${gateway.url}/#token=${gateway.token}`);
    await page.getByRole('heading', { level: 1 }).filter({ hasText: link ? 'Where your events go' : 'Overview' }).waitFor();
    await page.goto(`${gateway.url}/${link ? 'portal' : ''}#/${address}`);
    await page.locator(ready ?? 'h1').first().waitFor();
    await act?.(page);
    await sleep(500);
    await page.evaluate(() => document.activeElement?.blur());
    const session = await context.newCDPSession(page);
    const { data } = await session.send('Page.captureScreenshot', { format, ...format === 'webp' && { quality: 80 } });
    writeFileSync(join(out, `${link ? '' : 'console-'}${name}.${format}`), Buffer.from(data, 'base64'));
    await context.close();
  };
  const { dead } = await gateway.call('GET', '/v1/subscriptions/crm-42/dead?limit=1');
  const { attempts } = await gateway.call('GET', '/v1/subscriptions/crm-43/attempts?status=2xx&limit=1');
  await shoot('overview', '', { ready: '.attention' });
  await shoot('overview-dark', '', { ready: '.attention', scheme: 'dark' });
  await shoot('overview-phone', '', { ready: '.attention', width: 390, height: 844 });
  await shoot('channels', 'channels', { ready: 'table' });
  await shoot('channel', 'channels/acct-42', { ready: '.tail li', act: async (page) => {
    await page.locator('.tail li:nth-child(30)').waitFor();
    await page.getByRole('button', { name: 'Pause' }).click();
    await page.locator('.tail summary').nth(2).click();
  } });
  await shoot('channel-phone', 'channels/acct-42', { ready: '.tail li', width: 390, height: 844 });
  await shoot('event', `events/${encodeURIComponent(attempts[0]?.cursors[0] ?? dead[0].event.cursor)}`, { ready: '.fate h3' });
  if (dead[0]) await shoot('event-dead', `events/${encodeURIComponent(dead[0].event.cursor)}`, { ready: '.fate h3' });
  await shoot('subscriptions', 'subscriptions', { ready: 'tr[data-key]', act: () => sleep(11_000) });
  await shoot('subscription', 'subscriptions/crm-42', { ready: '.place' });
  await shoot('subscription-group', 'subscriptions/warehouse', { ready: '.place' });
  await shoot('definition', 'subscriptions/crm-42/definition', { ready: '.editor' });
  await shoot('seek', 'subscriptions/crm-42', { ready: '.place', act: (page) => page.getByRole('button', { name: 'Move position…' }).click() });
  await shoot('attempts', 'subscriptions/crm-43/attempts', { ready: '.tail li', height: 560 });
  await shoot('dead', 'subscriptions/crm-42/dead', { ready: '.tail, .empty', height: 560 });
  await shoot('connections', 'connections', { ready: 'table', height: 660 });
  await shoot('tokens', 'tokens', { ready: '.badge' });

  const { url: link } = await gateway.call('POST', '/v1/portal', {
    sub: 'customer-42', subscriptions: ['crm-42*'], channels: ['acct-42'], theme: { name: 'Mailer', accent: '#5b5bd6' }, return_url: 'https://app.example.com/settings',
  });
  await shoot('portal', '', { link, ready: '.list' });
  await shoot('portal-dark', '', { link, ready: '.list', scheme: 'dark' });
  await shoot('portal-new', 'new', { link, ready: '.recipes' });
  await shoot('portal-phone', 'new', { link, ready: '.recipes', width: 390, height: 844 });
} finally {
  stop.abort();
  for (const one of lines) one.close();
  for (const r of [fine, crm, flaky, down]) r.close();
  await gateway.kill();
  await end();
}
