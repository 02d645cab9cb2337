/**
 * @typedef {object} Backoff
 * @property {number} [min] ms that the first wait is at most (500)
 * @property {number} [max] ms that any wait is at most (30,000)
 */

/**
 * How long to wait before try `attempt` (0, 1, …): full jitter, since clients
 * that were cut off together must not come back together.
 * @param {number} attempt
 * @param {Backoff} [options]
 * @param {() => number} [random]
 * @returns {number} ms
 */
export function backoff(attempt, { min = 500, max = 30_000 } = {}, random = Math.random) {
  return random() * Math.min(max, min * 2 ** attempt);
}

/**
 * Sleeps; ends early, without an error, when the signal aborts.
 * @param {number} ms
 * @param {import('./types.js').Signal} [signal]
 * @returns {Promise<void>}
 */
export function sleep(ms, signal) {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', end);
      resolve();
    };
    // A longer timer would overflow and fire at once.
    const timer = setTimeout(end, Math.min(ms, 2 ** 31 - 1));
    if (signal?.aborted) end();
    else signal?.addEventListener('abort', end);
  });
}
