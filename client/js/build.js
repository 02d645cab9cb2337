/**
 * Bundles src/ into dist/longline.js, the one module that every gateway serves.
 * With --check it writes nothing, and fails where dist/ isn't what src/ makes
 * or is too large.
 */
import { readFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';

const LIMIT = 8 * 1024;
/** Names that only src/ uses, and never for anything of the platform. */
const INTERNAL = /^(renewable|handler|bearer|nap|expires|seen|room|settled|started|gone|twins|link|skip|take|rebase|until|forget|options|epoch|offset|lastEventId|merge|drop|frame|query|stop|fail|run|listed|late|received|limit|given|release|end|url|dispatcher|over|vouched|passes|company|allowed|unacknowledged|probing|probed|obeys|lane|taken|jobs|answered|blames|once|strike|gain|letters|history|tries|failed|idle|identity|timer|partition|late)$/;
/** What only servers need, and what stands in for it in a page. */
const LEFT_OUT = {
  'caller.js': 'export const refused = () => {}',
  'witness.js': 'export const spares = () => false, witness = spares',
  'pace.js': 'export class Pace { rest() {} take() {} }',
  'partition.js': 'export const partitionOf = () => {}, reassign = partitionOf, begin = partitionOf',
  'outbox.js': 'export const share = (outboxes, channel, letters, post) => post(letters)',
};
const check = process.argv.includes('--check');
const path = (/** @type {string} */ name) => new URL(name, import.meta.url).pathname;

const { outputFiles } = await build({
  entryPoints: [path('src/gateway.js')],
  outfile: path('dist/longline.js'),
  bundle: true,
  minify: true,
  mangleProps: INTERNAL,
  format: 'esm',
  target: 'es2022',
  charset: 'utf8',
  legalComments: 'none',
  write: false,
  plugins: [{
    name: 'page',
    setup(build) {
      build.onLoad({ filter: /src\/(caller|witness|pace|partition|outbox)\.js$/ }, ({ path }) => ({ contents: LEFT_OUT[basename(path)] }));
    },
  }],
});
const made = Buffer.from(outputFiles[0].contents);
const size = gzipSync(made, { level: 9 }).length;
console.log(`longline.js: ${made.length} bytes minified, ${size} with gzip (limit ${LIMIT})`);
if (size > LIMIT) {
  console.error('longline.js is too large');
  process.exit(1);
}
if (check) {
  const kept = await readFile(path('dist/longline.js')).catch(() => Buffer.alloc(0));
  if (!kept.equals(made)) {
    console.error('dist/longline.js is not what src/ makes: npm run build');
    process.exit(1);
  }
} else {
  const { mkdir, writeFile } = await import('node:fs/promises');
  await mkdir(path('dist'), { recursive: true });
  await writeFile(path('dist/longline.js'), made);
}
