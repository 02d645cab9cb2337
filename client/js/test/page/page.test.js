// The console at "/", in a real browser, against a real gateway that is killed
// and started again: signing in, and a channel's events as they happen.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, test } from 'node:test';
import { bench, freePort, startGateway, until, watch } from './gateway.js';

let shared, page, complaints, context;

before(async () => { shared = await bench(); });
after(() => shared?.end());
beforeEach(async () => {
  context = await shared.browser.newContext();
  page = await context.newPage();
  complaints = watch(page);
});
afterEach(async () => {
  await context.close();
  assert.deepEqual(complaints, []);
});

async function start(t, port, name) {
  const gateway = await startGateway(shared.binary, port ?? await freePort(), join(shared.dir, name));
  t.after(gateway.kill);
  return gateway;
}

const state = (text) => page.locator('#state').filter({ hasText: text }).waitFor();
const shown = () => page.locator('#events .type').allTextContents();
async function untilShown(expected) {
  await page.waitForFunction((n) => document.querySelectorAll('#events .type').length >= n, expected.length);
  assert.deepEqual(await shown(), expected); // newest first
}

test('the printed link shows events live, and goes on after the gateway was killed', { timeout: 90_000 }, async (t) => {
  const port = await freePort();
  let gateway = await start(t, port, 'killed');
  await page.goto(gateway.link);
  await state('Live');
  assert.equal(page.url(), `${gateway.url}/#/channels/acct-42`, 'the token stays in the address bar');

  await gateway.publish('acct-42', { type: 'email.opened', subject: '<b>alice</b>', data: { ip: '203.0.113.7' } });
  await untilShown(['email.opened']);
  await page.locator('#events summary').click();
  await page.locator('#events').getByText('<b>alice</b>').waitFor();
  assert.match(await page.locator('#events pre').textContent(), /"ip": "203\.0\.113\.7"/);

  await gateway.kill();
  await state('Reconnecting…');
  gateway = await start(t, port, 'killed');
  // Published while the page may not be back yet: it resumes where it was.
  await gateway.publish('acct-42', { type: 'email.clicked' }, { type: 'email.bounced' });
  await untilShown(['email.bounced', 'email.clicked', 'email.opened']);
  await state('Live');
  assert.equal(await page.locator('#count').textContent(), '3');
});

test('a token is asked for, by keyboard alone, and one that isn’t taken is told so', { timeout: 60_000 }, async (t) => {
  const gateway = await start(t, undefined, 'sign-in');
  await gateway.publish('mail.eu', { type: 'email.opened' });
  await page.goto(gateway.url);
  await page.keyboard.type('nonsense');
  await page.keyboard.press('Enter');
  await page.getByRole('alert').filter({ hasText: 'token is malformed' }).waitFor();
  await page.keyboard.press('Control+A');
  await page.keyboard.type(gateway.token);
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { name: 'Overview' }).waitFor();

  // On by Tab and Enter: past the skip link and the mark, to the channels, into one.
  const focused = () => page.evaluate(() => document.activeElement.textContent.trim());
  const tabTo = async (text) => {
    for (let i = 0; i < 40 && await focused() !== text; i++) await page.keyboard.press('Tab');
    assert.equal(await focused(), text);
  };
  await tabTo('Channels');
  await page.keyboard.press('Enter');
  await page.getByRole('link', { name: 'mail.eu' }).waitFor();
  assert.equal(await page.evaluate(() => document.activeElement.id), 'main', 'focus follows to the new page');
  await tabTo('mail.eu');
  await page.keyboard.press('Enter');
  await state('Live');
  await tabTo('Publish…');
  await page.keyboard.press('Enter');
  await page.getByRole('dialog').waitFor();
  await page.keyboard.press('Escape');
  await page.getByRole('dialog').waitFor({ state: 'detached' });
  await tabTo('Publish…');

  await page.getByRole('button', { name: 'Sign out' }).click();
  await page.getByLabel('Token').waitFor();
  assert.equal(await page.evaluate(() => sessionStorage.length && sessionStorage.getItem('longline.token')), null);
});

