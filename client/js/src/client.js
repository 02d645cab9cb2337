import { Access } from './access.js';
import { Subscription, random } from './subscription.js';

/** @typedef {import('./wire.js').LonglineEvent} LonglineEvent */
/** @typedef {import('./subscription.js').What} What */
/** @typedef {import('./subscription.js').SubscribeOptions} SubscribeOptions */
/** @typedef {import('./subscription.js').AttachOptions} AttachOptions */
/** @template T @typedef {import('./inbox.js').Handler<T>} Handler */

/**
 * An event to publish; `id`, `source` and `time` are filled in.
 * @typedef {{type: string, data?: any, id?: string, source?: string, subject?: string, time?: string,
 *   partitionkey?: string, [extension: string]: any}} NewEvent
 */

/** @typedef {{id: string, cursor: string, duplicate?: boolean}} Published */

/** A Longline gateway. */
export class Longline {
  #access;

  /**
   * @param {string | URL} url the gateway's address, e.g. "https://push.example.com"; a page's own gateway is "/"
   * @param {import('./access.js').Options} [options]
   */
  constructor(url, options = {}) {
    this.#access = new Access(url, options);
  }

  /**
   * Receives events of channels from now, or from `since`. The subscription
   * remembers its position across reconnects, not across restarts: for that
   * keep its `position`, or use `attach`.
   * @overload
   * @param {What & SubscribeOptions} what
   * @param {Handler<LonglineEvent>} [handler] without it, iterate over the subscription
   * @returns {Subscription}
   */
  /**
   * @overload
   * @param {What & SubscribeOptions & {batch: object}} what
   * @param {Handler<LonglineEvent[]>} [handler]
   * @returns {Subscription}
   */
  /**
   * @param {What & SubscribeOptions} what
   * @param {Handler<any>} [handler]
   */
  subscribe(what, handler) {
    return new Subscription(this.#access, what, undefined, handler, what);
  }

  /**
   * Attaches to a durable subscription: each event is acknowledged when the
   * handler has done it, and given up, to the dead letters, when it has failed
   * to for good.
   * @overload
   * @param {string} name
   * @param {Handler<LonglineEvent[]>} handler
   * @param {AttachOptions & {batch: object}} options
   * @returns {Subscription}
   */
  /**
   * @overload
   * @param {string} name
   * @param {Handler<LonglineEvent>} handler
   * @param {AttachOptions} [options]
   * @returns {Subscription}
   */
  /**
   * @overload
   * @param {string} name
   * @param {AttachOptions} [options] without a handler, iterate over the subscription
   * @returns {Subscription}
   */
  /**
   * @param {string} name
   * @param {Handler<any> | AttachOptions} [handler]
   * @param {AttachOptions} [options]
   */
  attach(name, handler, options) {
    const handles = typeof handler === 'function';
    return new Subscription(this.#access, undefined, name, handles ? handler : undefined, (handles ? options : handler) ?? {});
  }

  /**
   * Publishes; resolves when the events are durable. Trying again, which it
   * does by itself, publishes nothing twice.
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
   * @param {import('./access.js').RequestOptions} [options]
   */
  async publish(channel, events, options) {
    const list = [events].flat().map((event) => ({ id: random(), ...event }));
    const answer = await this.#access.request('POST', `/v1/channels/${encodeURIComponent(channel)}/events`, list,
      { attempts: 6, ...options });
    return Array.isArray(events) ? answer.events : answer.events[0];
  }

  /**
   * Calls any other part of the gateway's HTTP API, e.g.
   * `request('PUT', '/v1/subscriptions/crm', { channels: ['acct-42'] })`.
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
