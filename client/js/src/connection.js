import { backoff, sleep } from './backoff.js';
import { ConnectionError, LonglineError, UnauthorizedError, closeError } from './errors.js';
import { eventStream } from './eventstream.js';
import { connection } from './stream.js';
import { webSocket } from './websocket.js';

/** @typedef {import('./wire.js').Control} Control */
/** @typedef {import('./wire.js').LonglineEvent} LonglineEvent */

/** A connection that lasted so long, in ms, was a good one: waiting starts over. */
const STEADY = 5000;
/** The close code of a replay that has come to its end. */
const COMPLETE = 1000;
/** How long an answer to a ping may take, in ms, and how often to look at the clock. */
const PATIENCE = 3000;
/** What tells a page that it may have been asleep, or the network away. */
const WAKE = ['online', 'visibilitychange'];

/**
 * Whom the connection serves. Calls come one after another.
 * @typedef {object} Owner
 * @property {string} [name] of the durable subscription
 * @property {boolean} [failFast] the first connection shall succeed, or none be tried
 * @property {() => import('./types.js').Query} query what to ask for now
 * @property {(frame: LonglineEvent | Control) => void} frame
 * @property {() => Promise<void> | void} room resolves when more events can be taken
 * @property {(state: 'connecting' | 'waiting', detail: any) => void} state
 */

/**
 * Keeps one line to the gateway: finds the transport that works, renews the
 * token, notices silence, and comes back until an error is final.
 */
export class Connection {
  /** Another number for each line, and for the time between two. */
  link = 0;
  #access;
  #owner;
  /** @type {import('./websocket.js').Link | undefined} */
  #line;
  /** @type {((error: LonglineError) => void) | undefined} ends the present line */
  #end;
  /** Whether the gateway has said a word: hello, or that another consumer is attached. */
  #greeted = false;
  /** By which the present connection is, or the last was. */
  transport = '';
  #stopped = false;
  /** When something last came, and when the gateway was last asked for it, by the wall clock. */
  #seen = 0;
  #asked = 0;
  /** How long silence is no news, in ms. */
  #heartbeat = 0;
  /** WebSocket doesn't get through, and SSE does: which stays so until that fails, too. */
  #blocked = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #look;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #renewal;
  #nap = new AbortController();

  /**
   * @param {import('./access.js').Access} access
   * @param {Owner} owner
   */
  constructor(access, owner) {
    this.#access = access;
    this.#owner = owner;
  }

