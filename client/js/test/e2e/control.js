/**
 * A real gateway to test against: started, killed and started again on the
 * same data, behind a proxy that can do to connections what networks do.
 */
import { spawn } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer as createHTTPServer } from 'node:http';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

export const SECRET = 'the gateway and its tests share this secret';
const base64 = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');

/** The gateway: made once for the whole test run, or else here. */
async function build(dir) {
  if (process.env.LONGLINE_BINARY) return process.env.LONGLINE_BINARY;
  const binary = join(dir, 'longline');
  const root = fileURLToPath(new URL('../../../..', import.meta.url));
  const [status] = await once(spawn('go', ['build', '-o', binary, '.'], { cwd: root, stdio: 'inherit' }), 'exit');
  if (status !== 0) throw new Error('the gateway does not build');
  return binary;
}

export class Control {
  /** Where clients connect: the proxy. Stays the same across restarts. */
  url = '';
  /** Whose pages may use the gateway. */
  origins = [];
  #dir = '';
  #binary = '';
  #process;
  #port = 0;
  #proxy;
  #mode = 'open';
  #sockets = new Set();
  #receivers = [];

  /** @param {{origins?: string[]}} [options] */
  static async start({ origins = [] } = {}) {
    const control = new Control();
    control.origins = origins;
    control.#dir = await mkdtemp(join(tmpdir(), 'longline-js-'));
    control.#binary = await build(control.#dir);
    control.#proxy = createServer((socket) => control.#forward(socket));
    await once(control.#proxy.listen(0, '127.0.0.1'), 'listening');
    control.url = `http://127.0.0.1:${control.#proxy.address().port}`;
    await control.up();
    return control;
  }

  /** Starts the gateway, if it doesn't run; resolves when it is ready. */
  async up() {
    if (this.#process) return;
    this.#process = spawn(this.#binary, [
      'serve', '--listen', '127.0.0.1:0', '--admin-listen', '', '--broker', `embedded:${join(this.#dir, 'data')}`,
      '--jwt-secret', SECRET, '--log-format', 'json', '--callback-allow-cidr', '127.0.0.0/8',
      ...this.origins.flatMap((origin) => ['--cors-origin', origin]),
    ], { stdio: ['ignore', 'inherit', 'pipe'] });
    const log = [];
    for await (const line of createInterface({ input: this.#process.stderr })) {
      log.push(line);
      const address = /"address":"127\.0\.0\.1:(\d+)"/.exec(line);
      if (address) {
        this.#port = Number(address[1]);
        break;
      }
    }
    if (!this.#port) throw new Error(`the gateway did not start:\n${log.join('\n')}`);
    this.#process.stderr.resume();
    for (;;) {
      const response = await fetch(`http://127.0.0.1:${this.#port}/readyz`).catch(() => undefined);
      if (response?.ok) return;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /** Kills the gateway on the spot. */
  async kill(signal = 'SIGKILL') {
    const process = this.#process;
    this.#process = undefined;
    this.#port = 0;
    process.kill(signal);
    if (process.exitCode === null && process.signalCode === null) await once(process, 'exit');
  }

  async stop() {
    for (const server of this.#receivers) server.close();
    this.#proxy.close();
    for (const socket of this.#sockets) socket.destroy();
    if (this.#process) await this.kill();
    await rm(this.#dir, { recursive: true, force: true });
  }

  /**
   * What the network does: "open"; "stall": connections there are go silent,
   * new ones don't; "noWebSocket": upgrades are refused, as some proxies do;
   * "swallow": upgrades are never answered; "down": there is none.
   * @param {string} mode
   */
  network(mode) {
    if (mode === 'down') this.cut();
    if (mode === 'stall') for (const socket of this.#sockets) socket.pause().removeAllListeners('data').unpipe();
    this.#mode = mode;
  }

  /** Breaks all connections. */
  cut() {
    for (const socket of this.#sockets) socket.destroy();
  }

  #forward(socket) {
    this.#sockets.add(socket);
    socket.on('close', () => this.#sockets.delete(socket));
    socket.on('error', () => {});
    socket.once('data', (head) => {
      socket.pause();
      const upgrade = /\r\nupgrade: websocket\r\n/i.test(head.toString('latin1'));
      if (upgrade && this.#mode === 'swallow') return;
      if (upgrade && this.#mode === 'noWebSocket') return socket.end('HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n');
      if (!this.#port || this.#mode === 'down') return socket.destroy();
      const target = connect(this.#port, '127.0.0.1', () => {
        target.write(head);
        socket.pipe(target).pipe(socket);
      });
      target.on('error', () => socket.destroy());
      target.on('close', () => socket.destroy());
      socket.on('close', () => target.destroy());
      this.#sockets.add(target);
      target.on('close', () => this.#sockets.delete(target));
    });
  }

  /**
   * Mints a token for everything, unless the claims say otherwise.
   * @param {object} [claims] of "longline"
   * @param {number} [ttl] s
   * @param {string} [sub]
   */
  token(claims = { subscribe: ['**'], publish: ['**'], subscriptions: ['*'] }, ttl = 3600, sub = 'tester') {
    const exp = Math.floor(Date.now() / 1000) + ttl;
    const signed = `${base64({ alg: 'HS256', typ: 'JWT' })}.${base64({ sub, exp, longline: claims })}`;
    return `${signed}.${createHmac('sha256', SECRET).update(signed).digest('base64url')}`;
  }

  /** Calls the gateway as an operator, past the proxy; resolves with the answer's JSON. */
  async request(method, path, body) {
    const response = await fetch(`http://127.0.0.1:${this.#port}${path}`, {
      method, body: body === undefined ? undefined : JSON.stringify(body),
      headers: { 'content-type': 'application/json', authorization: `Bearer ${this.token({ admin: true })}` },
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
    return text ? JSON.parse(text) : undefined;
  }

  /** Publishes; resolves with the results. */
  async publish(channel, events) {
    const { events: results } = await this.request('POST', `/v1/channels/${channel}/events`, events);
    return results;
  }

  /** A server for callbacks: answers 503 until it is told what to `use`. */
  async receiver() {
    const receiver = { url: '', calls: 0, use(handler) { handle = handler; } };
    let handle = (request, response) => response.writeHead(503).end();
    const server = createHTTPServer((request, response) => {
      receiver.calls++;
      handle(request, response);
    });
    await once(server.listen(0, '127.0.0.1'), 'listening');
    this.#receivers.push(server);
    receiver.url = `http://127.0.0.1:${server.address().port}/`;
    return receiver;
  }
}
