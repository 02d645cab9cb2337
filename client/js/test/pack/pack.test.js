// The package as npm has it, in a folder that knows nothing of this one.
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';

const home = fileURLToPath(new URL('../..', import.meta.url));
let dir;
const run = (command, ...args) => execFileSync(command, args, { cwd: dir, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
const write = (name, text) => writeFileSync(join(dir, name), text);

before(() => {
  dir = mkdtempSync(join(tmpdir(), 'longline-pack-'));
  const [{ filename, files }] = JSON.parse(execFileSync('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', dir],
    { cwd: home, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }));
  // `npm test` has made them; `npm publish` makes them by itself.
  assert.ok(files.some(({ path }) => path === 'types/index.d.ts'), 'no types: npm run types');
  assert.ok(!files.some(({ path }) => /test|node_modules/.test(path)), 'the package carries what nobody needs');
  write('package.json', '{"private":true,"type":"module"}');
  run('npm', 'install', '--offline', '--no-audit', '--no-fund', join(dir, filename));
});

after(() => rmSync(dir, { recursive: true, force: true }));

test('it brings nothing else with it', () => {
  const { packages } = JSON.parse(readFileSync(join(dir, 'package-lock.json'), 'utf8'));
  assert.deepEqual(Object.keys(packages).filter(Boolean), ['node_modules/longline']);
});

test('it is imported as ESM: the client, the callback handlers, the reader, the served module', () => {
  write('use.js', `
    import { Longline, ForbiddenError, verifyCallback, nodeCallback, fetchCallback } from 'longline';
    import { sse } from 'longline/sse';
    import { Longline as Served } from 'longline/longline.js';
    const names = [Longline, ForbiddenError, verifyCallback, nodeCallback, fetchCallback, sse].map((one) => one.name);
    console.log(names.join(), typeof Served);`);
  assert.equal(run(process.execPath, 'use.js').trim(), 'Longline,ForbiddenError,verifyCallback,nodeCallback,fetchCallback,sse function');
});

test('it is required as CommonJS', () => {
  write('use.cjs', `
    const { Longline, Reject, nodeCallback } = require('longline');
    const { sse } = require('longline/sse');
    console.log([Longline, Reject, nodeCallback, sse].map((one) => typeof one).join());`);
  assert.equal(run(process.execPath, 'use.cjs').trim(), 'function,function,function,function');
});

test('it installs from the repository, too', () => {
  run('npm', 'install', '--offline', '--no-audit', '--no-fund', '--no-save', '--ignore-scripts', '--prefix', join(dir, 'from-file'), `file:${home}`);
  write('from-file/use.mjs', `import { Longline } from 'longline'; console.log(typeof Longline);`);
  assert.equal(run(process.execPath, join(dir, 'from-file/use.mjs')).trim(), 'function');
});

const USE = `
  import { Longline, Reject, nodeCallback, type LonglineEvent } from 'longline';
  import { sse } from 'longline/sse';
  const line = new Longline('https://push.example.com');
  line.attach<{ ip: string }>('crm', ({ data }, { attempt, signal }) => { if (attempt > 3) throw new Reject(data?.ip ?? ''); }, { concurrency: 8 });
  line.attach('crm', (events) => { const all: LonglineEvent[] = events; }, { batch: { max: 10 } });
  export async function loop() {
    for await (const event of line.attach('crm')) { const id: string = event.id; }
    for await (const { data } of sse('https://x')) { const text: string = data; }
    return nodeCallback(() => {}, 'whsec_');
  }
  // @ts-expect-error: there is no such option
  line.attach('crm', () => {}, { concurency: 8 });`;

// Where there is neither the DOM's nor Node's types; node10 went with TypeScript 7.
for (const [name, file, compiler, options] of [
  ['node16, an ES module', 'a.mts', 'typescript', { module: 'node16', moduleResolution: 'node16' }],
  ['node16, CommonJS', 'b.cts', 'typescript', { module: 'node16', moduleResolution: 'node16' }],
  ['a bundler', 'c.ts', 'typescript', { module: 'esnext', moduleResolution: 'bundler' }],
  ['node10', 'd.ts', 'typescript5', { module: 'commonjs', moduleResolution: 'node10' }],
]) {
  test(`its types resolve for ${name}`, () => {
    write(file, USE);
    write('tsconfig.json', JSON.stringify({
      compilerOptions: { strict: true, exactOptionalPropertyTypes: true, noEmit: true, target: 'es2022', lib: ['es2022'], types: [], ...options }, files: [file],
    }));
    const { stdout } = spawnSync(process.execPath, [join(home, 'node_modules', compiler, 'bin/tsc'), '-p', '.', '--pretty', 'false'], { cwd: dir, encoding: 'utf8' });
    assert.equal(stdout, '');
  });
}

const TSCONFIG = {
  compilerOptions: { strict: true, noEmit: true, module: 'nodenext', target: 'es2022', lib: ['es2022', 'dom', 'dom.iterable', 'dom.asynciterable'], types: [] },
};
/** Compiles the files, by name; resolves with what the compiler says of them. */
const tsc = (files) => {
  for (const [name, text] of Object.entries(files)) write(name, text);
  write('tsconfig.json', JSON.stringify({ ...TSCONFIG, files: Object.keys(files) }));
  const compiler = join(home, 'node_modules/typescript/bin/tsc');
  return spawnSync(process.execPath, [compiler, '-p', '.', '--pretty', 'false'], { cwd: dir, encoding: 'utf8' }).stdout;
};

test('it is typed: what the guide shows compiles under strict', () => {
  const said = tsc({ 'use.ts': `
    import { Longline, Reject, UnauthorizedError, verifyCallback, nodeCallback, fetchCallback,
      type LonglineEvent, type Subscription, type Gap, type Delivery } from 'longline';
    import { sse, type Message } from 'longline/sse';

    const line = new Longline('https://push.example.com', { token: async () => 'jwt', transport: 'sse' });
    const live: Subscription = line.subscribe({ channels: ['acct-42'], types: ['email.*'], since: new Date() },
      (event) => { const type: string = event.type; console.log(type, event.data.ip); });
    const durable = line.attach('crm-42', async (event, { attempt, signal }) => {
      const again: boolean = attempt > 1 && !signal.aborted;
      console.log(again, event.partitionkey);
    }, { concurrency: 4, window: 512, retry: { attempts: 3 }, onGap: (gap: Gap) => console.log(gap.reason) });
    line.attach<{ ip: string }>('crm-42', ({ data }, delivery: Delivery) => { if (!data?.ip.length) throw new Reject('no ip'); });
    line.attach('crm-42', (events) => { const all: LonglineEvent[] = events; }, { batch: { max: 200, wait: 1000 } });

    for await (const event of line.attach<number>('crm-42', null, { window: 10 })) { const id: string = event.id; const n: number | undefined = event.data; }
    // @ts-expect-error: an event is typed, in a loop as well
    for await (const event of line.attach('crm-42')) event.tpye;
    await live.closed.catch((reason) => { if (reason instanceof UnauthorizedError && reason.retry) console.log(reason.code, reason.retryAfter, reason.cause); });
    const { cursor, duplicate } = await line.publish('acct-42', { type: 'a', data: {}, traceparent: '00' });
    const [first] = await line.publish('acct-42', [{ type: 'a' }]);
    const got: LonglineEvent | LonglineEvent[] = await verifyCallback(new Headers(), 'body', 'whsec_');
    const respond: (request: Request) => Promise<Response> = fetchCallback(durable, ['whsec_1', 'whsec_2']);
    const node = nodeCallback((event: LonglineEvent) => {}, 'whsec_');
    for await (const { type, data, id } of sse('https://x', { method: 'POST', headers: { a: 'b' }, lastEventId: '7' })) {
      const message: Message = { type, data, id };
    }
    console.log(cursor.length, duplicate, first.id, got, respond, node, durable.position, durable.state);` });
  assert.equal(said, '');
});

test('its types refuse what is wrong', () => {
  const wrong = [
    `new Longline();`,
    `new Longline('x').subscribe({});`,
    `new Longline('x').subscribe({ channels: 'a' });`,
    `new Longline('x').subscribe({ channels: ['a'] }, (event) => event.tpye);`,
    `new Longline('x').publish('a', { data: 1 });`,
    `new Longline('x', { token: 7 });`,
  ];
  const said = tsc(Object.fromEntries(wrong.map((text, i) => [`wrong${i}.ts`, `import { Longline } from 'longline'; ${text}`])));
  wrong.forEach((text, i) => assert.match(said, new RegExp(`wrong${i}\\.ts.*error TS`), text));
});
