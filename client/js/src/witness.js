/** @typedef {import('./dispatcher.js').Lane} Lane */

/**
 * Events left untried for as long as others fail, or may, and the window is
 * nearly used up: without any, nothing tells a poisonous event, behind which
 * all the window is done, from a handler in trouble.
 */
const WITNESSES = 8;

/** @param {Lane} lane whose head failed before */
const tried = ({ jobs: [head] }) => !!head?.history;

/**
 * Whether that is so. Where one call is made at a time, all behind the failing
 * event is untried; a window that is small for so many calls is not made
 * smaller.
 * @param {{window: number, unacknowledged: () => number}} dispatcher
 * @param {Lane[]} ready
 * @param {number} concurrency
 * @param {number} max events in a call
 * @param {number} running
 * @param {number} backingOff
 */
export function spares({ window, unacknowledged }, ready, concurrency, max, running, backingOff) {
  if (concurrency === 1 || !window) return false;
  const ample = window >= 4 * (concurrency * max + WITNESSES);
  const fails = backingOff || ready.some(tried);
  if (!fails && !(running && ample) || unacknowledged() < window - Math.min(WITNESSES, window / 2)) return false;
  let untried = 0;
  for (const lane of ready) if (!tried(lane)) untried += lane.jobs.length;
  return untried < WITNESSES + max;
}

/**
 * Brings to the front what is to be tried although events are spared: one that
 * failed, or before a suspect, a witness. Returns whether there is any.
 * @param {Lane[]} ready
 * @param {(item: import('./dispatcher.js').Item) => boolean} suspects
 */
export function witness(ready, suspects) {
  let i = ready.findIndex(tried);
  if (i < 0) return false;
  const lane = ready[i];
  const other = !lane.probed && suspects(lane.jobs[0]) ? ready.findIndex((one) => !tried(one)) : -1;
  lane.probed = other >= 0;
  if (lane.probed) i = other;
  ready.unshift(...ready.splice(i, 1));
  return true;
}
