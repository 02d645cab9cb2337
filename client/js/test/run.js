/**
 * Runs everything: size and freshness of what gateways serve, types, and all
 * tests, against one gateway binary. Arguments name test files instead of all.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const home = fileURLToPath(new URL('..', import.meta.url));
const dir = mkdtempSync(join(tmpdir(), 'longline-js-'));
const binary = join(dir, 'longline');

function run(command, args, options) {
  const { status } = spawnSync(command, args, { cwd: home, stdio: 'inherit', ...options });
  if (status === 0) return;
  rmSync(dir, { recursive: true, force: true });
  process.exit(status ?? 1);
}

const files = process.argv.slice(2);
if (!files.length) {
  for (const name of readdirSync(join(home, 'test'), { recursive: true })) if (name.endsWith('.test.js')) files.push(join('test', name));
}

run(process.execPath, ['build.js', '--check']);
run(process.execPath, ['node_modules/typescript/bin/tsc', '-p', '.']);
run(process.execPath, ['cjs.js']);
run('go', ['build', '-o', binary, '.'], { cwd: join(home, '../..') });
run(process.execPath, [
  '--experimental-websocket', // Node 20 has it behind a flag
  '--test', '--test-concurrency=3', '--test-reporter=spec', ...files,
], { env: { ...process.env, LONGLINE_BINARY: binary } });
rmSync(dir, { recursive: true, force: true });
