/**
 * Makes docs/img/demo.png and docs/img/demo.svg of the real page: a demo in
 * which the line is unplugged, a worker added and the gateway killed. The SVG is
 * twenty seconds of it, as frames that follow one another.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { chromium } from 'playwright-core';
import { chrome, startDemo } from './demo.js';

const out = new URL('../../../../docs/img/', import.meta.url).pathname;
const [width, height, scale] = [1120, 790, 0.72];
const SECONDS = 20, A_SECOND = 2; // of the film, and its frames
/** What is pressed in the film, by the second. */
const script = new Map([[2, 'Unplug the CRM’s line'], [7, 'Plug the line in'], [10, 'Add a second worker'], [14, 'kill -9 the gateway']]);

/** An SVG that shows frames (WebP, base64) one after another; those who want no motion see the last. */
function film(frames) {
  const seconds = frames.length / A_SECOND;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" role="img" aria-label="The demo's page for ${seconds} seconds">
<style>
g { animation: film ${seconds}s steps(${frames.length}) infinite }
@keyframes film { to { transform: translateY(-${frames.length * height}px) } }
@media (prefers-reduced-motion: reduce) { g { animation: none; transform: translateY(-${(frames.length - 1) * height}px) } }
</style>
<g>${frames.map((data, i) => `<image y="${i * height}" width="${width}" height="${height}" href="data:image/webp;base64,${data}"/>`).join('\n')}</g>
</svg>
`;
}

const demo = await startDemo();
const browser = await chromium.launch({ executablePath: chrome, args: ['--no-sandbox'] });
try {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: 'light' });
  const page = await context.newPage();
  const session = await context.newCDPSession(page);
  await page.goto(demo.url);
  await sleep(45_000); // until the webhooks' CRM has drowned
  const frames = [];
  for (let i = 0; i < SECONDS * A_SECOND; i++) {
    const next = sleep(1000 / A_SECOND);
    const press = i % A_SECOND === 0 && script.get(i / A_SECOND);
    if (press) await page.getByRole('button', { name: press }).click();
    const { data } = await session.send('Page.captureScreenshot', { format: 'webp', quality: 55, clip: { x: 0, y: 0, width, height, scale } });
    frames.push(data);
    await next;
  }
  await sleep(20_000);
  mkdirSync(out, { recursive: true });
  await page.screenshot({ path: `${out}demo.png` });
  writeFileSync(`${out}demo.svg`, film(frames));
} finally {
  await browser.close();
  await demo.stop();
}
