import { backoff, sleep } from './backoff.js';

/** @typedef {import('./wire.js').LonglineEvent} LonglineEvent */

/**
 * An event on its way through the handler.
 * @typedef {object} Item
 * @property {LonglineEvent} event
 * @property {(error?: any) => void} settled called once: handled, or why not
 * @property {number} [attempts] in place of the inbox's own
 * @property {string} [identity] by which it is known
 * @property {boolean} [started]
 * @property {boolean} [gone] set while waiting: somebody else has handled it
 * @property {Item[]} [twins] the same event, come again meanwhile
 */

/**
 * A handler that returns has handled; one that throws is called again after a
 * while, unless the error's `retry` is false.
 * @template [T=any] LonglineEvent, or LonglineEvent[] where `batch` is set
 * @typedef {(events: T, context: Context) => unknown} Handler
 */

/**
 * @typedef {object} InboxOptions
 * @property {number} [concurrency] handlers at once (1: strictly in order; more: in order per partitionkey)
 * @property {{max: number, wait?: number}} [batch] hand over arrays of up to `max` events; wait up to `wait` ms for so many
 * @property {number} [attempts] calls of the handler for one event before it is given up (5; ephemeral 1)
 * @property {import('./backoff.js').Backoff} [retry] between them (at most 1,000 ms at first, 60,000 ms later)
 * @property {number} [remember] ids of handled events by which repetitions are known (10,000; ephemeral 0)
 */

/** What a handler is told beside its events. */
class Context {
  /** 1, 2, … */
  attempt = 1;
  /** @type {AbortController | undefined} */
  #control;

  /**
   * Aborts when the subscription is closed. Each call has its own, since Node
   * warns of signals with many listeners; made when it is asked for, since
   * that takes longer than a quick handler.
   */
  get signal() {
    return (this.#control ??= new AbortController()).signal;
  }

  /** @internal */
  stop() {
    this.signal;
    this.#control?.abort();
  }
}

/**
 * The incoming queue: hands events to the handler at the handler's pace, in
 * order, in parallel where order allows, each event once.
 */
export class Inbox {
  #handler;
  #concurrency;
  #batch;
  #attempts;
  #retry;
  #remember;
  /** @type {Item[]} in order of arrival */
  #pending = [];
  /** @type {Set<string>} keys that a running handler holds */
  #busy = new Set();
  #stopped = false;
  /** @type {Set<Context>} one for each running handler */
  #running = new Set();
  /** @type {Map<string, Item | null>} by identity: on its way, or null once handled */
  #known = new Map();
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  /** @type {((value?: unknown) => void)[]} */
  #waiting = [];

  /**
   * @param {Handler} handler
   * @param {InboxOptions} options
   */
  constructor(handler, { concurrency = 1, batch, attempts = 5, retry, remember = 10_000 }) {
    this.#handler = handler;
    this.#concurrency = concurrency;
    this.#batch = batch;
    this.#attempts = attempts;
    this.#retry = { min: 1000, max: 60_000, ...retry };
    this.#remember = remember;
  }

  /** Events that are waiting or being handled. */
  get size() {
    return this.#pending.length + this.#running.size;
  }

  /**
   * Takes an event; one that was handled, or is on its way, isn't handled again.
   * @param {Item} item
   */
  add(item) {
    if (this.#remember) {
      const identity = item.identity = identify(item.event);
      const known = this.#known.get(identity);
      if (known === null) return item.settled();
      if (known && !known.gone) {
        (known.twins ??= []).push(item);
        return;
      }
      this.#known.set(identity, item);
      if (this.#known.size > this.#remember) this.#known.delete(this.#known.keys().next().value ?? '');
    }
    if (!this.#stopped) this.#pending.push(item);
    this.#dispatch();
  }

  /** Forgets what was handled, since it is asked for again. */
  forget() {
    for (const [identity, item] of this.#known) if (!item) this.#known.delete(identity);
  }

  /**
   * Resolves when at most `most` events are left (0: all are handled).
   * @param {number} most
   */
  async until(most) {
    while (this.size > most) await new Promise((resolve) => this.#waiting.push(resolve));
  }

  /** Starts nothing more and ends waits between attempts; what isn't handled stays unsettled. */
  stop() {
    clearTimeout(this.#timer);
    this.#stopped = true;
    this.#pending = [];
    for (const context of this.#running) context.stop();
    this.#dispatch();
  }

  /** @param {boolean} [ripe] take what there is */
  #dispatch(ripe) {
    while (this.#running.size < this.#concurrency && this.#pending[0]) {
      const items = this.#take(ripe);
      if (!items[0]) break;
      this.#run(items);
    }
    for (const resolve of this.#waiting.splice(0)) resolve();
  }

  /**
   * The oldest events whose keys nobody holds; none while a batch may still grow.
   * @param {boolean} [ripe]
   */
  #take(ripe = false) {
    /** @type {Item[]} */
    const items = [];
    const { max, wait = 0 } = this.#batch ?? { max: 1 };
    if (wait && !ripe && this.#pending.length < max) {
      this.#timer ??= setTimeout(() => this.#dispatch(true), wait);
      return items;
    }
    for (let i = 0; i < this.#pending.length && items.length < max; ) {
      const item = this.#pending[i];
      if (!item.gone && this.#busy.has(item.event.partitionkey ?? '')) {
        i++;
        continue;
      }
      this.#pending.splice(i, 1);
      if (!item.gone) items.push(item);
    }
    clearTimeout(this.#timer);
    this.#timer = undefined;
    return items;
  }

  /** @param {Item[]} items */
  async #run(items) {
    for (const item of items) {
      item.started = true;
      if (item.event.partitionkey) this.#busy.add(item.event.partitionkey);
    }
    const context = new Context();
    this.#running.add(context);
    await this.#handle(items, context);
    this.#running.delete(context);
    for (const { event } of items) this.#busy.delete(event.partitionkey ?? '');
    this.#dispatch();
  }

  /**
   * @param {Item[]} items
   * @param {Context} context
   */
  async #handle(items, context) {
    const attempts = items[0].attempts ?? this.#attempts;
    for (context.attempt = 1; !this.#stopped; context.attempt++) {
      try {
        await this.#handler(this.#batch ? items.map((item) => item.event) : items[0].event, context);
        for (const item of items) this.#settle(item);
        return;
      } catch (/** @type {any} */ error) {
        if (this.#stopped) return;
        if (error?.retry === false || context.attempt >= attempts) {
          // One bad event shall not take its batch with it.
          if (items[1]) for (const item of items) await this.#handle([item], context);
          else this.#settle(items[0], error ?? new Error('the handler failed'));
          return;
        }
        await sleep(error?.retryAfter ?? backoff(context.attempt - 1, this.#retry), context.signal);
      }
    }
  }

  /**
   * @param {Item} item
   * @param {any} [error]
   */
  #settle(item, error) {
    const { identity = '' } = item;
    if (this.#known.get(identity) === item) {
      // What failed may be sent again, on purpose.
      if (error) this.#known.delete(identity);
      else this.#known.set(identity, null);
    }
    item.settled(error);
    item.twins?.forEach((twin) => twin.settled(error));
  }
}

/**
 * A CloudEvent is known by source and id, in each channel anew.
 * @param {LonglineEvent} event
 */
function identify({ channel, source, id }) {
  return `${channel}\n${source}\n${id}`;
}
