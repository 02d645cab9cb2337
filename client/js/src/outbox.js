import { BadRequestError, TooLargeError } from './errors.js';

/** What one request carries at most: events, and characters of them. */
const MOST = 1000;
const LARGEST = 1 << 20;

/** @typedef {{letters: string[], size: number, resolve: (published: any[]) => void, reject: (error: unknown) => void}} Mail one caller's events */

/**
 * Gathers a channel's events while a request is on its way; the next request
 * takes all that came meanwhile, so that many publishers share few requests.
 */
export class Outbox {
  #post;
  /** @type {Mail[]} */
  #waiting = [];
  #busy = false;
  #emptied;

  /**
   * @param {(letters: string[]) => Promise<any[]>} post posts them, all or none
   * @param {() => void} emptied called when nobody waits any more
   */
  constructor(post, emptied) {
    this.#post = post;
    this.#emptied = emptied;
  }

  /**
   * @param {string[]} letters that go together
   * @returns {Promise<any[]>}
   */
  add(letters) {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ letters, size: letters.join().length, resolve, reject });
      if (!this.#busy) this.#empty();
    });
  }

  async #empty() {
    this.#busy = true;
    await undefined; // whoever publishes in the same breath comes along
    while (this.#waiting[0]) {
      let count = 0;
      let size = 0;
      let n = 0;
      for (const mail of this.#waiting) {
        count += mail.letters.length;
        size += mail.size;
        if (n && (count > MOST || size > LARGEST)) break;
        n++;
      }
      await this.#send(this.#waiting.splice(0, n));
    }
    this.#emptied();
  }

  /**
   * @param {Mail[]} mails
   * @returns {Promise<unknown>}
   */
  async #send(mails) {
    try {
      const published = await this.#post(mails.flatMap(({ letters }) => letters));
      for (const { letters, resolve } of mails) resolve(published.splice(0, letters.length));
    } catch (error) {
      // One caller's mistake is not the others'.
      if (mails[1] && (error instanceof BadRequestError || error instanceof TooLargeError)) {
        return Promise.all(mails.map((mail) => this.#send([mail])));
      }
      for (const { reject } of mails) reject(error);
    }
  }
}

/**
 * Posts letters to a channel, by the outbox that is at it, or a new one.
 * @param {Map<string, Outbox>} outboxes by channel
 * @param {string} channel
 * @param {string[]} letters
 * @param {(letters: string[]) => Promise<any[]>} post
 */
export function share(outboxes, channel, letters, post) {
  let outbox = outboxes.get(channel);
  if (!outbox) outboxes.set(channel, outbox = new Outbox(post, () => outboxes.delete(channel)));
  return outbox.add(letters);
}
