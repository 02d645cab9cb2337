import { Dispatcher } from './dispatcher.js';
import { LonglineError, Reject, errorFor } from './errors.js';
import { MAX } from './parser.js';

/** @typedef {import('./wire.js').LonglineEvent} LonglineEvent */
/** @typedef {import('./dispatcher.js').Handler} Handler */
/** @typedef {import('./dispatcher.js').DispatcherOptions} DispatcherOptions */
/** @typedef {import('./types.js').HeadersLike | Record<string, string | string[] | undefined>} HeadersLike */
/** @typedef {import('./subscription.js').Subscription<any> | Handler} Target the subscription whose handler shall be fed, or a handler */

/** A callback that is not signed by the secret, or too long ago. */
export class SignatureError extends LonglineError { name = 'SignatureError'; }

/**
 * @typedef {object} VerifyOptions
 * @property {number} [tolerance] s that the callback may be old, or ahead (300)
 * @property {number} [now] ms since 1970
 */

/**
 * Verifies a callback (Standard Webhooks, HMAC-SHA256) and returns what it
 * carries: an event, or an array of events. Throws a SignatureError where it
 * isn't signed by the secret, or too long ago.
 * @param {HeadersLike} headers
 * @param {string | Uint8Array} body the bytes as they came, not parsed and written again
 * @param {string | string[]} secret "whsec_…"; several while it is being rotated
 * @param {VerifyOptions} [options]
 * @returns {Promise<LonglineEvent | LonglineEvent[]>}
 */
export async function verifyCallback(headers, body, secret, { tolerance = 300, now = Date.now() } = {}) {
  const [id, timestamp, signature] = ['id', 'timestamp', 'signature'].map((name) => {
    const value = header(headers, `webhook-${name}`);
    if (!value || typeof value !== 'string') throw unsigned(`there is no webhook-${name} header`);
    return value;
  });
  if (!/^\d+$/.test(timestamp)) throw unsigned('webhook-timestamp is not a number of seconds');
  const age = now / 1000 - Number(timestamp);
  if (Math.abs(age) > tolerance) throw unsigned(`the callback was signed ${Math.round(age)} s ago`);

  const encoder = new TextEncoder();
  const bytes = typeof body === 'string' ? encoder.encode(body) : body;
  const content = new Uint8Array(await new Blob([encoder.encode(`${id}.${timestamp}.`), /** @type {any} */ (bytes)]).arrayBuffer());
  // The gateway signs with two secrets at most; nobody shall make us try thousands.
  const signatures = signature.split(' ').slice(0, 8).flatMap((one) => one.startsWith('v1,') ? fromBase64(one.slice(3)) ?? [] : []);
  const hmac = { name: 'HMAC', hash: 'SHA-256' };
  for (const one of [secret].flat()) {
    const imported = await crypto.subtle.importKey('raw', key(one), hmac, false, ['verify']);
    for (const given of signatures) {
      // WebCrypto compares in constant time.
      if (await crypto.subtle.verify(hmac, imported, given, content)) return parse(new TextDecoder().decode(bytes));
    }
  }
  throw unsigned('webhook-signature is not of this body by this secret');
}

/** @param {HeadersLike} headers @param {string} name */
function header(headers, name) {
  return typeof headers.get === 'function' ? /** @type {any} */ (headers).get(name) : /** @type {any} */ (headers)[name];
}

/** @param {unknown} secret */
function key(secret) {
  const raw = typeof secret === 'string' && fromBase64(secret.replace(/^whsec_/, ''));
  if (!raw || !raw.length) throw new TypeError(`the secret is ${typeof secret === 'string' ? 'not "whsec_" and base64' : `${secret}, want "whsec_…"`}`);
  return raw;
}

/** @param {string} message */
function unsigned(message) {
  return new SignatureError(message, { code: 'unauthorized' });
}

/** @param {string} text */
function fromBase64(text) {
  try {
    return Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
  } catch {
    return undefined;
  }
}

/** @param {string} text */
function parse(text) {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw errorFor('bad_request', 'the callback is not JSON', { cause });
  }
}

/**
 * Answers callbacks by calling a handler once per event, without trying again:
 * that the gateway does, at its own pace.
 * @param {Target} target the subscription whose handler shall be fed, or a handler
 * @param {string | string[]} secret
 * @param {DispatcherOptions & VerifyOptions} options for the handler, where there is no subscription
 */
