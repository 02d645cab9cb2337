const { imul } = Math;
const utf8 = new TextEncoder();

/**
 * Which of a group's `n` partitions an event belongs to: 64-bit FNV-1a of its
 * partitionkey, or of source, NUL and id, modulo n.
 * @param {import('./wire.js').LonglineEvent} event
 * @param {number} n
 */
export function partitionOf({ partitionkey, source, id }, n) {
  let high = 0xcbf29ce4;
  let low = 0x84222325;
  for (const byte of utf8.encode(partitionkey || `${source}\0${id}`)) {
    // Times 2⁴⁰ + 435, in two halves.
    low = (low ^ byte) >>> 0;
    const product = low * 435;
    high = imul(high, 435) + Math.floor(product / 2 ** 32) + (low << 8) >>> 0;
    low = product >>> 0;
  }
  return ((high % n) * (2 ** 32 % n) + low % n) % n;
}

/**
 * Has a group's partitions come and go: of those that went nothing more is
 * begun, what is being handled is acknowledged; those that came begin anew.
 * @param {import('./tracker.js').AckTracker} tracker
 * @param {number[]} had
 * @param {number[]} mine
 */
export function reassign(tracker, had, mine) {
  // They stay holes: what is done behind them must not acknowledge them.
  for (const entry of tracker.listed.values()) entry.gone ||= !entry.started && !mine.includes(entry.partition ?? 0);
  begin(tracker, (partition = 0) => mine.includes(partition) && !had.includes(partition));
}

/**
 * Begins partitions anew that this connection has from now on.
 * @param {import('./tracker.js').AckTracker} tracker
 * @param {(partition: number | undefined) => boolean} which
 */
export function begin(tracker, which) {
  tracker.strike((entry) => which(entry.partition));
  for (const track of tracker.received.keys()) if (which(+track.split('/')[1])) tracker.received.delete(track);
}
