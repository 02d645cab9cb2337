/**
 * The behaviour suite's driver: orders on stdin, what happens on stdout, one
 * JSON object a line; see docs/protocol.md, "For client authors". The argument,
 * if any, is the transport.
 */
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import { Longline, Reject, nodeCallback } from '../../src/index.js';

const say = (told, more) => process.stdout.write(JSON.stringify({ told, ...more }) + '\n');
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function handle({ id, data }, { attempt, redelivered, transport }) {
  say('begin', { id, attempt, redelivered, transport });
  const { do: what, ms, times } = data ?? {};
  if (what === 'slow') await sleep(ms);
  const outcome = what === 'reject' ? 'rejected' : what === 'fail' && attempt <= times ? 'failed' : 'done';
  say('end', { id, outcome });
  if (outcome === 'rejected') throw new Reject('rejected by the story');
  if (outcome === 'failed') throw new Error('failed by the story');
}

let subscription;
for await (const line of createInterface({ input: process.stdin })) {
  const { do: what, url, token_file: path, subscription: name, consumer, channels, since, concurrency = 1, secret } = JSON.parse(line);
  const client = new Longline(url, {
    token: () => readFileSync(path, 'utf8'), transport: process.argv[2], backoff: { min: 50, max: 1000 }, warn() {},
  });
  const options = {
    concurrency, retry: { min: 50 },
    onState: ({ state }) => say('state', { phase: state }),
    onGap: ({ reason }) => say('gap', { reason }),
    onReject: ({ id }) => say('reject', { id }),
    onPartitions: ({ partitions }) => say('partitions', { partitions }),
    ...(consumer && { consumer }),
  };
  const follow = (made) => {
    subscription = made;
    made.closed.then(() => say('ended', { code: '' }), ({ code }) => say('ended', { code }));
  };
  if (what === 'close') subscription.close();
  else if (what === 'attach') follow(client.attach(name, handle, options));
  else if (what === 'subscribe') follow(client.subscribe({ channels, since }, handle, options));
  else if (what === 'serve') {
    const server = createServer(nodeCallback(handle, secret, { concurrency }));
    server.listen(0, '127.0.0.1', () => say('serving', { url: `http://127.0.0.1:${server.address().port}/` }));
  }
}
process.exit();
