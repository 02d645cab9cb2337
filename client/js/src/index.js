export { Longline } from './server.js';
export { Subscription } from './subscription.js';
export { Channels, Subscriptions, Tokens } from './admin.js';
export { mintToken } from './token.js';
export { SignatureError, verifyCallback, fetchCallback, nodeCallback } from './callback.js';
export { sse } from './sse.js';
export {
  Reject, LonglineError, BadRequestError, UnauthorizedError, ForbiddenError, NotFoundError, TooLargeError,
  TakenOverError, RateLimitedError, UnavailableError, ConnectionError, ProtocolError,
} from './errors.js';

/** @template [T=any] @typedef {import('./wire.js').LonglineEvent<T>} LonglineEvent */
/** @typedef {import('./wire.js').Gap} Gap */
/** @typedef {import('./client.js').NewEvent} NewEvent */
/** @typedef {import('./client.js').Published} Published */
/** @typedef {import('./access.js').Options} Options */
/** @typedef {import('./admin.js').Settings} Settings */
/** @typedef {import('./admin.js').Info} Info */
/** @typedef {import('./admin.js').Status} Status */
/** @typedef {import('./admin.js').Callback} Callback */
/** @typedef {import('./admin.js').Attempt} Attempt */
/** @typedef {import('./admin.js').Trace} Trace */
/** @typedef {import('./admin.js').DeadLetter} DeadLetter */
/** @typedef {import('./admin.js').Page} Page */
/** @typedef {import('./admin.js').Pulled} Pulled */
/** @typedef {import('./admin.js').ChannelInfo} ChannelInfo */
/** @typedef {import('./subscription.js').Selection} Selection */
/** @typedef {import('./subscription.js').State} State */
/** @typedef {import('./subscription.js').Partitions} Partitions */
/** @typedef {import('./dispatcher.js').Delivery} Delivery */
/** @typedef {import('./retry.js').Retry} Retry */
/** @typedef {import('./subscription.js').SubscribeOptions} SubscribeOptions */
/** @typedef {import('./subscription.js').AttachOptions} AttachOptions */
