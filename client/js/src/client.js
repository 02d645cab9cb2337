import { Access, json } from './access.js';
import { share } from './outbox.js';
import { Subscription, random } from './subscription.js';

/** @template [T=any] @typedef {import('./wire.js').LonglineEvent<T>} LonglineEvent */
/** @typedef {import('./subscription.js').Selection} Selection */
/** @typedef {import('./subscription.js').SubscribeOptions} SubscribeOptions */
/** @typedef {import('./subscription.js').AttachOptions} AttachOptions */
/** @template T @typedef {import('./dispatcher.js').Handler<T>} Handler */

/**
 * An event to publish; `id`, `source` and `time` are filled in.
 * @typedef {{type: string, data?: any, id?: string, source?: string, subject?: string, time?: string,
 *   partitionkey?: string, [extension: string]: any}} NewEvent
 */

/** @typedef {{id: string, cursor: string, duplicate?: boolean}} Published */

/** A Longline gateway. */
export class Longline {
  #access;
  /** @type {Map<string, import('./outbox.js').Outbox>} by channel */
  #outboxes = new Map();

  /**
   * @param {import('./types.js').Address} url the gateway's address, e.g. "https://push.example.com"; a page's own gateway is "/"
   * @param {import('./access.js').Options} [options]
   */
  constructor(url, options = {}) {
    this.#access = new Access(url, options);
  }

  /**
   * Receives events of channels from now, or from `since`. The subscription
   * remembers its position across reconnects, not across restarts: for that
   * keep its `position`, or use `attach`. Without a handler (null), iterate
   * over it.
   * @template [T=any] the events' data
   * @overload
   * @param {Selection} selection
   * @param {Handler<LonglineEvent<T>[]> | null | undefined} handler
   * @param {SubscribeOptions & {batch: object}} options
   * @returns {Subscription<LonglineEvent<T>[]>}
   */
  /**
   * @template [T=any] the events' data
   * @overload
   * @param {Selection} selection
   * @param {Handler<LonglineEvent<T>> | null} [handler]
   * @param {SubscribeOptions & {batch?: undefined}} [options]
   * @returns {Subscription<LonglineEvent<T>>}
   */
  /**
   * @param {Selection} selection
   * @param {Handler<any> | null} [handler]
   * @param {SubscribeOptions} [options]
   * @returns {Subscription<any>}
   */
  subscribe(selection, handler, options) {
    return new Subscription(this.#access, selection, undefined, handler, options, arguments[3]);
  }

  /**
   * Attaches to a durable subscription: each event is acknowledged when the
   * handler has done it. One that fails is handed over again, without end; what
   * throws a `Reject` goes to the dead letters. Without a handler (null),
   * iterate over it.
   * @template [T=any] the events' data
   * @overload
   * @param {string} name
   * @param {Handler<LonglineEvent<T>[]> | null | undefined} handler
   * @param {AttachOptions & {batch: object}} options
   * @returns {Subscription<LonglineEvent<T>[]>}
   */
  /**
   * @template [T=any] the events' data
   * @overload
   * @param {string} name
   * @param {Handler<LonglineEvent<T>> | null} [handler]
   * @param {AttachOptions & {batch?: undefined}} [options]
   * @returns {Subscription<LonglineEvent<T>>}
   */
  /**
   * @param {string} name
   * @param {Handler<any> | null} [handler]
   * @param {AttachOptions} [options]
   * @returns {Subscription<any>}
   */
  attach(name, handler, options) {
    return new Subscription(this.#access, undefined, name, handler, options, arguments[3]);
  }

  /**
   * Publishes; resolves when the events are durable. Trying again, which it
   * does by itself, publishes nothing twice. Those who publish to a channel at
   * once share requests.
   * @overload
   * @param {string} channel
   * @param {NewEvent} event
   * @param {import('./access.js').RequestOptions} [options]
   * @returns {Promise<Published>}
   */
  /**
   * @overload
   * @param {string} channel
   * @param {NewEvent[]} events all of them or none
   * @param {import('./access.js').RequestOptions} [options]
   * @returns {Promise<Published[]>}
   */
  /**
   * @param {string} channel
   * @param {NewEvent | NewEvent[]} events
   * @param {import('./access.js').RequestOptions} [options] makes a request of its own
   */
  async publish(channel, events, options) {
    const letters = [events].flat().map((event) => json({ id: random(), ...event }));
    /** @param {string[]} letters @returns {Promise<any[]>} */
    const post = async (letters) => (await this.#access.send('POST', `/v1/channels/${encodeURIComponent(channel)}/events`,
      `[${letters}]`, { attempts: 6, ...options })).events;
    const published = await (options ? post(letters) : share(this.#outboxes, channel, letters, post));
    return Array.isArray(events) ? published : published[0];
  }

  /**
   * Calls any other part of the gateway's HTTP API, e.g.
   * `request('POST', '/v1/subscriptions/crm/seek', { to: 'earliest' })`.
   * @param {string} method
   * @param {string} path
   * @param {unknown} [body]
   * @param {import('./access.js').RequestOptions} [options]
   * @returns {Promise<any>}
   */
  request(method, path, body, options) {
    return this.#access.request(method, path, body, options);
  }
}
