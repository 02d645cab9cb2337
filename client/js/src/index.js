export { Longline } from './client.js';
export { Subscription } from './subscription.js';
export { SignatureError, verifyCallback, fetchCallback, nodeCallback } from './callback.js';
export { sse } from './sse.js';
export {
  LonglineError, BadRequestError, UnauthorizedError, ForbiddenError, NotFoundError, TooLargeError,
  TakenOverError, RateLimitedError, UnavailableError, ConnectionError, ProtocolError,
} from './errors.js';

/** @typedef {import('./wire.js').LonglineEvent} LonglineEvent */
/** @typedef {import('./wire.js').Gap} Gap */
/** @typedef {import('./client.js').NewEvent} NewEvent */
/** @typedef {import('./client.js').Published} Published */
/** @typedef {import('./access.js').Options} Options */
/** @typedef {import('./subscription.js').What} What */
/** @typedef {import('./subscription.js').State} State */
/** @typedef {import('./subscription.js').SubscribeOptions} SubscribeOptions */
/** @typedef {import('./subscription.js').AttachOptions} AttachOptions */
