import { LonglineError, errorFor, responseError } from './errors.js';
import { protocol } from './wire.js';

/** @typedef {import('./parser.js').Message} Message */
/** @typedef {import('./parser.js').Parser} Parser */
/** @typedef {import('./types.js').FetchLike} FetchLike */
/** @typedef {import('./types.js').ResponseLike} ResponseLike */

/**
 * Opens an event stream once: follows redirects, asks for the right type and
 * checks it. Throws a LonglineError for every other answer.
 * @param {FetchLike} fetch
 * @param {string} url
 * @param {any} init
 * @returns {Promise<ResponseLike>} 200 with an event stream, or 204
 */
export async function open(fetch, url, init) {
  let response;
  try {
    response = await fetch(url, {
      ...init,
      cache: 'no-store',
      headers: { accept: 'text/event-stream, application/problem+json', ...init.headers },
    });
  } catch (/** @type {any} */ cause) {
    // A circle of redirections stays one: undici says so.
    throw connection('no connection', cause, { retry: !/redirect/.test(cause.cause) });
  }
  const { status, headers } = response;
  if (status === 204) return response;
  if (status !== 200) throw await responseError(response);
  const type = headers.get('content-type');
  if (!/^\s*text\/event-stream\s*(;|$)/i.test(`${type}`)) {
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
 * @param {ResponseLike} response
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
