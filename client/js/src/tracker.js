import { move, text } from './wire.js';

/** @typedef {import('./dispatcher.js').Item} Item */
/** @typedef {import('./wire.js').Cursor} Cursor */

/**
 * An event that was delivered and is not yet acknowledged. `late`: a dead
 * letter that was put back, which comes behind events that are after it.
 * @typedef {Item & Cursor & {link: unknown, late: boolean, partition?: number, done?: boolean, error?: any}} Entry
 */

/** @typedef {{cursor: string, partition?: number}} Ack a position, of one partition where there are any */

/**
 * What was delivered and what of it is done. Only the contiguous prefix of a
 * channel (in a group, of a partition's part of it) is acknowledged, and only
 * what the present connection delivered: of anything else the gateway would
 * say that it doesn't know it.
 */
export class AckTracker {
  /** Everything up to here is done. */
  position = move('');
  /** The last that was delivered, by track. */
  received = move('');
  /** @type {Map<string, Entry>} by cursor, in order of delivery */
  listed = new Map();

  /**
   * Notes a delivery: an event that is listed already is listed last, where
   * the present connection has it.
   * @param {Entry} entry
   */
  add(entry) {
    const { epoch, offset } = entry;
    const track = trackOf(entry);
    const last = this.received.get(track);
    entry.late = last?.epoch === epoch && offset < last.offset;
    if (!entry.late) this.received.set(track, entry);
    this.listed.delete(`${entry}`);
    this.listed.set(`${entry}`, entry);
  }

  /**
   * Strikes out what is done without a hole before it.
   * @param {unknown} link
   * @returns {Ack[]} what to acknowledge
   */
  take(link) {
    const open = new Set();
    /** @type {Ack[]} */
    const late = [];
    /** @type {Map<number | undefined, import('./wire.js').Position>} */
    const positions = new Map();
    for (const [cursor, entry] of this.listed) {
      const { partition } = entry;
      const done = entry.done && entry.link === link;
      if (done && (entry.late || !open.has(trackOf(entry)))) {
        this.listed.delete(cursor);
        if (entry.late) late.push({ cursor, partition });
        else {
          let position = positions.get(partition);
          if (!position) positions.set(partition, position = move(''));
          position.set(entry.channel, entry);
        }
      } else if (!entry.late) open.add(trackOf(entry));
    }
    const acks = [...positions].map(([partition, position]) => {
      if (partition === undefined) move(text(position), this.position);
      return { cursor: text(position), partition };
    });
    return [...acks, ...late];
  }

  /**
   * Strikes out what is another's, or comes anew.
   * @param {(entry: Entry) => boolean} which
   */
  strike(which) {
    for (const [key, entry] of this.listed) {
      if (!which(entry)) continue;
      this.listed.delete(key);
      entry.gone = !entry.started;
    }
  }

  /**
   * Begins anew where the gateway says that the subscription stands. What is
   * listed and not done by then was done elsewhere, or belongs to another log.
   * @param {string} cursor
   * @param {boolean} moved whether somebody moved it there, to have the events
   *   again: else, where it is before ours, acknowledgements were lost
   */
  rebase(cursor, moved) {
    this.position = move(cursor);
    this.received = move(cursor);
    this.strike((entry) => {
      const at = this.position.get(entry.channel);
      return moved || !!at && !(at.epoch === entry.epoch && entry.offset > at.offset);
    });
  }
}

/** @param {Entry} entry */
const trackOf = ({ channel, partition }) => partition === undefined ? channel : `${channel}/${partition}`;
