/** What every gateway serves as /longline.js: the client, without what only servers need. */
export { Longline } from './client.js';
export {
  Reject, LonglineError, BadRequestError, UnauthorizedError, ForbiddenError, NotFoundError, TooLargeError, TakenOverError,
  RateLimitedError, UnavailableError, ConnectionError, ProtocolError,
} from './errors.js';