  /** Connects until the end. Resolves with the final error, or with nothing after `stop` and after a replay. */
  async run() {
    const over = new AbortController();
    for (const type of WAKE) {
      // Both pass the window, which Node hasn't.
      globalThis.addEventListener?.(type, () => this.#awake(type), { capture: true, signal: over.signal });
    }
    /** @type {LonglineError | undefined} */
    let error;
    for (let attempt = 0, first = this.#owner.failFast; ; first = false) {
      await this.#owner.room();
      if (this.#stopped) break;
      this.#owner.state('connecting', { error });
      const began = Date.now();
      error = await this.#once();
      // A token that was good may have run out: a new one shall try.
      const renew = this.#greeted && this.#access.renewable && error instanceof UnauthorizedError;
      if (this.#stopped || !error.retry && !renew || first && !this.#greeted) break;
      if (this.#greeted && Date.now() - began > STEADY) attempt = 0;
      const wait = error.retryAfter ?? backoff(attempt++, this.#access.options.backoff);
      this.#owner.state('waiting', { error, wait });
      this.#nap = new AbortController();
      await sleep(wait, this.#nap.signal);
    }
    over.abort();
    if (!this.#stopped && error?.status !== COMPLETE) return error;
  }

  /**
   * Sends a frame; returns false where the line can't, or there is none.
   * A promise it returns resolves when the frame has arrived.
   * @param {Control} frame
   */
  send(frame) {
    return this.#greeted && this.#line?.send(frame);
  }

  /**
   * Breaks the line; another is made, or, if the error is final, none.
   * @param {LonglineError} error
   */
  drop(error) {
    this.#end?.(error);
  }

  /** Ends for good. */
  stop() {
    this.#stopped = true;
    this.#nap.abort();
    this.drop(connection('closed'));
  }

  /** One connection, over whichever transport gets through. Resolves with how it ended. */
  async #once() {
    this.#greeted = false;
    let token;
    try {
      token = await this.#access.token(true);
    } catch (cause) {
      return connection('no token', cause);
    }
    if (this.#stopped) return connection('closed');
    const { transport, WebSocket = globalThis.WebSocket } = this.#access.options;
    const both = !transport && WebSocket && !this.#blocked;
    if (both || transport === 'websocket') {
      const error = await this.#carry(webSocket, token);
      // Not a word from the gateway: perhaps something between us swallows WebSockets.
      if (!both || this.#greeted || this.#stopped || !(error instanceof ConnectionError)) return error;
    }
    const error = await this.#carry(eventStream, token);
    this.#blocked = this.#greeted;
    return error;
  }

  /**
   * @param {import('./websocket.js').Transport} transport
   * @param {string} token
   * @returns {Promise<LonglineError>}
   */
  #carry(transport, token) {
    return new Promise((resolve) => {
      const end = (/** @type {unknown} */ error) => {
        if (this.#end !== end) return;
        this.#end = undefined;
        clearTimeout(this.#look);
        clearTimeout(this.#renewal);
        this.#line?.close();
        this.#line = undefined;
        this.link++;
        resolve(connection('connection failed', error));
      };
      this.#end = end;
      this.transport = transport === webSocket ? 'websocket' : 'sse';
      this.link++;
      this.#seen = Date.now();
      this.#heartbeat = this.#access.options.timeout ?? 10_000;
      this.#listen();
      try {
        this.#line = transport(this.#access, token, this.#owner.query(), {
          seen: () => { this.#seen = Date.now(); },
          frame: (frame) => this.#frame(frame),
          room: async () => {
            this.#seen = Infinity;
            await this.#owner.room();
            this.#seen = Date.now();
          },
          end,
        }, this.#owner.name);
      } catch (error) {
        end(error);
      }
    });
  }

  /** @param {LonglineEvent | Control} frame */
  #frame(frame) {
    if (frame.op === 'bye') return this.drop(closeError(frame.code, frame.reason, frame));
    if (frame.op === 'hello' || frame.op === 'standby') {
      this.#greeted = true;
      // A heartbeat is left out where something was said since the one before; a WebSocket can be asked.
      this.#heartbeat = (frame.heartbeat_ms ?? 25_000) * (this.transport === 'sse' ? 2.1 : 1.2);
      clearTimeout(this.#renewal);
      this.#renewLater();
    }
    this.#owner.frame(frame);
  }

  /**
   * Looks after the line as long as it lasts: a silent one is asked, then
   * given up. By the wall clock, which goes on while the machine sleeps.
   */
  #listen() {
    clearTimeout(this.#look);
    const now = Date.now();
    if (now - this.#seen > this.#heartbeat) {
      if (!this.#greeted || this.#asked > this.#seen && now - this.#asked >= PATIENCE) {
        return this.drop(connection('the gateway is silent'));
      }
      if (this.#asked <= this.#seen) this.#ask();
    }
    this.#look = setTimeout(() => this.#listen(), Math.min(PATIENCE, this.#heartbeat));
  }

  /** Over SSE one can't ask, but for what comes late a moment is left as well. */
  #ask() {
    this.#asked = Date.now();
    return this.send({ op: 'ping', ref: 0 });
  }

  /** @param {string} type */
  #awake(type) {
    this.#nap.abort();
    if (!this.#greeted) return;
    if (this.#ask()) this.#seen = this.#asked - this.#heartbeat - 1; // it has to answer now
    else if (type === 'online') return this.drop(connection('network away', 0, { retryAfter: 0 }));
    this.#listen();
  }

  /** @param {number} [wait] ms */
  #renewLater(wait = (this.#access.expires() - Date.now()) * 0.8) {
    if (wait > 0) this.#renewal = setTimeout(() => this.#renew(), Math.min(wait, 2 ** 31 - 1));
  }

  /** Renews the token in place, or by a new connection where that can't be. */
  async #renew() {
    const { link } = this;
    try {
      const token = await this.#access.token(true);
      if (link !== this.link) return;
      if (this.send({ op: 'auth', ref: 0, token })) this.#renewLater();
      else this.drop(connection('token renewed', 0, { retryAfter: 0 }));
    } catch {
      // There is a fifth of its life left to try again in.
      this.#renewLater(PATIENCE);
    }
  }
}
