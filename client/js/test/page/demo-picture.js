/**
 * Makes docs/img/demo.png of the real page: a demo of a minute and a half, in
 * which the line is unplugged, a worker added and the gateway killed.
 */
import { mkdirSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { chromium } from 'playwright-core';
import { chrome, startDemo } from './demo.js';

const out = new URL('../../../../docs/img/demo.png', import.meta.url).pathname;
const demo = await startDemo();
const browser = await chromium.launch({ executablePath: chrome, args: ['--no-sandbox'] });
try {
  const page = await browser.newPage({ viewport: { width: 1120, height: 790 }, colorScheme: 'light' });
  await page.goto(demo.url);
  for (const [seconds, name] of [[25, 'unplug'], [20, 'plug'], [12, 'hire'], [12, 'kill'], [12, null]]) {
    await sleep(seconds * 1000);
    if (name) await fetch(`${demo.url}press/${name}`, { method: 'POST' });
  }
  mkdirSync(new URL('.', `file://${out}`), { recursive: true });
  await page.screenshot({ path: out });
} finally {
  await browser.close();
  await demo.stop();
}
