/** Makes what `require` gets: src/ as CommonJS in cjs/, and its types (made before) once more, for those who resolve them as such. */
import { cpSync, rmSync, writeFileSync } from 'node:fs';
import { build } from 'esbuild';

const path = (/** @type {string} */ name) => new URL(name, import.meta.url).pathname;

await build({
  entryPoints: { index: path('src/index.js'), sse: path('src/sse.js') },
  outdir: path('cjs'),
  outExtension: { '.js': '.cjs' },
  bundle: true,
  format: 'cjs',
  target: 'es2022',
  logLevel: 'warning',
});
rmSync(path('cjs/types'), { recursive: true, force: true });
cpSync(path('types'), path('cjs/types'), { recursive: true });
writeFileSync(path('cjs/types/package.json'), '{"type":"commonjs"}\n');