function answerer(target, secret, options) {
  // Now, not when the first event comes and is lost for it.
  for (const one of [secret].flat()) key(one);
  if (![secret].flat()[0]) throw new TypeError('there is no secret: want "whsec_…", as the subscription was given it');
  const handles = typeof target === 'function';
  const dispatcher = handles ? new Dispatcher(target, options) : target.dispatcher;
  /** @type {Set<() => void> | undefined} callbacks under way; none are taken when the subscription is closed */
  let waiting = new Set();
  if (!handles) {
    target.over.then(() => {
      for (const leave of waiting ?? []) leave();
      waiting = undefined;
    });
  }

  /** @param {LonglineEvent} event @param {HeadersLike} headers @returns {Promise<any>} */
  const handle = (event, headers) => new Promise((resolve) => {
    const leave = () => resolve(errorFor('unavailable', 'the subscription is closed', { retryAfter: 1000 }));
    const settled = (/** @type {any} */ error) => {
      waiting?.delete(leave);
      resolve(error);
    };
    if (!waiting) return leave();
    waiting.add(leave);
    dispatcher.add({
      event, settled, once: true, transport: 'callback', replay: !!header(headers, 'longline-replay'),
      redelivered: header(headers, 'longline-redelivery') === 'true' || Number(header(headers, 'longline-attempt')) > 1,
    });
  });

  /**
   * @param {HeadersLike} headers
   * @param {Uint8Array | string} body
   * @returns {Promise<{status: number, headers?: Record<string, string>, body: string}>}
   */
  return async (headers, body) => {
    let payload;
    try {
      payload = await verifyCallback(headers, body, secret, options);
    } catch (error) {
      if (!(error instanceof LonglineError)) throw error;
      // 401 counts as the endpoint's trouble: a wrong secret here must cost no event.
      return { status: error instanceof SignatureError ? 401 : 400, body: error.message };
    }
    const events = [payload].flat();
    const errors = await Promise.all(events.map((event) => handle(event, headers)));
    const failed = errors.find((error) => error && !(error instanceof Reject));
    if (failed) {
      const wait = failed.retryAfter;
      return {
        status: wait ? 503 : 500,
        headers: wait ? { 'retry-after': `${Math.ceil(wait / 1000)}` } : undefined,
        body: 'the handler failed',
      };
    }
    const rejected = events.filter((_, i) => errors[i]).map(({ id }) => id);
    if (!rejected.length) return { status: 204, body: '' };
    return Array.isArray(payload)
      ? { status: 200, headers: { 'content-type': 'application/json' }, body: JSON.stringify({ rejected }) }
      : { status: 422, body: 'the handler rejected the event' };
  };
}

/**
 * A handler for fetch-style servers (Deno, Bun, workers): Request in, Response out.
 * @param {Target} target the subscription whose handler shall be fed, or a handler
 * @param {string | string[]} secret
 * @param {DispatcherOptions & VerifyOptions} [options]
 * @returns {(request: {method: string, headers: import('./types.js').HeadersLike, arrayBuffer(): Promise<ArrayBuffer>}) =>
 *   Promise<import('./types.js').Answer>}
 */
export function fetchCallback(target, secret, options = {}) {
  const answer = answerer(target, secret, options);
  return async (request) => {
    if (request.method !== 'POST') return new Response('POST only', { status: 405, headers: { allow: 'POST' } });
    const { status, headers, body } = await answer(request.headers, new Uint8Array(await request.arrayBuffer()));
    return new Response(body || null, { status, headers });
  };
}

/**
 * The parts of node:http that are used.
 * @typedef {AsyncIterable<Uint8Array> & {method?: string | undefined, body?: any,
 *   headers: Record<string, string | string[] | undefined>}} NodeRequest
 * @typedef {{writeHead(status: number, headers?: Record<string, string>): unknown, end(body?: string): unknown}} NodeResponse
 */

/**
 * A handler for node:http and what builds on it. It needs the raw body: a
 * parsed one can't be verified, and is answered with 500, so that the events
 * come again when that is put right.
 * @param {Target} target the subscription whose handler shall be fed, or a handler
 * @param {string | string[]} secret
 * @param {DispatcherOptions & VerifyOptions} [options]
 * @returns {(request: NodeRequest, response: NodeResponse) => Promise<void>}
 */
export function nodeCallback(target, secret, options = {}) {
  const answer = answerer(target, secret, options);
  return async (request, response) => {
    if (request.method !== 'POST') {
      response.writeHead(405, { allow: 'POST' });
      response.end('POST only');
      return;
    }
    const { body: parsed } = request;
    if (parsed instanceof Uint8Array || typeof parsed === 'string') return reply(parsed); // express.raw, express.text
    if (parsed !== undefined) {
      const message = 'this needs the raw body: put it before express.json() or any other parser of bodies';
      console.warn('longline:', message);
      response.writeHead(500);
      response.end(message);
      return;
    }
    /** @type {Uint8Array[]} */
    const chunks = [];
    let length = 0;
    for await (const chunk of request) {
      chunks.push(chunk);
      if ((length += chunk.length) > MAX) {
        response.writeHead(413);
        response.end('the body is too large');
        return;
      }
    }
    const whole = new Uint8Array(length);
    let at = 0;
    for (const chunk of chunks) {
      whole.set(chunk, at);
      at += chunk.length;
    }
    return reply(whole);

    /** @param {Uint8Array | string} bytes */
    async function reply(bytes) {
      const { status, headers, body } = await answer(request.headers, bytes);
      response.writeHead(status, headers);
      response.end(body);
    }
  };
}
