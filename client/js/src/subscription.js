import { Connection } from './connection.js';
import { errorFor } from './errors.js';
import { Inbox } from './inbox.js';
import { Iterate } from './iterate.js';
import { Ledger } from './ledger.js';
import { connection } from './stream.js';
import { move, parseCursor, text } from './wire.js';

/** @typedef {import('./errors.js').LonglineError} LonglineError */
/** @typedef {import('./inbox.js').Handler} Handler */
/** @typedef {import('./ledger.js').Entry} Entry */
/** @typedef {import('./wire.js').Control} Control */
/** @typedef {import('./wire.js').Gap} Gap */
/** @typedef {import('./wire.js').LonglineEvent} LonglineEvent */

/** @typedef {'connecting' | 'live' | 'standby' | 'waiting' | 'closed'} State */

/**
 * @typedef {object} What what to receive of which channels
 * @property {string[]} channels
 * @property {string[]} [types] patterns, e.g. "email.*"
 * @property {string | Date} [since] a position, "earliest", "latest" (default) or a time
 * @property {'catchup' | 'conflate' | 'latest' | 'close'} [lag] when this side can't keep up
 */

/**
 * @typedef {object} Listeners
 * @property {(detail: {state: State, error?: LonglineError, [about: string]: any}) => void} [onState]
 * @property {(gap: Gap) => void} [onGap] events that won't come
 * @property {(redelivery: {cursor: string}) => void} [onRedelivery] events up to there may have been handled before,
 *   by another consumer or a callback elsewhere
 * @property {(detail: {error: any, event?: LonglineEvent}) => void} [onError] an event was given up, or the
 *   gateway complained; without it, that is written to the console
 * @property {number} [window] how many events may be under way at once (ephemeral 1,024; durable as the subscription says)
 */

/** @typedef {import('./inbox.js').InboxOptions & Listeners} SubscribeOptions */
/** @typedef {SubscribeOptions & {consumer?: string}} AttachOptions consumer: who this is; another one stands by until
 *   this one is gone, the same one takes over. By default one's own for each attachment */

/** Acknowledgements go at most so often, in ms. */
const ACK_EVERY = 50;

/**
 * Events as they come, by a handler or by `for await`.
 * @implements {AsyncIterable<any>}
 */
export class Subscription {
  /** @type {State} */
  state = 'connecting';
  /**
   * Resolves when it is over: with the error that ended it, or with nothing
   * after `close`. Never rejects.
   * @type {Promise<LonglineError | undefined>}
   */
  closed;
  /** The queue before the handler: what callbacks feed too. */
  inbox;

  #name;
  #what;
  #options;
  #connection;
  #ledger = new Ledger();
  /** @type {Iterate | undefined} */
  #iterate;
  #acked = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} set from the first event done until all that are done are acknowledged */
  #timer;
  /** Whether the gateway ended the last line by "restart", as it does when the cursor was moved by hand. */
  #restarted = false;

