// The gateway's page at "/", in a real browser, against a real gateway that is
// killed and started again.
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, afterEach, before, beforeEach, test } from 'node:test';
import { chromium } from 'playwright-core';

const root = new URL('../../../../', import.meta.url).pathname;
const chrome = [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find((p) => p && existsSync(p));

let dir, binary, browser, context, page, complaints;

before(async () => {
  dir = mkdtempSync(join(tmpdir(), 'longline-page-'));
  binary = process.env.LONGLINE_BINARY ?? join(dir, 'longline');
  if (!process.env.LONGLINE_BINARY) execFileSync('go', ['build', '-o', binary, '.'], { cwd: root, stdio: 'inherit' });
  browser = await chromium.launch({ executablePath: chrome, args: ['--no-sandbox'] });
});

after(async () => {
  await browser?.close();
  rmSync(dir, { recursive: true, force: true });
});

beforeEach(async () => {
  context = await browser.newContext();
  page = await context.newPage();
  complaints = [];
  page.on('pageerror', (e) => complaints.push(String(e)));
  page.on('console', (m) => {
    if (/Content Security Policy|Refused to/.test(m.text())) complaints.push(m.text());
  });
});

afterEach(() => context.close());

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

/** Starts a gateway on port with its data in data; resolves when it announced itself. */
async function startGateway(t, port, data) {
  const child = spawn(binary, ['--listen', `127.0.0.1:${port}`, '--admin-listen', '', '--broker', `embedded:${data}`, '--drain', '2s'], { stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = once(child, 'exit');
  t.after(async () => {
    child.kill('SIGKILL');
    await ended;
  });
  let link;
  for await (const line of createInterface({ input: child.stdout })) {
    link ??= line.match(/http:\S+#\S+/)?.[0];
    if (line.includes('-d ')) break;
  }
  const token = new URLSearchParams(new URL(link).hash.slice(1)).get('token');
  return { url: `http://127.0.0.1:${port}`, link, token, child, ended };
}

async function publish(gateway, channel, ...events) {
  const response = await fetch(`${gateway.url}/v1/channels/${channel}/events`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', Authorization: `Bearer ${gateway.token}` },
    body: JSON.stringify(events),
  });
  assert.equal(response.status, 200, await response.text());
}

const status = (text) => page.getByRole('status').filter({ hasText: text }).waitFor();
const shown = () => page.locator('#events li:not(.note) .type').allTextContents();

async function untilShown(expected) {
  await page.waitForFunction((n) => document.querySelectorAll('#events li:not(.note)').length >= n, expected.length);
  assert.deepEqual(await shown(), expected); // newest first
}

test('the printed link shows events live, and goes on after the gateway was killed', { timeout: 90_000 }, async (t) => {
  const port = await freePort();
  const data = join(dir, 'killed');
  let gateway = await startGateway(t, port, data);
  await page.goto(gateway.link);
  await status('Live on acct-42');
  assert.equal(page.url(), `${gateway.url}/`, 'the token stays in the address bar');

  await publish(gateway, 'acct-42', { type: 'email.opened', subject: '<b>alice</b>', data: { ip: '203.0.113.7' } });
  await untilShown(['email.opened']);
  assert.equal(await page.locator('#events .subject').textContent(), '<b>alice</b>');
  assert.match(await page.locator('#events pre').textContent(), /"ip": "203\.0\.113\.7"/);

  gateway.child.kill('SIGKILL');
  await gateway.ended;
  await status('Reconnecting…');
  gateway = await startGateway(t, port, data);
  // Published while the page may not be back yet: it resumes where it was.
  await publish(gateway, 'acct-42', { type: 'email.clicked' }, { type: 'email.bounced' });
  await untilShown(['email.bounced', 'email.clicked', 'email.opened']);
  await status('Live on acct-42');
  assert.equal(await page.locator('#count').textContent(), '3');
  assert.deepEqual(complaints, []);
});

test('the form listens to what it says, and a refusal is told', { timeout: 60_000 }, async (t) => {
  const gateway = await startGateway(t, await freePort(), join(dir, 'form'));
  await publish(gateway, 'mail.eu', { type: 'email.opened' }, { type: 'mailshot.completed' });
  await page.goto(gateway.url);
  assert.equal(await page.getByRole('status').textContent(), 'Not connected');

  // All of it by the keyboard.
  await page.getByLabel('Channel').fill('mail.eu');
  await page.keyboard.press('Tab');
  await page.keyboard.type('mailshot.*');
  await page.getByLabel('From').selectOption('earliest');
  await page.getByLabel('Token').fill('nonsense');
  await page.keyboard.press('Enter');
  await page.getByRole('alert').filter({ hasText: 'token is malformed' }).waitFor();
  await status('Refused');

  await page.getByLabel('Token').fill(gateway.token);
  await page.keyboard.press('Enter');
  await status('Live on mail.eu');
  await untilShown(['mailshot.completed']);
  assert.equal(await page.getByRole('alert').isVisible(), false);

  await page.getByRole('button', { name: 'Stop' }).click();
  await status('Not connected');
  await page.getByRole('button', { name: 'Clear' }).click();
  assert.deepEqual(await shown(), []);
  assert.deepEqual(complaints, []);
});
