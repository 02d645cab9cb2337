/**
 * How many events a second the client takes from one connection with a handler
 * that does nothing: 300 bytes each, fed from memory as a WebSocket and as an
 * event stream. `npm run bench`.
 */
import { Longline } from './src/index.js';

const COUNT = 300_000;
const WINDOW = 4096;

const frames = Array.from({ length: COUNT }, (_, i) => {
  const event = {
    specversion: '1.0', id: `0198f2aa-1c5e-7d40-9a51-${i}`, source: '/mailshots/42', type: 'email.opened',
    time: '2026-11-22T13:31:00.123Z', subject: `user-${i % 5000}@example.com`, partitionkey: `user-${i % 5000}@example.com`,
    channel: 'acct-42', cursor: `acct-42@k3f9zq-${i + 1}`, data: { ip: '203.0.113.7' },
  };
  return JSON.stringify(event);
});
const hello = { connection: 'c', session: 'durable', cursor: 'acct-42@k3f9zq-0', window: WINDOW, heartbeat_ms: 25_000 };
const offset = (position) => Number(position.slice(position.lastIndexOf('-') + 1));

/** Like the gateway: never more than the window beyond what is acknowledged. */
class Feeder {
  acked = 0;
  sent = 0;
  acks = 0;
  constructor(deliver) { this.deliver = deliver; }
  ack(position) {
    this.acked = offset(position);
    this.acks++;
    this.feed();
  }
  feed() {
    const to = Math.min(COUNT, this.acked + WINDOW);
    if (to > this.sent) this.deliver(frames.slice(this.sent, this.sent = to));
  }
}

async function measure(name, { concurrency, ...options }, connect) {
  let handled = 0;
  const line = new Longline('http://gateway.test', options);
  const began = performance.now();
  const cpu = process.cpuUsage();
  const subscription = line.attach('s', () => { handled++; }, { concurrency, window: WINDOW });
  const feeder = await connect;
  while (feeder.acked < COUNT) await new Promise((resolve) => setTimeout(resolve, 5));
  const seconds = (performance.now() - began) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  console.log(`${name}: ${Math.round(handled / seconds)} events/s (${Math.round(handled / ((user + system) / 1e6))} per second of processor time), ${(feeder.acks / seconds).toFixed(1)} acknowledgements/s, ${Math.round(process.memoryUsage().heapUsed / 2 ** 20)} MiB heap`);
  await subscription.close();
}

for (const concurrency of [1, 8]) {
  let connected;
  const connect = new Promise((resolve) => { connected = resolve; });
  await measure(`WebSocket, concurrency ${concurrency}`, {
    concurrency,
    WebSocket: class {
      constructor() {
        const feeder = new Feeder((texts) => { for (const data of texts) this.onmessage?.({ data }); });
        this.send = (text) => {
          const { op, cursor } = JSON.parse(text);
          if (op === 'ack') queueMicrotask(() => feeder.ack(cursor));
        };
        setImmediate(() => {
          this.onmessage({ data: JSON.stringify({ op: 'hello', ...hello }) });
          feeder.feed();
          connected(feeder);
        });
      }
      close() {}
    },
  }, connect);
}

let connected;
const connect = new Promise((resolve) => { connected = resolve; });
await measure('SSE, concurrency 1', {
  concurrency: 1,
  transport: 'sse',
  async fetch(url, { method, body, signal }) {
    if (method === 'POST') {
      (await connect).ack(JSON.parse(body).cursor);
      return Response.json({});
    }
    const encoder = new TextEncoder();
    const stream = new ReadableStream({
      start(controller) {
        signal.addEventListener('abort', () => controller.error(signal.reason));
        const feeder = new Feeder((texts) => {
          for (let i = 0; i < texts.length; i += 100) controller.enqueue(encoder.encode(texts.slice(i, i + 100).map((text) => `id: x\ndata: ${text}\n\n`).join('')));
        });
        controller.enqueue(encoder.encode(`event: longline.hello\ndata: ${JSON.stringify(hello)}\n\n`));
        feeder.feed();
        connected(feeder);
      },
    });
    return new Response(stream, { headers: { 'content-type': 'text/event-stream' } });
  },
}, connect);
