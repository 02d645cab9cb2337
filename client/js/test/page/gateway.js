// A real gateway, a real browser and a receiver of callbacks, for the tests of
// the gateway's pages and for their pictures.
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { createServer as listen } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const root = new URL('../../../../', import.meta.url).pathname;
const chrome = [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find((p) => p && existsSync(p));

/** What a file of tests shares: a directory, the gateway's binary, a browser. */
export async function bench() {
  const dir = mkdtempSync(join(tmpdir(), 'longline-page-'));
  const binary = process.env.LONGLINE_BINARY ?? join(dir, 'longline');
  if (!process.env.LONGLINE_BINARY) execFileSync('go', ['build', '-o', binary, '.'], { cwd: root, stdio: 'inherit' });
  const browser = await chromium.launch({ executablePath: chrome, args: ['--no-sandbox'] });
  return { dir, binary, browser, end: async () => {
    await browser.close();
    rmSync(dir, { recursive: true, force: true });
  } };
}

export async function freePort() {
  const server = listen().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

/** How a gateway says that it answers. */
const up = /msg=serving/;

/**
 * Starts a gateway on port; resolves when it answers. Its data are in a
 * directory, where it makes a key of its own, or on Redis, by a key that is given.
 */
export async function startGateway(binary, port, data, { args = [] } = {}) {
  const embedded = !data.startsWith('redis');
  const keys = { LONGLINE_JWT_SECRET: 'a secret of more than thirty-two bytes', LONGLINE_SECRET_KEY: Buffer.alloc(32, 7).toString('base64') };
  const env = { ...process.env, ...!embedded && keys };
  const child = spawn(binary, ['--listen', `127.0.0.1:${port}`, '--admin-listen', '', '--broker', embedded ? `embedded:${data}` : data, '--drain', '2s', ...args,
    ...embedded ? [] : ['--callback-allow-cidr', '127.0.0.0/8']], { env, stdio: ['ignore', 'pipe', 'pipe'] });
  const ended = once(child, 'exit');
  let said = '';
  await new Promise((resolve, reject) => {
    const hear = (piece) => {
      said += piece;
      if (up.test(said) && (!embedded || said.includes('-d '))) resolve();
    };
    child.stdout.on('data', hear);
    child.stderr.on('data', hear);
    child.on('exit', (status) => reject(new Error(`the gateway ended with ${status}: ${said}`)));
  });
  const token = embedded ? new URLSearchParams(new URL(said.match(/http:\S+#\S+/)[0]).hash.slice(1)).get('token')
    : execFileSync(binary, ['token', '--sub', 'ops', '--admin', '--ttl', '1h'], { env, encoding: 'utf8' }).trim();
  const link = `http://127.0.0.1:${port}/#token=${token}&channel=acct-42`;
  const url = `http://127.0.0.1:${port}`;
  const kill = async () => {
    child.kill('SIGKILL');
    await ended;
  };
  return {
    url, link, token, kill,
    /** Calls the API; anything but a yes is an error. */
    async call(method, path, body) {
      const response = await fetch(url + path, { method, headers: { 'Content-Type': 'application/json', Authorization: `Bearer ${token}` }, body: body && JSON.stringify(body) });
      const text = await response.text();
      if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
      return text ? JSON.parse(text) : undefined;
    },
    async publish(channel, ...events) {
      return (await this.call('POST', `/v1/channels/${channel}/events`, events)).events;
    },
  };
}

/** A receiver of callbacks that answers what answer(event) says: [status, body]. */
export async function receiver(answer) {
  const got = [];
  const server = createServer(async (request, response) => {
    let text = '';
    for await (const piece of request) text += piece;
    const event = JSON.parse(text);
    got.push(event);
    const [status, body = ''] = answer(event, got.length);
    response.writeHead(status).end(body);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { url: `http://127.0.0.1:${server.address().port}/longline`, got, close: () => {
    server.closeAllConnections();
    server.close();
  } };
}

/**
 * Collects what must not happen on a page: errors, what the policy refused, and
 * requests to anywhere but the gateway.
 */
export function watch(page) {
  const complaints = [];
  let home;
  page.on('pageerror', (e) => complaints.push(String(e)));
  page.on('console', (m) => {
    if (/Content Security Policy|Refused to/.test(m.text())) complaints.push(m.text());
  });
  page.on('request', (r) => {
    const { origin, protocol } = new URL(r.url());
    home ??= origin;
    if (origin !== home && protocol !== 'data:') complaints.push(`a request left the gateway: ${r.url()}`);
  });
  return complaints;
}

/** Asks until it is so. */
export async function until(so, what) {
  for (const end = Date.now() + 20_000; Date.now() < end;) {
    if (await so()) return;
    await new Promise((done) => setTimeout(done, 50));
  }
  throw new Error(`waited in vain: ${what}`);
}