test('a tail is paused, filtered with completion, begun elsewhere, and never grows beyond bounds', { timeout: 60_000 }, async (t) => {
  const gateway = await start(t, undefined, 'tail');
  await gateway.publish('acct-42', { type: 'order.paid', data: { amount: 50 } }, { type: 'order.paid', data: { amount: 500, customer: { tier: 'gold' } } }, { type: 'email.opened' });
  await page.goto(gateway.link);
  await state('Live');
  await page.getByLabel('From').selectOption('earliest');
  await page.getByRole('button', { name: 'Listen' }).click();
  await untilShown(['email.opened', 'order.paid', 'order.paid']);

  // Attribute names come from what passed.
  const filter = page.getByRole('combobox', { name: 'Filter' });
  await filter.pressSequentially('event.data.am');
  await page.getByRole('option', { name: 'event.data.amount' }).waitFor();
  await page.keyboard.press('ArrowDown');
  await page.keyboard.press('Enter');
  assert.equal(await filter.inputValue(), 'event.data.amount');
  await filter.pressSequentially(' > 100.0');
  await page.keyboard.press('Enter');
  await untilShown(['order.paid']);

  await filter.fill('event.data.amount >');
  await page.keyboard.press('Enter');
  await page.getByRole('alert').filter({ hasText: 'filter' }).waitFor();
  await filter.fill('');
  await page.getByLabel('From').selectOption('latest');
  await page.getByLabel('Types').fill('email.*');
  await page.keyboard.press('Enter');
  await state('Live');
  await page.getByRole('button', { name: 'Pause' }).click();
  await gateway.publish('acct-42', { type: 'order.paid' }, { type: 'email.clicked' });
  await page.getByRole('button', { name: 'Go on (1 more)' }).click();
  await untilShown(['email.clicked']);

  // Thousands at once: all are counted, few are in the page.
  for (let i = 0; i < 3; i++) await gateway.publish('acct-42', ...Array.from({ length: 1000 }, (_, n) => ({ type: 'email.sent', data: { n } })));
  await page.waitForFunction(() => document.querySelector('#count').textContent === '3,001');
  assert.ok(await page.locator('#events > li').count() <= 100, 'too many rows are kept');
  await page.getByText('came too fast to be shown here').first().waitFor();
});

test('ten thousand subscriptions are a list of some dozen rows', { timeout: 60_000 }, async (t) => {
  const gateway = await start(t, undefined, 'long');
  const all = Array.from({ length: 10_000 }, (_, i) => ({
    name: `crm-${String(i).padStart(5, '0')}`, channels: ['acct-42'], cursor: `acct-42@abc-${i}`,
    status: { state: 'offline', lag: { events: i * 7919 % 10_000, seconds: i }, dead: i % 3 },
  }));
  await page.route(/\/v1\/subscriptions\?/, (route) => {
    const q = new URL(route.request().url()).searchParams, from = q.get('cursor') ? all.findIndex((s) => s.name === q.get('cursor')) + 1 : 0;
    const some = all.slice(from, from + 1000);
    return route.fulfill({ json: { subscriptions: some, ...from + 1000 < all.length && { next: some.at(-1).name } } });
  });
  await page.goto(gateway.link);
  await state('Live');
  await page.goto(`${gateway.url}/#/subscriptions`);
  await page.getByText('10,000 subscriptions').waitFor();
  const rows = page.locator('tr[data-key]'), list = page.getByRole('region', { name: 'Subscriptions' });
  assert.ok(await rows.count() < 80, 'rows out of sight are in the page');
  await list.evaluate((e) => { e.scrollTop = e.scrollHeight; });
  await page.getByRole('link', { name: 'crm-09999' }).waitFor();
  assert.ok(await rows.count() < 80);
  await page.getByLabel('Order').selectOption('lag');
  await list.evaluate((e) => { e.scrollTop = 0; });
  await page.waitForFunction(() => document.querySelector('tr[data-key] td:nth-child(3)').textContent === '9,999');
});

test('a browser whose clock is wrong shows the gateway’s time, and revokes until now', { timeout: 60_000 }, async (t) => {
  const gateway = await start(t, undefined, 'clock');
  const behind = await (await shared.browser.newContext()).newPage();
  t.after(() => behind.context().close());
  await behind.clock.install({ time: Date.now() - 3_600_000 });
  await gateway.publish('acct-42', { type: 'email.opened' });
  await behind.goto(`${gateway.url}/#token=${gateway.token}`);
  await behind.getByRole('heading', { name: 'Overview' }).waitFor();
  await behind.goto(`${gateway.url}/#/connections`);
  await behind.locator('tr[data-key]').first().waitFor();
  assert.doesNotMatch(await behind.locator('main').innerText(), /\bin [\d.]+ (min|h)\b/); // the node was started just now
  const { token } = await gateway.call('POST', '/v1/tokens', { sub: 'customer-9', subscribe: ['acct-42'] });
  await behind.goto(`${gateway.url}/#/tokens`);
  await behind.getByLabel('By').selectOption('sub');
  await behind.getByLabel('Which').fill('customer-9');
  await until(async () => {
    await behind.getByRole('button', { name: 'Revoke…' }).click();
    await behind.getByRole('dialog').getByRole('button', { name: 'Revoke' }).click();
    const answer = await fetch(`${gateway.url}/v1/token`, { headers: { Authorization: `Bearer ${token}` } });
    return answer.status === 401;
  }, 'the token is revoked');
});