  /**
   * @param {import('./access.js').Access} access
   * @param {What | undefined} what
   * @param {string | undefined} name of the durable subscription, instead of `what`
   * @param {Handler | undefined} handler
   * @param {AttachOptions} options
   */
  constructor(access, what, name, handler, options) {
    this.#name = name;
    this.#what = what;
    const { batch, concurrency = 1 } = options;
    this.#options = {
      consumer: random(),
      onError: (/** @type {any} */ { error }) => console.error('longline:', error),
      // A window smaller than what the handlers may hold would keep them waiting.
      window: batch && 2 * batch.max * concurrency,
      ...(what && { window: 1024, attempts: 1, remember: 0 }),
      ...options,
      ...(!handler && { concurrency: 1 }),
    };
    this.inbox = new Inbox(handler ?? (this.#iterate = new Iterate()).handler, this.#options);
    const window = this.#options.window ?? 0;
    this.#connection = new Connection(access, {
      name,
      query: () => this.#query(),
      frame: (frame) => this.#frame(frame),
      room: () => what && this.inbox.size > window ? this.inbox.until(window / 2) : undefined,
      state: (state, detail) => {
        this.#restarted = detail.error?.status === 1012;
        this.#enter(state, detail);
      },
    });
    this.closed = this.#connection.run().then((error) => {
      this.inbox.stop();
      this.#iterate?.stop();
      clearTimeout(this.#timer);
      this.#enter('closed', { error });
      return error;
    });
  }

  /** Everything up to here was handled: a `since` to go on from. */
  get position() {
    return text(this.#ledger.position);
  }

  /** @returns {AsyncGenerator<any, void, void>} asking for the next event says that the last one is done */
  [Symbol.asyncIterator]() {
    // With a handler there is nothing to iterate over: a TypeError.
    return /** @type {Iterate} */ (this.#iterate).values(this.closed, () => this.close());
  }

  /**
   * Takes no more events, lets running handlers end, acknowledges what they
   * did, and leaves. A handler must not wait for it.
   */
  async close() {
    this.inbox.stop();
    this.#iterate?.stop();
    await this.inbox.until(0);
    await this.#flush();
    this.#connection.stop();
    return this.closed;
  }

  /** The present connection, where it matters which one delivered an event. */
  get #link() {
    return this.#name && this.#connection.link;
  }

  /** What to ask for now. */
  #query() {
    const { consumer, window } = this.#options;
    const { channels = [], types, since, lag } = this.#what ?? {};
    const query = new URLSearchParams(channels.map((channel) => ['channel', channel]));
    const fields = this.#name
      // Received isn't done: over SSE a reconnect must acknowledge nothing.
      ? { subscription: this.#name, consumer, window, ack: 'manual' }
      : { types, since: text(this.#ledger.received) || (since instanceof Date ? since.toJSON() : since), lag };
    for (const [name, value] of Object.entries(fields)) if (value) query.set(name, `${value}`);
    return query;
  }

  /** @param {LonglineEvent | Control} frame */
  #frame(frame) {
    const { op, cursor } = frame;
    if (!op) this.#event(/** @type {LonglineEvent} */ (frame));
    else if (op === 'hello') {
      if (this.#name && this.#ledger.rebase(cursor, this.#restarted)) this.inbox.forget();
      this.#enter('live', frame);
    } else if (op === 'standby') this.#enter(op);
    else if (op === 'gap') this.#emit('Gap', frame);
    else if (op === 'redelivery') {
      // What was delivered comes again, be it on the same line.
      this.#ledger.received = move('');
      this.#emit('Redelivery', frame);
    }
    else if (op === 'error') this.#emit('Error', { error: errorFor(frame.code, frame.detail, { retryAfter: frame.retry_ms }) });
    if ((op === 'position' || op === 'hello') && this.#what) {
      move(cursor, this.#ledger.received);
      // What was left out is done with when nothing before it is open.
      if (!this.#ledger.listed.size) move(cursor, this.#ledger.position);
    }
  }

  /** @param {LonglineEvent} event */
  #event(event) {
    const { cursor = '' } = event;
    const known = this.#ledger.listed.get(cursor);
    /** @type {Entry} */
    const entry = known ?? {
      event, link: 0, late: false, ...parseCursor(cursor),
      settled: (error) => {
        entry.done = true;
        entry.error = error;
        if (error) this.#emit('Error', { error, event });
        this.#done(entry);
      },
    };
    entry.link = this.#link;
    this.#ledger.add(entry);
    if (known) return known.done && this.#done(known);
    this.inbox.add(entry);
    // A WebSocket can't be slowed down, only left until there is room again.
    if (this.#what && this.inbox.size > 2 * (this.#options.window ?? 0)) {
      this.#connection.drop(connection('slow handler', 0, { retryAfter: 0 }));
    }
  }

  /** @param {Entry} entry */
  #done(entry) {
    const { error, link } = entry;
    if (this.#name && error && link === this.#link) {
      this.#connection.send({ op: 'reject', cursor: `${entry}`, reason: `${error.message ?? error}`.slice(0, 1000) });
    }
    this.#soon();
  }

  #soon() {
    this.#timer ??= setTimeout(() => this.#flush(), this.#acked + ACK_EVERY - Date.now());
  }

  /** Acknowledges what is done. */
  async #flush() {
    clearTimeout(this.#timer);
    this.#acked = Date.now();
    const cursors = this.#ledger.take(this.#link);
    if (this.#name) for (const cursor of cursors) await this.#connection.send({ op: 'ack', cursor });
    this.#timer = undefined;
    // Over SSE it took a while: more may be done.
    if (cursors[0]) this.#soon();
  }

  /**
   * @param {State} state
   * @param {any} [detail]
   */
  #enter(state, detail) {
    this.state = state;
    this.#emit('State', { ...detail, state });
  }

  /**
   * @param {string} type
   * @param {any} detail
   */
  #emit(type, detail) {
    // By itself, since a listener that throws must not end in our code.
    queueMicrotask(() => /** @type {any} */ (this.#options)['on' + type]?.(detail));
  }
}

/** An id nobody else has; unlike crypto.randomUUID, also where the page came by plain HTTP. */
export function random() {
  return crypto.getRandomValues(new Uint32Array(4)).join('-');
}
