import { refused } from './caller.js';
import { Reject } from './errors.js';
import { Pace } from './pace.js';
import { Health, SUSPECT, waitFor } from './retry.js';
import { spares, witness } from './witness.js';

/** @typedef {import('./wire.js').LonglineEvent} LonglineEvent */

/**
 * An event on its way through the handler.
 * @typedef {object} Item
 * @property {LonglineEvent} event
 * @property {(error?: any) => void} settled called once: handled, or why not
 * @property {boolean} [once] called back by somebody who will try again by himself
 * @property {string} [transport] by which it came
 * @property {boolean} [redelivered] it may have been handled before
 * @property {boolean} [late] it is sent again on purpose
 * @property {boolean} [replay] somebody asked for it once more
 * @property {string} [identity] by which it is known
 * @property {boolean} [started]
 * @property {boolean} [gone] set while waiting: it is somebody else's now
 * @property {Item[]} [twins] the same event, come again meanwhile
 * @property {Lane} [lane]
 * @property {import('./retry.js').History} [history] once it failed
 */

/**
 * Events that are handled one after another: in a call (`taken` of them),
 * backing off (`timer`) or among the ready.
 * @typedef {object} Lane
 * @property {string} [key] where it is found by one
 * @property {Item[]} jobs
 * @property {number} taken
 * @property {import('./types.js').Timer} [timer]
 * @property {boolean} [obeys] it backs off as long as the handler said
 * @property {number} [probing] where the job came from that is tried before the head
 * @property {boolean} [probed] since the head was tried
 */

/**
 * A handler that returns has handled; one that throws is called again after a
 * while, unless it throws a `Reject`. An error's `retryAfter` (ms) says when.
 * @template [T=any] LonglineEvent, or LonglineEvent[] where `batch` is set
 * @typedef {(events: T, delivery: Delivery) => unknown} Handler
 */

/**
 * @typedef {object} DispatcherOptions
 * @property {number} [concurrency] handlers at once (1: strictly in order; more: in order per partitionkey)
 * @property {number} [rate] calls of the handler that may begin per second, in bursts of one second's worth
 * @property {{max: number, wait?: number}} [batch] hand over arrays of up to `max` events; wait up to `wait` ms for so many
 * @property {import('./retry.js').Retry} [retry] how a handler that failed is asked again
 * @property {number} [remember] ids of handled events by which repetitions are known (10,000; ephemeral 0)
 */

/** How an event came to the handler. Of a batch: the highest attempt, and `redelivered` if any is. */
export class Delivery {
  /** 1, 2, … */
  attempt = 1;
  /** The event may have been handled before. */
  redelivered = false;
  /** "websocket", "sse" or "callback". */
  transport = '';
  /** Somebody asked for it once more, by a replay of a range. */
  replay = false;
  /** @type {AbortController | undefined} */
  #control;

  /**
   * Aborts when the subscription is closed. Each call has its own, since Node
   * warns of signals with many listeners; made when it is asked for, since
   * that takes longer than a quick handler.
   * @returns {import('./types.js').Signal}
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
export class Dispatcher {
  /** How many events may be unacknowledged, and how many are: for what is spared. */
  window = 0;
  unacknowledged = () => 0;
  #handler;
  #concurrency;
  #batch;
  #pace;
  #retry;
  #remember;
  #warn;
  #health = new Health();
  /** @type {Map<string, Lane>} by key */
  #lanes = new Map();
  /** @type {Lane[]} in order */
  #ready = [];
  /** @type {Set<Lane>} those that back off */
  #backingOff = new Set();
  #waiting = 0;
  #stopped = false;
  /** @type {Set<Delivery>} one for each running handler */
  #running = new Set();
  /** @type {Map<string, Item | null>} by identity: on its way, or null once handled */
  #known = new Map();
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  /** @type {((value?: unknown) => void)[]} */
  #untils = [];

  /**
   * @param {Handler} handler
   * @param {DispatcherOptions} options
   * @param {(message: string, detail: any) => void} [warn]
   */
  constructor(handler, { concurrency = 1, batch, rate = 0, retry = {}, remember = 10_000 }, warn = () => {}) {
    this.#handler = handler;
    this.#concurrency = concurrency;
    this.#batch = batch;
    this.#pace = new Pace(rate);
    this.#retry = retry;
    this.#remember = remember;
    this.#warn = warn;
  }

  /** Events that are waiting or being handled. */
  get size() {
    return this.#waiting + this.#running.size;
  }

