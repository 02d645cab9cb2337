import { Connection } from './connection.js';
import { Dispatcher } from './dispatcher.js';
import { errorFor } from './errors.js';
import { Iterate } from './iterate.js';
import { begin, partitionOf, reassign } from './partition.js';
import { connection } from './stream.js';
import { AckTracker } from './tracker.js';
import { rarely } from './warn.js';
import { move, parseCursor, text } from './wire.js';

/** @typedef {import('./errors.js').LonglineError} LonglineError */
/** @typedef {import('./dispatcher.js').Handler} Handler */
/** @typedef {import('./tracker.js').Entry} Entry */
/** @typedef {import('./wire.js').Control} Control */
/** @typedef {import('./wire.js').Gap} Gap */
/** @template [T=any] @typedef {import('./wire.js').LonglineEvent<T>} LonglineEvent */

/** @typedef {'connecting' | 'live' | 'standby' | 'waiting' | 'closed'} State */

/**
 * @typedef {object} Selection what to receive of which channels
 * @property {string[]} channels
 * @property {string[]} [types] patterns, e.g. "email.*"
 * @property {string | Date} [since] a position, "earliest", "latest" (default) or a time
 * @property {'catchup' | 'conflate' | 'latest' | 'close'} [lag] when this side can't keep up
 */

/**
 * Those of a group that events come of, out of `of`. The other members have the rest.
 * @typedef {{partitions: number[], of: number, members?: number}} Partitions
 */

/**
 * @typedef {object} Listeners
 * @property {(detail: {state: State, error?: LonglineError, partitions?: number[], of?: number, [about: string]: any}) => void} [onState]
 * @property {(gap: Gap) => void} [onGap] events that won't come
 * @property {(event: LonglineEvent, error: any) => void} [onReject] an event was set aside: the gateway keeps it as a
 *   dead letter; of an ephemeral subscription nobody else is told
 * @property {(partitions: Partitions) => void} [onPartitions] which of the group's are this consumer's
 * @property {number} [window] how many events may be under way at once (ephemeral 1,024; durable as the subscription says)
 * @property {boolean} [failFast] end with an error if the first attempt to connect fails, whatever the reason
 */

/** @typedef {import('./dispatcher.js').DispatcherOptions & Listeners} SubscribeOptions */
/** @typedef {SubscribeOptions & {consumer?: string}} AttachOptions consumer: who this is; another one stands by until
 *   this one is gone, the same one takes over. By default one's own for each attachment */

/** Acknowledgements go at most so often, in ms. */
const ACK_EVERY = 50;

const SELECTION = 'channels types since lag'.split(' ');
const OPTIONS = 'concurrency rate batch retry remember onState onGap onReject onPartitions window failFast consumer'.split(' ');

/**
 * Refuses what isn't known, since a typing error must not pass in silence.
 * @param {string} what
 * @param {any} given
 * @param {string[]} known
 */
function check(what, given, known) {
  for (const name in Object(given) === given ? given : { [typeof given]: 0 }) {
    if (!known.includes(name)) throw new TypeError(`${what}: got ${name}, want ${known}`);
  }
}

/**
 * Events as they come, by a handler or by `for await`.
 * @template [T=LonglineEvent]
 * @implements {AsyncIterable<T>}
 */
export class Subscription {
  /** @type {State} */
  state = 'connecting';
  /**
   * Resolves after `close`, and when a replay is complete; rejects with the error that ended it otherwise. An
   * error that nobody handles is an unhandled rejection: it ends Node.
   * @type {Promise<void>}
   */
  closed;
  /** The queue before the handler: what callbacks feed too. */
  dispatcher;
  /** Resolves when it is over, whatever ended it. */
  over;

  #name;
  #what;
  #options;
  #connection;
  #tracker = new AckTracker();
  #warn;
  /** @type {Iterate | undefined} */
  #iterate;
  #acked = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} set from the first event done until all that are done are acknowledged */
  #timer;
  /** When the cursor was last put somewhere by hand, as `hello` says. */
  #placed = '';
  /** Up to there events may have been handled before. */
  #again = move('');
  /** The group's partitions, and those that are ours; 0: there is no group. */
  #of = 0;
  /** @type {number[]} */
  #partitions = [];
  #replay = false;

  /**
   * @param {import('./access.js').Access} access
   * @param {Selection | undefined} what
   * @param {string | undefined} name of the durable subscription, instead of `what`
   * @param {Handler | null | undefined} handler
   * @param {AttachOptions} [options]
   * @param {unknown} [more] of which there shall be none
   */
  constructor(access, what, name, handler, options = {}, more) {
    if (more) throw new TypeError('too many arguments');
    if (handler && typeof handler !== 'function') throw new TypeError('the handler is no function');
    check('options', options, OPTIONS);
    if (what) check('selection', what, SELECTION);
    if (!what?.channels?.[0] && !name) throw new TypeError('no channels or name');
    this.#name = name;
    this.#what = what;
    this.#warn = rarely(access.warn);
    const { batch, concurrency = 1 } = options;
    this.#options = {
      consumer: random(),
      // A window smaller than what the handlers may hold would keep them waiting.
      window: batch && 2 * batch.max * concurrency,
      ...(what && { window: 1024, remember: 0 }),
      ...options,
      ...(!handler && { concurrency: 1 }),
    };
    this.dispatcher = new Dispatcher(handler ?? (this.#iterate = new Iterate()).handler, this.#options, this.#warn);
    this.dispatcher.unacknowledged = () => this.#tracker.listed.size;
    const window = this.#options.window ?? 0;
    this.#connection = new Connection(access, {
      name,
      failFast: options.failFast,
      query: () => this.#query(),
      frame: (frame) => this.#frame(frame),
      room: () => what && this.dispatcher.size > window ? this.dispatcher.until(window / 2) : undefined,
      state: (state, detail) => {
        // A gateway that says goodbye is no trouble.
        if (detail.wait && ![1001, 1012].includes(detail.error.status)) this.#warn('no connection, will try again', detail.error);
        this.#enter(state, detail);
      },
    });
    const run = this.#connection.run();
    this.over = run.then((error) => {
      this.dispatcher.stop();
      this.#iterate?.stop();
      clearTimeout(this.#timer);
      this.#enter('closed', { error });
    });
    this.closed = run.then((error) => {
      if (error) throw error;
    });
  }

