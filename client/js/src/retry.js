import { backoff } from './backoff.js';

/**
 * How events are tried again that the handler failed at.
 * @typedef {object} Retry
 * @property {number} [attempts] calls of the handler for one event before it is rejected. Without it there is no end:
 *   a CRM that is away for a night costs no event. What `Reject` says of an event holds at once, and one that fails
 *   again and again while others pass is rejected as well
 * @property {number} [min] ms that the first wait is at most (1,000)
 * @property {number} [max] ms that any wait is at most (600,000); for the first ten minutes it is 15,000
 */

// The rules that the gateway's callbacks follow, too.

/** How long, in ms, a handler in trouble is asked every SOON_WAIT or so: who is well again should not have to wait. */
const SOON = 600_000;
const SOON_WAIT = 15_000;
/** After so many failures in a row the handler is asked for one event at a time. */
const TROUBLE = 5;
/** After so many failures of one event others are looked at: if one passes and it fails again, POISON times over, it is to blame. */
export const SUSPECT = 8;
const POISON = 3;

/**
 * The wait after so many failures, the first of them at `since`.
 * @param {Retry} retry
 * @param {number} failures
 * @param {number} since
 */
export function waitFor({ min = 1000, max = SOON }, failures, since) {
  return backoff(failures - 1, { min, max: Date.now() - since < SOON ? Math.min(max, SOON_WAIT) : max });
}

/**
 * What is known of an event that was tried in vain.
 * @typedef {object} History
 * @property {number} [tries]
 * @property {number} [since] when the first was
 * @property {number} [passes] the health's at the last
 * @property {number} [vouched] how often in a row another event passed between two of its failures
 * @property {number} [company] how many events it may be called with
 */

/**
 * How the handler is doing, by its calls' ends. After TROUBLE failures in a
 * row, of more than one event, it is left in peace between single calls; when
 * one is answered, twice as many are allowed with each that follows.
 */
export class Health {
  /** Events handled, ever. */
  passes = 0;
  /** Calls at once; 0: all that concurrency allows. */
  allowed = 0;
  /** No call begins before; ms since 1970. */
  until = 0;
  #failures = 0;
  #since = 0;
  #whose = '';
  #several = false;

  /** @param {number} concurrency */
  limit(concurrency) {
    return Math.min(this.allowed || concurrency, concurrency);
  }

  /**
   * Notes a call that came to something; returns whether that ends a trouble.
   * @param {number} concurrency
   */
  answered(concurrency) {
    const over = this.allowed && this.#failures;
    this.#failures = this.until = 0;
    this.#several = false;
    if ((this.allowed *= 2) >= concurrency) this.allowed = 0;
    return over;
  }

  /**
   * Notes a call for the event at `cursor` that failed.
   * @param {Retry} retry
   * @param {string} cursor
   */
  failed(retry, cursor) {
    if (!this.#failures++) {
      this.#since = Date.now();
      this.#whose = cursor;
    }
    this.#several ||= cursor !== this.#whose;
    if (this.#failures < TROUBLE || !this.#several) return;
    this.allowed = 1;
    this.until = Date.now() + waitFor(retry, this.#failures, this.#since);
  }

  /**
   * Notes another failure of an event, in a call of so many; returns whether
   * the event is to blame.
   * @param {History} history
   * @param {number} together
   */
  blames(history, together) {
    const { tries = 0, vouched = 0 } = history;
    const passed = tries && history.passes !== this.passes;
    history.tries = tries + 1;
    history.since ??= Date.now();
    history.passes = this.passes;
    if (!passed) history.vouched = 0;
    else if (together > 1) history.company = together >> 1;
    else if (tries >= SUSPECT) history.vouched = vouched + 1;
    return (history.vouched ?? 0) >= POISON;
  }
}
