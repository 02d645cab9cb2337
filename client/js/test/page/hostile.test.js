// Whatever publishers and receivers write is text to the console, nothing else:
// no element, no script, no request comes of it.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { bench, freePort, receiver, startGateway, until, watch } from './gateway.js';

const marks = ['<script>pwned=1</script>', '<img src=x onerror=pwned=1>', '"><svg onload=pwned=1>', "'-pwned=1-'", 'javascript:pwned=1', '</pre><iframe src=//evil.example>',
  '<style>*{display:none}</style>', '<base href=//evil.example>', '<meta http-equiv=refresh content=0;url=//evil.example>', '<a href=javascript:pwned=1>x</a>',
  '{{constructor.constructor("pwned=1")()}}', '${pwned=1}', '<!--', '-->', ']]>', '<![CDATA[<script>pwned=1</script>]]>', '<math><mi//xlink:href="data:x,<script>pwned=1</script>">',
  '<form action=//evil.example><input name=token>', '<link rel=stylesheet href=//evil.example/a.css>', '<object data=//evil.example>', '<embed src=//evil.example>',
  '<template><script>pwned=1</script></template>', '<details open ontoggle=pwned=1>', '<video><source onerror=pwned=1>', '<input autofocus onfocus=pwned=1>', '<body onload=pwned=1>',
  '&lt;script&gt;pwned=1&lt;/script&gt;', '&#60;script&#62;', '\u2028pwned=1', '\u202e<gnp.exe>', '\u0000\u0007bell', '\ud83d\ude00\u200d', 'a'.repeat(5000), '<'.repeat(500),
  '__proto__', 'constructor', 'toString', 'hasOwnProperty', '../../../../etc/passwd', '%3Cscript%3Epwned=1%3C/script%3E', '#/tokens?x=<script>', '?access_token=stolen', 'data:text/html,<script>pwned=1</script>',
  '<x onclick=pwned=1>click</x>', '<button formaction=javascript:pwned=1>', '<img srcset="//evil.example/a 1x">', '<svg><use href="//evil.example/#a">', '<noscript><p title="</noscript><img src=x onerror=pwned=1>">', 'x\r\nSet-Cookie: a=b', '<marquee onstart=pwned=1>'];

// The gateway refuses control characters in attributes itself; data may hold any.
const attribute = (text, most) => text.replaceAll(/[\u0000-\u001f]/g, '').slice(0, most);

let shared;
before(async () => { shared = await bench(); });
after(() => shared?.end());

test('fifty hostile payloads stay text on every page that shows them', { timeout: 90_000 }, async (t) => {
  assert.equal(new Set(marks).size, 50);
  const gateway = await startGateway(shared.binary, await freePort(), join(shared.dir, 'hostile'));
  t.after(gateway.kill);
  const refusing = await receiver((event) => [/^(0|1|30)\D/.test(event.id) ? 422 : 200, event.subject ?? '']);
  t.after(refusing.close);
  await gateway.call('PUT', '/v1/subscriptions/hostile', { channels: ['acct-42'], description: marks[1], labels: { customer: marks[2] }, callback: { url: refusing.url, grace: '0s', concurrency: 64, order: 'key' } });
  const published = await gateway.publish('acct-42', ...marks.map((mark, i) => ({
    type: attribute(`x${mark}`, 200), id: attribute(`${i}${mark}`, 200), subject: attribute(mark, 300), partitionkey: attribute(`${i}${mark}`, 200),
    data: { [mark.slice(0, 300)]: mark, __proto__: { polluted: mark }, list: [mark] },
  })));

  const context = await shared.browser.newContext();
  t.after(() => context.close());
  const page = await context.newPage();
  const complaints = watch(page);
  page.on('dialog', () => complaints.push('a dialog opened'));
  const foreign = () => page.evaluate(() => document.querySelectorAll('main :is(script, style, iframe, object, embed, img, link, base, meta, video, marquee, template, math, form[action], [onerror], [onload], [onclick], [style*=display])').length);
  const visit = async (address, until) => {
    await page.goto(`${gateway.url}/#/${address}`);
    await page.locator(until).first().waitFor();
    await page.evaluate(() => document.querySelectorAll('main summary').forEach((e) => e.click()));
    assert.equal(await foreign(), 0, address);
    assert.equal(await page.evaluate(() => globalThis.pwned ?? {}.polluted), undefined, address);
  };
  await page.goto(gateway.link);
  await page.locator('#state').filter({ hasText: 'Live' }).waitFor();
  await page.getByLabel('From').selectOption('earliest');
  await page.getByRole('button', { name: 'Listen' }).click();
  await page.waitForFunction(() => document.querySelectorAll('#events .type').length === 50);
  await visit('channels/acct-42', '#events');
  // What is read by a click is what was sent.
  const { cursor } = published[0];
  for (const i of [0, 1, 30, 42]) {
    await visit(`events/${encodeURIComponent(published[i].cursor)}`, '.fate h3');
    assert.ok((await page.locator('main pre').first().textContent()).includes(JSON.stringify(marks[i]).slice(1, -1)), `what ${i} says isn't shown`);
  }
  await until(async () => (await gateway.call('GET', '/v1/subscriptions/hostile/dead')).dead.length === 3, 'some are set aside');
  await visit('subscriptions/hostile/dead', '.letter');
  await visit('subscriptions/hostile/attempts', '.tail li');
  await visit('subscriptions/hostile', '.place');
  await visit('subscriptions/hostile/definition', '.editor');
  await visit('subscriptions', 'tr[data-key]');
  await visit('', '.attention');
  await visit(`events/${encodeURIComponent(cursor)}`, '.fate h3');
  for (const bad of ['events/<script>', 'channels/%3Cimg%20src=x%20onerror=pwned=1%3E', 'subscriptions/%22%3E%3Csvg%3E', 'constructor', '__proto__/x', 'channels/%']) {
    await page.goto(`${gateway.url}/#/${bad}`);
    await page.locator('main .empty, main .note').first().waitFor();
    assert.equal(await foreign(), 0, bad);
  }
  assert.deepEqual(complaints, []);
});