  /** Everything up to here was handled: a `since` to go on from. In a group, ask the gateway. */
  get position() {
    return text(this.#tracker.position);
  }

  /** @returns {AsyncGenerator<T, void, void>} asking for the next event says that the last one is done */
  [Symbol.asyncIterator]() {
    // With a handler there is nothing to iterate over: a TypeError.
    return /** @type {Iterate} */ (this.#iterate).values(this.closed, () => this.close());
  }

  /**
   * Takes no more events, lets running handlers end, acknowledges what they
   * did, and leaves. A handler must not wait for it.
   */
  async close() {
    this.dispatcher.stop();
    this.#iterate?.stop();
    await this.dispatcher.until(0);
    await this.#flush();
    this.#connection.stop();
    await this.over;
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
      : { types, since: text(this.#tracker.received) || (since instanceof Date ? since.toJSON() : since), lag };
    for (const [name, value] of Object.entries(fields)) if (value) query.set(name, `${value}`);
    return query;
  }

  /** @param {LonglineEvent | Control} frame */
  #frame(frame) {
    const { op, cursor } = frame;
    if (!op) this.#event(/** @type {LonglineEvent} */ (frame));
    else if (op === 'hello') this.#hello(frame);
    else if (op === 'standby') this.#enter(op);
    else if (op === 'gap') {
      this.#warn('events were missed', frame);
      this.#emit('Gap', frame);
    } else if (op === 'redelivery') {
      // What was delivered comes again, be it on the same line.
      this.#tracker.received = move('');
      // A partition's may end before another's of its channel.
      for (const [channel, at] of move(cursor)) if (!(Number(this.#again.get(channel)?.offset) > at.offset)) this.#again.set(channel, at);
    } else if (op === 'partitions' && this.#of) {
      reassign(this.#tracker, this.#partitions, frame.partitions);
      this.#assigned(frame);
    } else if (op === 'error') this.#warn('the gateway refused', errorFor(frame.code, frame.detail, { retryAfter: frame.retry_ms }));
    if ((op === 'position' || op === 'hello') && this.#what) {
      move(cursor, this.#tracker.received);
      // What was left out is done with when nothing before it is open.
      if (!this.#tracker.listed.size) move(cursor, this.#tracker.position);
    }
  }

  /** @param {Control} frame */
  #hello(frame) {
    const { cursor, of = 0, window = 0, replay, placed = '' } = frame;
    const moved = !!this.#placed && this.#placed !== placed;
    this.#placed = placed;
    this.#of = of;
    this.#replay = replay;
    this.dispatcher.window = this.#name ? window : 0;
    if (of) begin(this.#tracker, () => true);
    else if (this.#name) this.#tracker.rebase(cursor, moved);
    if (moved) this.dispatcher.forget();
    this.#assigned(frame);
  }

  /** @param {Control} frame */
  #assigned(frame) {
    this.#enter('live', frame);
    this.#partitions = frame.partitions;
    if (this.#of) this.#emit('Partitions', frame);
  }

  /** @param {LonglineEvent} event */
  #event(event) {
    const { cursor = '' } = event;
    const known = this.#tracker.listed.get(cursor);
    const at = parseCursor(cursor);
    /** @type {Entry} */
    const entry = known ?? {
      event, link: 0, late: false, ...at, redelivered: at.offset <= (this.#again.get(at.channel)?.offset ?? 0), transport: this.#connection.transport, replay: this.#replay,
      partition: this.#of ? partitionOf(event, this.#of) : undefined,
      settled: (error) => {
        entry.done = true;
        entry.error = error;
        if (error) {
          if (this.#options.onReject) this.#emit('Reject', event, error);
          else this.#warn('an event was set aside', error);
        }
        this.#done(entry);
      },
    };
    entry.link = this.#link;
    this.#tracker.add(entry);
    if (known) return known.done && this.#done(known);
    this.dispatcher.add(entry);
    // A WebSocket can't be slowed down, only left until there is room again.
    if (this.#what && this.dispatcher.size > 2 * (this.#options.window ?? 0)) {
      this.#connection.drop(connection('slow handler', 0, { retryAfter: 0 }));
    }
  }

  /** @param {Entry} entry */
  #done(entry) {
    const { error, link, history } = entry;
    if (this.#name && error && link === this.#link) {
      this.#connection.send({ op: 'reject', cursor: `${entry}`, reason: `${error.message ?? error}`.slice(0, 1000), attempts: history?.tries });
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
    const acks = this.#tracker.take(this.#link);
    if (this.#name) for (const ack of acks) await this.#connection.send({ op: 'ack', ...ack });
    this.#timer = undefined;
    // Over SSE it took a while: more may be done.
    if (acks[0]) this.#soon();
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
   * @param {any[]} details
   */
  #emit(type, ...details) {
    // By itself, since a listener that throws must not end in our code.
    queueMicrotask(() => /** @type {any} */ (this.#options)['on' + type]?.(...details));
  }
}

/** An id nobody else has; unlike crypto.randomUUID, also where the page came by plain HTTP. */
export function random() {
  return crypto.getRandomValues(new Uint32Array(4)).join('-');
}