  /**
   * Takes an event; one that was handled, or is on its way, isn't handled again.
   * @param {Item} item
   */
  add(item) {
    if (refused(item, this.#health.until - Date.now())) return;
    if (this.#remember) {
      const identity = item.identity = identify(item.event);
      const known = this.#known.get(identity);
      if (known === null && !item.late) return item.settled();
      if (known && !known.gone) {
        (known.twins ??= []).push(item);
        return;
      }
      this.#known.set(identity, item);
      if (this.#known.size > this.#remember) this.#known.delete(this.#known.keys().next().value ?? '');
    }
    if (this.#stopped) return;
    // With one call at a time all go through one lane.
    const key = this.#concurrency > 1 ? item.event.partitionkey : '';
    let lane = this.#lanes.get(key ?? '-');
    if (key === undefined || !lane) {
      lane = { key, jobs: [], taken: 0 };
      if (key !== undefined) this.#lanes.set(key, lane);
    }
    item.lane = lane;
    lane.jobs.push(item);
    this.#waiting++;
    if (lane.jobs.length === 1) this.#ready.push(lane);
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
    while (this.size > most) await new Promise((resolve) => this.#untils.push(resolve));
  }

  /** Starts nothing more and ends waits between attempts; what isn't handled stays unsettled. */
  stop() {
    clearTimeout(this.#timer);
    this.#stopped = true;
    for (const lane of this.#backingOff) clearTimeout(lane.timer);
    this.#backingOff.clear();
    this.#ready = [];
    this.#waiting = 0;
    for (const delivery of this.#running) delivery.stop();
    this.#dispatch();
  }

  /** @param {boolean} [ripe] take what there is */
  #dispatch(ripe) {
    while (this.#ready[0] && this.#running.size < this.#health.limit(this.#concurrency)) {
      const items = this.#rest(ripe) ? [] : this.#take();
      if (!items[0]) break;
      this.#run(items);
    }
    for (const resolve of this.#untils.splice(0)) resolve();
  }

  /**
   * Whether no call is to begin now; then somebody looks again.
   * @param {boolean} [ripe]
   */
  #rest(ripe) {
    const now = Date.now();
    const { max, wait = 0 } = this.#batch ?? { max: 1 };
    let rest = this.#health.until - now;
    rest = Math.max(rest, this.#pace.rest(now) || 0);
    const unfilled = wait && !ripe && this.#waiting < max;
    if (unfilled) rest = Math.max(rest, wait);
    if (rest <= 0) {
      clearTimeout(this.#timer);
      this.#timer = undefined;
      this.#pace.take();
      return false;
    }
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      this.#dispatch(!!unfilled);
    }, rest);
    return true;
  }

  /** The next call's events, as many as may be together. */
  #take() {
    /** @type {Item[]} */
    const items = [];
    let room = this.#batch?.max ?? 1;
    if (spares(this, this.#ready, this.#concurrency, room, this.#running.size, this.#backingOff.size)) {
      room = 1;
      if (!witness(this.#ready, (item) => this.#suspects(item))) return items;
    }
    while (this.#ready[0] && items.length < room) {
      const lane = this.#ready[0];
      while (lane.jobs[0]?.gone) {
        lane.jobs.shift();
        this.#waiting--;
      }
      if (lane.jobs[0] && !items[0]) this.#probe(lane);
      let n = 0;
      for (const item of lane.jobs) {
        const together = item.gone ? room : Math.min(room, this.#company(item));
        if (items.length >= together || n && lane.probing) break;
        room = together;
        n++;
        if (!item.gone) items.push(item);
      }
      if (lane.jobs[0] && !n) break;
      this.#ready.shift();
      lane.taken = n;
      this.#waiting -= n;
      if (!n) this.#queue(lane);
      if (lane.probing) break;
    }
    return items;
  }

  /** @param {Item} item */
  #company({ history: { tries = 0, company } = {} }) {
    const { attempts = 0 } = this.#retry;
    return tries && tries + 1 >= attempts && attempts ? 1 : company ?? Infinity;
  }

  /** @param {Item} item */
  #suspects({ history: { tries = 0, passes } = {} }) {
    return tries >= SUSPECT && passes === this.#health.passes;
  }

  /**
   * Puts another event before the lane's head, if that is suspect: whether that
   * one passes tells a poisonous event from a handler in trouble. It has
   * another key, and none of its own before it, so that each key's order stands.
   * @param {Lane} lane
   */
  #probe(lane) {
    if (this.#concurrency > 1) return;
    if (lane.probed || !this.#suspects(lane.jobs[0])) {
      lane.probed = false;
      return;
    }
    /** @type {number[]} */
    const others = [];
    const seen = new Set();
    lane.jobs.forEach(({ gone, event: { partitionkey } }, i) => {
      if (i && !gone && !seen.has(partitionkey)) others.push(i);
      if (partitionkey) seen.add(partitionkey);
    });
    if (!others[0]) return;
    // Any of them, since that one may be poisonous, too.
    const at = others[Math.random() * others.length | 0];
    lane.jobs.unshift(...lane.jobs.splice(at, 1));
    lane.probing = at;
    lane.probed = true;
  }

  /** @param {Item[]} items */
  async #run(items) {
    const delivery = new Delivery();
    for (const item of items) {
      item.started = true;
      delivery.attempt = Math.max(delivery.attempt, (item.history?.tries ?? 0) + 1);
      delivery.redelivered ||= !!item.redelivered;
    }
    delivery.transport = items[0].transport ?? '';
    delivery.replay = !!items[0].replay;
    this.#running.add(delivery);
    let error;
    try {
      await this.#handler(this.#batch ? items.map((item) => item.event) : items[0].event, delivery);
    } catch (thrown) {
      error = thrown ?? new Error('the handler failed');
    }
    this.#running.delete(delivery);
    if (!error || !this.#stopped) this.#settle(items, error);
    this.#dispatch();
  }

  /**
   * Ends a call: its events are done, or their lanes back off.
   * @param {Item[]} items
   * @param {any} error
   */
  #settle(items, error) {
    const rejects = error instanceof Reject;
    if (!error) this.#health.passes++;
    if (error && !rejects) this.#health.failed(this.#retry, `${items[0].event.cursor}`);
    else if (this.#health.answered(this.#concurrency)) this.#hasten();
    let tries = 0;
    for (const lane of new Set(items.map((item) => /** @type {Lane} */ (item.lane)))) {
      const kept = lane.jobs.splice(0, lane.taken).filter((item) => {
        if (item.gone) return false;
        const failed = error && (!rejects || !error.ids || error.ids.includes(item.event.id)) ? error : undefined;
        if (!failed || item.once) return this.#done(item, failed);
        const history = item.history ??= {};
        if (rejects) {
          history.tries = (history.tries ?? 0) + 1;
          return this.#done(item, failed);
        }
        const poison = this.#health.blames(history, items.length);
        tries = Math.max(tries, history.tries ?? 0);
        if (poison || (history.tries ?? 0) >= (this.#retry.attempts || Infinity)) return this.#done(item, failed);
        return true;
      });
      lane.taken = 0;
      this.#waiting += kept.length;
      lane.jobs.splice(lane.probing ?? 0, 0, ...kept);
      lane.probing = 0;
      if (kept[0]) this.#backOff(lane, error.retryAfter);
      else this.#queue(lane);
    }
    if (tries) this.#warn('the handler failed, will try again', error);
  }

  /**
   * @param {Item} item
   * @param {any} error
   */
  #done(item, error) {
    const { identity = '' } = item;
    if (this.#known.get(identity) === item) {
      // What failed may be sent again, on purpose.
      if (error) this.#known.delete(identity);
      else this.#known.set(identity, null);
    }
    item.settled(error);
    item.twins?.forEach((twin) => twin.settled(error));
    return false;
  }

  /** @param {Lane} lane that is neither in a call nor backing off any more */
  #queue(lane) {
    if (this.#stopped) return;
    if (lane.jobs[0]) this.#ready.push(lane);
    else if (lane.key !== undefined) this.#lanes.delete(lane.key);
  }

  /**
   * @param {Lane} lane
   * @param {number} [asked] ms that the handler asked for
   * @param {number} [wait]
   */
  #backOff(lane, asked = 0, wait) {
    const { tries = 1, since = 0 } = lane.jobs[0].history ?? {};
    lane.obeys = asked > 0;
    this.#backingOff.add(lane);
    lane.timer = setTimeout(() => {
      this.#backingOff.delete(lane);
      this.#queue(lane);
      this.#dispatch();
    }, Math.min(Math.max(asked, wait ?? waitFor(this.#retry, tries, since)), 2 ** 31 - 1));
  }

  /** Has the lanes that back off try soon, since the handler is well again. */
  #hasten() {
    for (const lane of this.#backingOff) {
      if (lane.obeys) continue;
      clearTimeout(lane.timer);
      this.#backOff(lane, 0, Math.random() * (this.#retry.min ?? 1000));
    }
  }
}

/**
 * A CloudEvent is known by source and id, in each channel anew.
 * @param {LonglineEvent} event
 */
function identify({ channel, source, id }) {
  return `${channel}\n${source}\n${id}`;
}
