// The customers' page: what a service gives its customer, and what it keeps
// from them.
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { once } from 'node:events';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import axe from 'axe-core';
import { bench, freePort, receiver, startGateway, until, watch } from './gateway.js';

let shared;
before(async () => { shared = await bench(); });
after(() => shared?.end());

test('a customer makes a destination, tests it, sees what came of it, and nothing of others', { timeout: 120_000 }, async (t) => {
  const gateway = await startGateway(shared.binary, await freePort(), join(shared.dir, 'portal'));
  t.after(gateway.kill);
  const crm = await receiver(() => [200]);
  t.after(crm.close);
  await gateway.publish('acct-42', { type: 'email.<b>opened</b>', data: { name: '<img src=x onerror=alert(1)>' } });
  await gateway.publish('acct-43', { type: 'other.secret', data: {} });
  await gateway.call('PUT', '/v1/subscriptions/crm-43-secret', { channels: ['acct-43'] });
  await gateway.call('PUT', '/v1/subscriptions/crm-42-elsewhere', { channels: ['acct-43'] });
  const { url } = await gateway.call('POST', '/v1/portal', {
    sub: 'customer-42', subscriptions: ['crm-42-*'], channels: ['acct-42'], ttl: '5m', theme: { name: 'Mailer', accent: '#5b5bd6' }, return_url: 'https://app.example.com/settings',
  });

  for (const [colorScheme, width] of [['light', 1200], ['dark', 390]]) {
    const context = await shared.browser.newContext({ colorScheme, viewport: { width, height: 844 }, reducedMotion: 'reduce' });
    t.after(() => context.close());
    const page = await context.newPage();
    const complaints = watch(page);
    const judge = async (what) => {
      await page.evaluate(axe.source);
      const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ['violations'] }));
      assert.deepEqual(violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.html).join(' ').slice(0, 300)}`), [], `${what}, ${colorScheme}`);
      assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${what} is too wide at ${width}`);
    };
    await page.goto(url);
    await page.getByRole('heading', { name: 'Where your events go' }).waitFor();
    assert.equal(page.url(), `${gateway.url}/portal`, 'the token stays in the address bar');
    assert.equal(await page.title(), 'Mailer');
    assert.equal(await page.getByRole('link', { name: 'Back' }).getAttribute('href'), 'https://app.example.com/settings');
    await page.getByText('email.<b>opened</b>').waitFor(); // as text
    assert.doesNotMatch(await page.locator('body').innerText(), /secret|elsewhere|acct-43/);
    await judge('beginning');

    await page.getByRole('link', { name: 'New destination' }).click();
    await page.getByRole('radio', { name: 'Salesforce' }).check();
    assert.match(await page.getByLabel('Call').inputValue(), /my\.salesforce\.com/);
    await page.getByRole('radio', { name: 'A URL of yours' }).check();
    await judge('new');
    const name = `crm-42-${colorScheme}`;
    await page.getByLabel('Name').fill('crm-43-mine');
    await page.getByLabel('URL', { exact: true }).fill(crm.url);
    await page.getByRole('button', { name: 'Make it' }).click();
    await page.getByRole('alert').filter({ hasText: 'crm-43-mine' }).waitFor(); // refused by the gateway
    await page.getByLabel('Name').fill(name);
    await page.getByRole('button', { name: 'Make it' }).click();
    await page.getByRole('dialog').getByText('whsec_').waitFor();
    await page.getByRole('button', { name: 'Go on' }).click();
    await page.getByRole('heading', { name }).waitFor();

    const before = crm.got.length;
    await page.getByRole('button', { name: 'Test…' }).click();
    await page.getByRole('button', { name: 'Send', exact: true }).click();
    await page.getByText('The test was answered').waitFor();
    assert.ok(crm.got.length > before, 'the test event arrived');
    await page.getByRole('button', { name: 'Close' }).click();
    await gateway.publish('acct-42', { type: 'email.clicked' });
    await until(() => crm.got.some((e) => e.type === 'email.clicked'), 'the event arrives');
    await until(async () => (await gateway.call('GET', `/v1/subscriptions/${name}/attempts`)).attempts.length > 0, 'the attempt is kept');
    await page.goto(`${gateway.url}/portal#/subscriptions/${name}/attempts`);
    await page.locator('.tail li').first().waitFor();
    await judge('attempts');
    await page.locator('.tail summary').first().click();
    await page.locator('.tail .body a').first().click();
    await page.getByRole('button', { name: /Deliver again|Resend/ }).first().waitFor();
    assert.doesNotMatch(await page.locator('body').innerText(), /crm-43|elsewhere/);
    await page.goto(`${gateway.url}/portal#/subscriptions/${name}`);
    const clicks = () => crm.got.filter((e) => e.type === 'email.clicked').length, had = clicks();
    await page.getByRole('button', { name: 'Replay…' }).click();
    await page.getByLabel('From').fill('earliest');
    await page.getByRole('button', { name: 'Replay', exact: true }).click();
    await until(() => clicks() > had, 'a range is delivered again');
    await page.goto(`${gateway.url}/portal#/subscriptions/crm-43-secret`);
    await page.getByRole('alert').filter({ hasText: 'may not' }).waitFor();
    await page.goto(`${gateway.url}/portal#/events/%`); // typed by hand
    await page.getByText('That is no cursor').waitFor();
    assert.deepEqual(complaints, []);
  }
});

