import { backoff, sleep } from './backoff.js';
import { ProtocolError } from './errors.js';
import { Parser } from './parser.js';
import { open, read } from './stream.js';

/** @typedef {import('./errors.js').LonglineError} LonglineError */
/** @typedef {import('./parser.js').Message} Message */

/**
 * @typedef {object} SSEOptions
 * @property {string} [method] GET
 * @property {Record<string, string> | (() => Record<string, string> | Promise<Record<string, string>>)} [headers]
 *   a function is asked before each connection
 * @property {string} [body] sent with each connection
 * @property {string} [lastEventId] where to begin
 * @property {"omit" | "same-origin" | "include"} [credentials]
 * @property {import('./types.js').Signal} [signal] ends the iteration
 * @property {import('./types.js').FetchLike} [fetch] instead of the global one
 * @property {import('./backoff.js').Backoff} [backoff] between attempts, where the stream sets no `retry`
 * @property {boolean} [reconnect] false: stop when the first stream ends
 * @property {number} [maxLength] characters that one event may have (16 Mi)
 */

export { Parser };

/**
 * Iterates over the messages of any event stream, by GET or any other method,
 * with any headers. Reconnects with Last-Event-ID when the stream ends or
 * breaks, after `retry` or a growing, jittered wait; 204 ends it. An answer
 * that may pass (429, 5xx) is tried again, obeying Retry-After; any other
 * throws a LonglineError. Reads no faster than it is iterated.
 * @param {string} url
 * @param {SSEOptions} [options]
 * @returns {AsyncGenerator<Message, void, void>}
 */
export async function* sse(url, options = {}) {
  const { method, headers, body, credentials, signal, reconnect = true, maxLength, fetch = globalThis.fetch } = options;
  let { lastEventId } = options;
  /** @type {number | undefined} */
  let retry;
  for (let attempt = 0; !signal?.aborted; attempt++) {
    /** @type {number | undefined} */
    let wait;
    try {
      const response = await open((...request) => fetch(...request), url, {
        method, body, credentials, signal,
        headers: {
          // As bytes of UTF-8, since a header holds no other characters.
          ...(lastEventId && { 'last-event-id': String.fromCharCode(...new TextEncoder().encode(lastEventId)) }),
          ...(typeof headers === 'function' ? await headers() : headers),
        },
      });
      if (response.status === 204) return;
      const parser = new Parser(lastEventId);
      parser.limit = maxLength ?? parser.limit;
      try {
        for await (const messages of read(response, parser)) {
          if (messages.length) attempt = 0;
          yield* messages;
        }
      } finally {
        lastEventId = parser.lastEventId;
        retry = parser.retry ?? retry;
      }
      wait = retry;
    } catch (error) {
      if (signal?.aborted) return;
      const { retry: again, retryAfter } = /** @type {LonglineError} */ (error);
      // Another media type stays another one (HTML §9.2.3).
      if (!reconnect || !again || error instanceof ProtocolError) throw error;
      wait = retryAfter;
    }
    if (!reconnect) return;
    await sleep(wait ?? Math.max(retry ?? 0, backoff(attempt, options.backoff)), signal);
  }
}
