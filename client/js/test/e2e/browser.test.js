import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { after, before, describe, test } from 'node:test';
import { chromium } from 'playwright-core';
import { Control } from './control.js';
import { scenarios } from './suite.js';

/** What the page's own server has: the module as gateways serve it, and the scenarios. */
const FILES = {
  '/': ['text/html', '<!doctype html><title>Longline</title>'],
  '/longline.js': ['text/javascript', await readFile(new URL('../../dist/longline.js', import.meta.url))],
  '/suite.js': ['text/javascript', await readFile(new URL('suite.js', import.meta.url))],
};

let server;
let control;
let browser;
let page;

before(async () => {
  server = createServer((request, response) => {
    const [type, body] = FILES[request.url] ?? [];
    response.writeHead(type ? 200 : 404, { 'content-type': type ?? 'text/plain' });
    response.end(body);
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const origin = `http://127.0.0.1:${server.address().port}`;
  control = await Control.start({ origins: [origin] });
  browser = await chromium.launch({
    executablePath: '/usr/bin/chromium',
    args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
      '--disable-background-networking', '--disable-component-update', '--disable-sync'],
  });
  page = await browser.newPage();
  page.on('pageerror', (error) => console.error('in the page:', error));
  await page.exposeFunction('control', (method, args) => control[method](...args));
  await page.goto(origin);
});

after(async () => {
  await browser?.close();
  await control?.stop();
  server?.close();
});

for (const transport of ['websocket', 'sse']) {
  describe(`Chromium, ${transport}`, () => {
    for (const { name, only } of scenarios) {
      if (only && !only({ transport, browser: true })) continue;
      test(name, { timeout: 60_000 }, () => page.evaluate(async ({ name, transport, url }) => {
        const { scenarios } = await import('/suite.js');
        await scenarios.find((scenario) => scenario.name === name).run({
          url, transport, browser: true,
          sdk: await import('/longline.js'),
          control: (method, ...args) => window.control(method, args),
        });
      }, { name, transport, url: control.url }));
    }
  });
}
