/**
 * What can go wrong, by name. Whether trying again may help is the field
 * `retry`; nobody has to match texts.
 *
 * @typedef {object} ErrorDetails
 * @property {string} [code] as in the gateway's problems, e.g. "forbidden"
 * @property {boolean} [retry] whether the same again may succeed
 * @property {number} [retryAfter] ms that the gateway asked to wait before that
 * @property {number} [status] the HTTP status or WebSocket close code
 * @property {string} [requestId] by which the gateway's log has it
 * @property {unknown} [cause]
 */

/** The base of every error that Longline makes; itself one with a code that has no class, like "conflict" or "gone". */
export class LonglineError extends Error {
  // Spelled out in each class because minifying renames classes.
  name = 'LonglineError';
  /** @type {string | undefined} */
  code;
  retry = false;
  /** @type {number | undefined} */
  retryAfter;
  /** @type {number | undefined} */
  status;
  /** @type {string | undefined} */
  requestId;

  /**
   * @param {string} message
   * @param {ErrorDetails} [details]
   */
  constructor(message, { cause, ...details } = {}) {
    super(message, { cause });
    Object.assign(this, details);
  }
}

/** The request itself is wrong. */
export class BadRequestError extends LonglineError { name = 'BadRequestError'; }
/** There is no token, or it is wrong, revoked or expired. */
export class UnauthorizedError extends LonglineError { name = 'UnauthorizedError'; }
/** The token doesn't allow it. */
export class ForbiddenError extends LonglineError { name = 'ForbiddenError'; }
/** No such subscription or channel. */
export class NotFoundError extends LonglineError { name = 'NotFoundError'; }
/** Too many bytes, or too many of something. */
export class TooLargeError extends LonglineError { name = 'TooLargeError'; }
/** The same consumer attached elsewhere. */
export class TakenOverError extends LonglineError { name = 'TakenOverError'; }
/** Too much at once; `retryAfter` says how long to wait. */
export class RateLimitedError extends LonglineError { name = 'RateLimitedError'; }
/** The gateway, or something behind it, is away or restarting. */
export class UnavailableError extends LonglineError { name = 'UnavailableError'; }
/** The connection could not be made, broke, or fell silent. */
export class ConnectionError extends LonglineError { name = 'ConnectionError'; }
/** What came is not what the protocol promises. */
export class ProtocolError extends LonglineError { name = 'ProtocolError'; }

/**
 * What a handler throws for an event that can't be handled, now or later: it
 * is not called again, the event is dead-lettered and the next one follows.
 * Any other error has it called again.
 */
export class Reject extends Error {
  name = 'Reject';
  /** @type {string[] | undefined} */
  ids;

  /**
   * @param {string} reason for people: it is kept with the dead letter
   * @param {{ids?: string[], cause?: unknown}} [details] `ids`: of a batch, the events that are meant; the others count
   *   as handled
   */
  constructor(reason, { ids, cause } = {}) {
    super(reason, { cause });
    this.ids = ids;
  }
}

/**
 * HTTP status, code, class, whether to try again.
 * @type {[number, string, typeof LonglineError, boolean?][]}
 */
const KINDS = [
  [4409, 'taken_over', TakenOverError],
  [400, 'bad_request', BadRequestError],
  [401, 'unauthorized', UnauthorizedError],
  [403, 'forbidden', ForbiddenError],
  [404, 'not_found', NotFoundError],
  [408, 'connection', ConnectionError, true],
  [413, 'too_large', TooLargeError],
  [429, 'rate_limited', RateLimitedError, true],
  [503, 'unavailable', UnavailableError, true],
  [0, 'protocol', ProtocolError, true],
];

/** @type {Record<number, number>} close codes that are not a status and 4,000 */
const CLOSES = { 1001: 503, 1012: 503, 1009: 413, 4409: 4409 };

/**
 * The error for a code or a status of the gateway; a server's trouble (5xx)
 * passes, anything else unknown is the request's fault.
 * @param {string | number} kind
 * @param {string} message
 * @param {ErrorDetails} [details]
 */
export function errorFor(kind, message, { retry, ...details } = {}) {
  const [, code, Class, passes = false] = KINDS.find(([status, code]) => status === kind || code === kind || status === 503 && +kind >= 500)
    ?? [0, `${kind}`, LonglineError];
  return new Class(message, { code, retry: retry ?? passes, ...details });
}

/**
 * The error for an HTTP answer that is no success, read from its problem
 * document (RFC 9457) where it has one.
 * @param {import('./types.js').ResponseLike} response
 */
export async function responseError(response) {
  const { status, headers } = response;
  const { code, detail, request_id: requestId } = await response.json().catch(() => 0) ?? {};
  return errorFor(status < 500 && code || status, detail ?? `status ${status}`, {
    status,
    requestId,
    // Where it is a date (RFC 9110 §10.2.3), we wait as we see fit.
    retryAfter: /** @type {any} */ (headers.get('retry-after')) * 1000 || undefined,
  });
}

/**
 * The error for the end of a WebSocket, or for the `bye` before it. Codes
 * 4000–4499 are final unless the gateway says otherwise.
 * @param {number} status the close code
 * @param {string} [reason]
 * @param {{reconnect?: boolean, retry_ms?: number, [field: string]: any}} [bye]
 */
export function closeError(status, reason, { reconnect, retry_ms: retryAfter } = {}) {
  return errorFor(CLOSES[status] ?? (status < 4000 ? 408 : status - 4000), reason || `status ${status}`, {
    status, retryAfter, retry: reconnect,
  });
}
