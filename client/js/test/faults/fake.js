/**
 * A gateway in memory, for faults that a real one can't be made to show: the
 * client under test gets a WebSocket and a fetch that the test speaks through.
 */
import { Longline } from '../../src/index.js';

const { setTimeout } = globalThis; // the real one, whatever a test puts in its place

/** Lets everything that is ready run. */
export const settle = async () => { for (let i = 0; i < 20; i++) await new Promise(setImmediate); };

/** Resolves with what ended a subscription, or with nothing. */
export const ended = ({ closed }) => closed.then(() => undefined, (error) => error);

export function event(offset, more = {}) {
  return {
    specversion: '1.0', id: `e${offset}`, source: '/s', type: 't', channel: 'a', cursor: `a@k-${offset}`, ...more,
  };
}

export const HELLO = { op: 'hello', connection: 'c1', node: 'n', session: 'ephemeral', cursor: 'a@k-0', recovered: false, heartbeat_ms: 25_000 };
export const DURABLE = { ...HELLO, session: 'durable', subscription: 's', window: 256 };

/** A JWT without a signature, since nobody here verifies it. */
export const jwt = (exp) => `e30.${Buffer.from(JSON.stringify({ exp })).toString('base64url')}.x`;

export function fake(options) {
  /** Each connection that was tried, in order. */
  const lines = [];
  const posts = [];

  class WebSocket {
    sent = [];
    closed = false;
    constructor(url, protocols) {
      Object.assign(this, { url: new URL(url), protocols, kind: 'websocket' });
      lines.push(this);
    }
    send(text) { this.sent.push(JSON.parse(text)); }
    close() { this.closed = true; }
    say(...frames) { for (const frame of frames) this.onmessage?.({ data: typeof frame === 'object' ? JSON.stringify(frame) : frame }); }
    end(code = 1006, reason = '') { this.onclose?.({ code, reason }); }
  }

  async function fetch(url, init) {
    if (init.method === 'POST') {
      const post = { url: new URL(url), init, body: JSON.parse(init.body) };
      posts.push(post);
      return gateway.answer?.(post) ?? Response.json({});
    }
    const line = { kind: 'sse', url: new URL(url), init, closed: false };
    lines.push(line);
    return new Promise((resolve, reject) => {
      init.signal.addEventListener('abort', () => { line.closed = true; reject(init.signal.reason); });
      line.refuse = (status, body = '', headers = {}) => resolve(new Response(body, { status, headers }));
      line.fail = () => reject(new TypeError('fetch failed'));
      const body = new ReadableStream({
        start: (controller) => {
          line.write = (text) => controller.enqueue(new TextEncoder().encode(text));
          line.end = () => controller.close();
          init.signal.addEventListener('abort', () => controller.error(init.signal.reason));
        },
      }, { highWaterMark: 0 });
      const response = new Response(body, { headers: { 'content-type': 'text/event-stream' } });
      line.say = (...frames) => {
        resolve(response);
        for (const { op, ...data } of frames) {
          line.write(op ? `event: longline.${op}\ndata: ${JSON.stringify(data)}\n\n` : `id: ${data.cursor}\ndata: ${JSON.stringify(data)}\n\n`);
        }
      };
    });
  }

  const warnings = [];
  const gateway = {
    lines,
    /** What was told of trouble. */
    warnings,
    posts,
    /** The latest line, once there are at least `n`. */
    async line(n = lines.length || 1) {
      for (let i = 0; i < 1000 && lines.length < n; i++) await new Promise((resolve) => setTimeout(resolve, 2));
      if (lines.length < n) throw new Error(`${lines.length} lines were made, want ${n}`);
      return lines[n - 1];
    },
    client: new Longline('http://gateway.test/base/', {
      token: 'secret-token', backoff: { min: 0, max: 0 }, WebSocket, fetch, warn: (...about) => warnings.push(about), ...options,
    }),
  };
  return gateway;
}