test('what a service and its customers are called is text, from right to left too', { timeout: 60_000 }, async (t) => {
  const gateway = await startGateway(shared.binary, await freePort(), join(shared.dir, 'named'));
  t.after(gateway.kill);
  const evil = '<img src=//evil.example/a onerror=pwned=1>';
  const names = [evil, '\u202e<b>moc.elpmaxe', 'شركة الأحداث المحدودة', 'W'.repeat(60), '"><script>pwned=1</script>', '{{7*7}}${7*7}'];
  await gateway.publish('acct-42', ...names.map((name) => ({ type: `x${name}`.replace('\u202e', ''), subject: name.replace('\u202e', ''), data: { [name]: name } })));
  for (const name of names) {
    const { url } = await gateway.call('POST', '/v1/portal', { sub: `${name}-42`, subscriptions: ['crm-42-*'], channels: ['acct-42'], theme: { name } });
    const context = await shared.browser.newContext({ viewport: { width: 390, height: 844 } });
    const page = await context.newPage();
    const complaints = watch(page);
    await page.goto(url);
    await page.getByText('What happens').waitFor();
    assert.equal(await page.locator('#name').textContent(), name);
    assert.equal(await page.title(), name);
    assert.equal(await page.locator('main :is(script, img, iframe), header :is(script, img, b)').count(), 0, name);
    assert.equal(await page.evaluate(() => globalThis.pwned), undefined);
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${name} is too wide`);
    assert.deepEqual(complaints, []);
    await context.close();
  }
  // The operator sees the same names among the connections.
  const { url } = await gateway.call('POST', '/v1/portal', { sub: evil, subscriptions: ['crm-42-*'], channels: ['acct-42'] });
  const line = new AbortController();
  t.after(() => line.abort());
  await fetch(`${gateway.url}/v1/sse?channel=acct-42`, { signal: line.signal, headers: { Authorization: `Bearer ${url.split('#token=')[1]}` } });
  const context = await shared.browser.newContext();
  t.after(() => context.close());
  const page = await context.newPage();
  const complaints = watch(page);
  await page.goto(`${gateway.url}/#token=${gateway.token}`);
  await page.getByRole('heading', { name: 'Overview' }).waitFor();
  await page.goto(`${gateway.url}/#/connections`);
  await page.getByText(evil, { exact: true }).first().waitFor();
  assert.equal(await page.locator('main img').count(), 0);
  assert.deepEqual(complaints, []);
});

test('a link that has ended says so, and the page is framed only where it may be', { timeout: 60_000 }, async (t) => {
  const home = createServer((_, response) => response.setHeader('Content-Type', 'text/html').end('<!doctype html><title>app</title>')).listen(0, '127.0.0.1');
  await once(home, 'listening');
  t.after(() => home.close());
  const origin = `http://127.0.0.1:${home.address().port}`;
  const gateway = await startGateway(shared.binary, await freePort(), join(shared.dir, 'framed'), { args: ['--portal-origins', origin] });
  t.after(gateway.kill);
  const ask = (sub) => gateway.call('POST', '/v1/portal', { sub, subscriptions: ['crm-42-*'], channels: ['acct-42'] });
  const context = await shared.browser.newContext();
  t.after(() => context.close());
  const page = await context.newPage();
  const { url } = await ask('customer-42');
  await page.goto(origin);
  const frame = (src) => page.evaluate((src) => {
    const f = document.createElement('iframe');
    f.src = src;
    document.body.replaceChildren(f);
  }, src);
  await frame(url);
  await page.frameLocator('iframe').getByRole('heading', { name: 'Where your events go' }).waitFor();
  await page.goto(origin.replace('127.0.0.1', 'localhost')); // another origin
  const refused = page.waitForEvent('console', (m) => /frame-ancestors/.test(m.text()));
  await frame(url);
  await refused;

  await page.goto(url);
  await page.getByRole('heading', { name: 'Where your events go' }).waitFor();
  await gateway.call('POST', '/v1/tokens/revoke', { sub: 'customer-42', before: new Date(Date.now() + 2000).toISOString() });
  await until(async () => {
    await page.reload();
    return page.getByText('This link has ended').isVisible();
  }, 'the link ends');
  await page.goto(`${gateway.url}/portal`);
  await page.getByText('This link has ended').waitFor();
});
