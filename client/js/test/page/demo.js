/** The demo as a process, for its test and its picture. */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

export const chrome = [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find((p) => p && existsSync(p));

/** Starts it; resolves to its page's address and to what ends it, as Ctrl-C does. */
export async function startDemo() {
  const dir = mkdtempSync(join(tmpdir(), 'longline-demo-'));
  const binary = process.env.LONGLINE_BINARY ?? join(dir, 'longline');
  if (!process.env.LONGLINE_BINARY) execFileSync('go', ['build', '-o', binary, '.'], { cwd: new URL('../../../../', import.meta.url).pathname, stdio: 'inherit' });
  const child = spawn(binary, ['demo', '--listen', '127.0.0.1:0'], { stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = once(child, 'exit');
  const stop = async () => {
    child.kill('SIGINT');
    const [code] = await ended;
    rmSync(dir, { recursive: true, force: true });
    return code;
  };
  for await (const line of createInterface({ input: child.stdout })) {
    const url = line.match(/http:\S+/)?.[0];
    if (url) return { url, stop };
  }
  throw new Error('the demo said no address');
}
