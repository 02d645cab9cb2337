import { backoff, sleep } from './backoff.js';
import { UnauthorizedError, responseError } from './errors.js';
import { connection } from './stream.js';

/** @typedef {import('./types.js').FetchLike} FetchLike */
/** @typedef {import('./types.js').Signal} Signal */
/** @typedef {import('./websocket.js').WebSocketLike} WebSocketLike */

/**
 * @typedef {object} Options
 * @property {string | (() => string | Promise<string>)} [token] a JWT, or what gets one: asked for each
 *   (re)connect and before the last one expires. What it throws is tried again, but for a LonglineError, e.g. an
 *   UnauthorizedError, which ends the subscription
 * @property {'websocket' | 'sse'} [transport] one only; without it WebSocket, and SSE where that is missing or blocked
 * @property {number} [timeout] ms for a connection to be made and greeted (10,000)
 * @property {import('./backoff.js').Backoff} [backoff] between attempts to connect or to publish
 * @property {(message: string, detail?: any) => void} [warn] where trouble is told, at once and then rarely (console.warn)
 * @property {FetchLike} [fetch] instead of the global one
 * @property {new (url: string, protocols: string[]) => WebSocketLike} [WebSocket] instead of the global one, if any
 */

/**
 * @typedef {object} RequestOptions
 * @property {number} [attempts] 1; more only for what may be done twice
 * @property {Signal} [signal]
 * @property {Record<string, string>} [headers] besides the token's
 */

/**
 * @param {string} token
 * @returns {Record<string, string>}
 */
export const bearer = (token) => token ? { authorization: `Bearer ${token}` } : {};

/** The way to a gateway: its address, the token, and HTTP requests with both. */
export class Access {
  url;
  options;
  /** @type {FetchLike} */
  fetch;
  /** Whether a new token can be had. */
  renewable;
  /** @type {(message: string, detail?: any) => void} */
  warn;
  #token = '';

  /**
   * @param {import('./types.js').Address} url
   * @param {Options} options
   */
  constructor(url, options) {
    this.url = new URL(url, globalThis.location?.href).href.replace(/\/+$/, '');
    this.options = options;
    // The browser's fetch insists on being called on the window.
    this.fetch = options.fetch ?? ((/** @type {string} */ to, /** @type {RequestInit} */ init) => fetch(to, init));
    this.warn = options.warn ?? ((...about) => console.warn(...about));
    this.renewable = typeof options.token === 'function';
  }

  /**
   * @param {boolean} [fresh] whatever the one at hand is worth
   * @returns {Promise<string>} "" where there is none
   */
  async token(fresh) {
    const { token = '' } = this.options;
    if (typeof token !== 'function') return token;
    if (fresh || !this.#token) this.#token = await token();
    return this.#token;
  }

  /** When the token at hand expires, in ms since 1970; no number if it doesn't say. @returns {any} */
  expires() {
    try {
      const claims = this.#token.split('.')[1].replace(/-/g, '+').replace(/_/g, '/');
      return JSON.parse(atob(claims)).exp * 1000;
    } catch {
      // Not a JWT: the gateway will tell.
    }
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {unknown} [body] sent as JSON
   * @param {RequestOptions} [options]
   * @returns {Promise<any>} the answer's JSON, if there is any
   */
  request(method, path, body, options) {
    return this.send(method, path, body === undefined ? body : json(body), options);
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {string} [body]
   * @param {RequestOptions} [options]
   * @returns {Promise<any>}
   */
  async send(method, path, body, { attempts = 1, signal, headers } = {}) {
    for (let attempt = 1, fresh = false; ; attempt++) {
      let error;
      try {
        const token = await this.token(fresh);
        const response = await this.fetch(this.url + path, {
          method, signal, body,
          headers: { 'content-type': method === 'PATCH' ? 'application/merge-patch+json' : 'application/json', ...headers, ...bearer(token) },
        });
        if (response.status < 300) return response.status === 204 ? undefined : await response.json();
        error = await responseError(response);
      } catch (cause) {
        error = connection(`${method} ${path} failed`, cause);
      }
      // The gateway knows better than our clock whether a token is over.
      /** @type {boolean} */
      const renew = this.renewable && !fresh && error instanceof UnauthorizedError;
      if (signal?.aborted || !renew && (!error.retry || attempt >= attempts)) throw error;
      fresh = renew;
      if (!renew) await sleep(error.retryAfter ?? backoff(attempt - 1, this.options.backoff), signal);
    }
  }
}

/**
 * Writes JSON. Throws a TypeError for what can't be: a BigInt, a circle.
 * @param {unknown} value
 */
export function json(value) {
  try {
    return JSON.stringify(value);
  } catch (cause) {
    throw new TypeError(`no JSON: ${/** @type {Error} */ (cause).message}`, { cause });
  }
}
