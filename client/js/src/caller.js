import { errorFor } from './errors.js';

/**
 * Whether a callback's event is refused since the handler is left in peace for
 * so long: who calls will try again by himself, and waits better than we do.
 * @param {import('./dispatcher.js').Item} item
 * @param {number} pause ms
 */
export function refused(item, pause) {
  if (!item.once || pause <= 0) return false;
  item.settled(errorFor('unavailable', 'the handler is failing', { retryAfter: pause }));
  return true;
}
