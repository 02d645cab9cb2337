// Runs the script of the page at the URL in the argument, as it stands there,
// with as much of a browser as it uses, and prints what the page would show.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const [, , origin] = process.argv;
const { fetch } = globalThis;
globalThis.fetch = (url, init) => fetch(new URL(url, origin), { ...init, headers: { ...init?.headers, origin } });
globalThis.document = {
  createElement: () => ({}),
  getElementById: (id) => ({
    set textContent(text) { console.log(`${id} ${text}`); },
    prepend: ({ textContent }) => console.log(`${id} ${textContent}`),
  }),
};

const page = await (await fetch(origin)).text();
const script = page.match(/<script type="module">(.*?)<\/script>/s)[1];
const { gateway } = await (await fetch(`${origin}/gateway`)).json();
const dir = mkdtempSync(join(tmpdir(), 'longline-page-'));
try {
  // Node imports files only.
  const sdk = await fetch(`${gateway}/longline.js`, { headers: { origin } });
  if (!['*', origin].includes(sdk.headers.get('access-control-allow-origin'))) throw new Error('the gateway lets no such page use it');
  writeFileSync(join(dir, 'longline.mjs'), await sdk.text());
  writeFileSync(join(dir, 'page.mjs'), script.replace('`${gateway}/longline.js`', "'./longline.mjs'"));
  await import(join(dir, 'page.mjs'));
} finally {
  rmSync(dir, { recursive: true });
}
