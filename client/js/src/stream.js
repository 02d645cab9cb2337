import { LonglineError, errorFor, responseError } from './errors.js';
import { protocol } from './wire.js';

/** @typedef {import('./parser.js').Message} Message */
/** @typedef {import('./parser.js').Parser} Parser */
/** @typedef {(url: string, init: RequestInit) => Promise<Response>} FetchLike */

/**
 * Opens an event stream once: follows redirects, asks for the right type and
 * checks it. Throws a LonglineError for every other answer.
 * @param {FetchLike} fetch
 * @param {string} url
 * @param {RequestInit} init
 * @returns {Promise<Response>} 200 with an event stream, or 204
 */
export async function open(fetch, url, init) {
  let response;
  try {
    response = await fetch(url, {
      ...init,
      cache: 'no-store',
      headers: { accept: 'text/event-stream, application/problem+json', ...init.headers },
    });
  } catch (cause) {
    throw connection('no connection', cause);
  }
  if (response.status === 204) return response;
  if (!response.ok) throw await responseError(response);
  const type = response.headers.get('content-type');
  if (!/^text\/event-stream\b/i.test(`${type}`)) {
    response.body?.cancel();
    throw protocol(`"${type}" is no event stream`);
  }
  return response;
}

/**
 * The error for a connection that failed, unless its cause is one already.
 * @param {string} message
 * @param {unknown} [cause]
 * @param {import('./errors.js').ErrorDetails} [details]
 */
export function connection(message, cause, details) {
  return cause instanceof LonglineError ? cause : errorFor(408, message, { cause, ...details });
}

/**
 * Reads an open stream's bytes: yields once per chunk, also where a chunk
 * completes no message.
 * @param {Response} response
 * @param {Parser} parser
 * @returns {AsyncGenerator<Message[], void, void>}
 */
export async function* read(response, parser) {
  const reader = response.body?.getReader();
  try {
    for (;;) {
      const chunk = await reader?.read();
      if (!chunk?.value) return;
      yield parser.push(chunk.value);
    }
  } catch (cause) {
    throw connection('stream broke', cause);
  } finally {
    // Cancelling a stream that broke fails; it is over either way.
    reader?.cancel().catch(() => {});
  }
}
