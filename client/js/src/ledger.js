import { Position, parseCursor } from './wire.js';

/** @typedef {import('./inbox.js').Item} Item */

/**
 * An event that was delivered and is not yet acknowledged.
 * @typedef {Item & import('./wire.js').Cursor & {cursor: string, link: unknown, done?: boolean, error?: any}} Entry
 */

/**
 * What was delivered and what of it is done. Only the contiguous prefix of a
 * channel is acknowledged, and only what the present connection delivered: of
 * anything else the gateway would say that it doesn't know it.
 */
export class Ledger {
  /** Everything up to here is done. */
  position = new Position();
  /** @type {Map<string, Entry>} by cursor, in order of delivery */
  listed = new Map();

  /**
   * Strikes out what is done without a hole before it.
   * @param {unknown} link
   * @returns {string} the cursors to acknowledge, or ""
   */
  take(link) {
    const open = new Set();
    /** @type {Map<string, Entry>} */
    const taken = new Map();
    for (const entry of this.listed.values()) {
      const { channel, cursor, offset, epoch } = entry;
      if (!entry.done || entry.link !== link) open.add(channel);
      if (open.has(channel)) continue;
      this.listed.delete(cursor);
      const last = taken.get(channel);
      // A redriven event comes late, with the cursor it always had.
      if (last?.epoch !== epoch || offset > last.offset) taken.set(channel, entry);
    }
    const cursors = [...taken.values()].map(({ cursor }) => cursor).join();
    this.position.merge(cursors);
    return cursors;
  }

  /**
   * Begins anew where the gateway says that the subscription stands. What is
   * listed and not done by then was done elsewhere, or belongs to another log.
   * @param {string} cursor
   * @param {boolean} restarted whether a cursor before ours was moved there, to
   *   have the events again: else acknowledgements were lost
   * @returns {boolean} whether it was
   */
  rebase(cursor, restarted) {
    const before = this.position;
    this.position = new Position(cursor);
    const moved = restarted && cursor.split(',').map(parseCursor).some(({ channel, epoch, offset }) => {
      const was = before.of(channel);
      return was?.epoch === epoch && offset < was.offset;
    });
    for (const entry of this.listed.values()) {
      const at = this.position.of(entry.channel);
      if (!moved && (!at || at.epoch === entry.epoch && entry.offset > at.offset)) continue;
      this.listed.delete(entry.cursor);
      entry.gone = !entry.started;
    }
    return moved;
  }
}
