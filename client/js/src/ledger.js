import { move, text } from './wire.js';

/** @typedef {import('./inbox.js').Item} Item */
/** @typedef {import('./wire.js').Cursor} Cursor */

/**
 * An event that was delivered and is not yet acknowledged. `late`: a dead
 * letter that was put back, which comes behind events that are after it.
 * @typedef {Item & Cursor & {link: unknown, late: boolean, done?: boolean, error?: any}} Entry
 */

/**
 * What was delivered and what of it is done. Only the contiguous prefix of a
 * channel is acknowledged, and only what the present connection delivered: of
 * anything else the gateway would say that it doesn't know it.
 */
export class Ledger {
  /** Everything up to here is done. */
  position = move('');
  /** The last that was delivered. */
  received = move('');
  /** @type {Map<string, Entry>} by cursor, in order of delivery */
  listed = new Map();

  /**
   * Notes a delivery: an event that is listed already is listed last, where
   * the present connection has it.
   * @param {Entry} entry
   */
  add(entry) {
    const { channel, epoch, offset } = entry;
    const last = this.received.get(channel);
    entry.late = last?.epoch === epoch && offset < last.offset;
    if (!entry.late) this.received.set(channel, entry);
    this.listed.delete(`${entry}`);
    this.listed.set(`${entry}`, entry);
  }

  /**
   * Strikes out what is done without a hole before it.
   * @param {unknown} link
   * @returns {string[]} what to acknowledge, one by one
   */
  take(link) {
    const open = new Set();
    /** @type {string[]} */
    const late = [];
    const position = move('');
    for (const [cursor, entry] of this.listed) {
      const done = entry.done && entry.link === link;
      if (done && (entry.late || !open.has(entry.channel))) {
        this.listed.delete(cursor);
        if (entry.late) late.push(cursor);
        else position.set(entry.channel, entry);
      } else if (!entry.late) open.add(entry.channel);
    }
    if (position.size) late.unshift(text(position));
    move(text(position), this.position);
    return late;
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
    this.position = move(cursor);
    this.received = move(cursor);
    const moved = restarted && [...this.position.values()].some(({ channel, epoch, offset }) => {
      const was = before.get(channel);
      return was?.epoch === epoch && offset < was.offset;
    });
    for (const [key, entry] of this.listed) {
      const at = this.position.get(entry.channel);
      if (!moved && (!at || at.epoch === entry.epoch && entry.offset > at.offset)) continue;
      this.listed.delete(key);
      entry.gone = !entry.started;
    }
    return moved;
  }
}
