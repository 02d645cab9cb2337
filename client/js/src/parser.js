import { errorFor } from './errors.js';

/**
 * What an event stream said: `type` is "message" where the stream names none,
 * `id` the last event id at that moment.
 * @typedef {{type: string, data: string, id: string}} Message
 */

/** As many characters as one event may have: beyond anything a gateway sends. */
export const MAX = 16 << 20;

/**
 * Parses an event stream (WHATWG HTML §9.2.6), cut anywhere: inside a line
 * ending, inside a character, inside the byte order mark.
 */
export class Parser {
  /** Characters that one event may have. */
  limit = MAX;
  /** The id to reconnect with. */
  lastEventId;
  /** @type {number | undefined} ms to wait before reconnecting, if the stream said so */
  retry;

  #decoder = new TextDecoder(); // drops the byte order mark, replaces what is not UTF-8
  #rest = '';
  #afterCR = false;
  #data = '';
  #type = '';
  #id;

  /**
   * @param {string} [lastEventId] of the stream before, which an id-less event keeps
   */
  constructor(lastEventId = '') {
    this.lastEventId = this.#id = lastEventId;
  }

  /**
   * Takes the next bytes; returns the messages that they complete. Throws a
   * TooLargeError where one is longer than `max`.
   * @param {Uint8Array} bytes
   * @returns {Message[]}
   */
  push(bytes) {
    let text = this.#decoder.decode(bytes, { stream: true });
    /** @type {Message[]} */
    const messages = [];
    if (!text) return messages;
    // The CR ended the line already; an LF behind it belongs to it.
    if (this.#afterCR && text[0] === '\n') text = text.slice(1);
    this.#afterCR = text.endsWith('\r');
    const lines = text.split(/\r\n|\r|\n/);
    lines[0] = this.#rest + lines[0];
    this.#rest = lines.pop() ?? '';
    for (const line of lines) this.#line(line, messages);
    if (this.#rest.length + this.#data.length > this.limit) throw errorFor(413, `more than ${this.limit} characters`);
    return messages;
  }

  /**
   * @param {string} line
   * @param {Message[]} messages
   */
  #line(line, messages) {
    if (!line) {
      this.lastEventId = this.#id;
      // Each data line left its line feed, so "data:" alone is not nothing.
      if (this.#data) messages.push({ type: this.#type || 'message', data: this.#data.slice(0, -1), id: this.#id });
      this.#data = this.#type = '';
      return;
    }
    const [, field, value] = /^([^:]*):? ?([^]*)/.exec(line) ?? [];
    if (field === 'data') this.#data += value + '\n';
    else if (field === 'event') this.#type = value;
    else if (field === 'id' && !value.includes('\0')) this.#id = value;
    else if (field === 'retry' && /^\d+$/.test(value)) this.retry = +value;
  }
}
