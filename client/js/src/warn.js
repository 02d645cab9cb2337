/** How often trouble of one kind is told while it goes on, in ms. */
const EVERY = 60_000;

/**
 * Tells of trouble at once and then, while it goes on, once a minute for each
 * kind.
 * @param {(message: string, detail?: any) => void} warn
 * @returns {(message: string, detail?: any) => void}
 */
export function rarely(warn) {
  /** @type {Record<string, number>} */
  const told = {};
  return (message, detail) => {
    if (Date.now() < told[message]) return;
    told[message] = Date.now() + EVERY;
    warn(`longline: ${message}:`, detail);
  };
}
