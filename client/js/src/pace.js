/** Spaces calls out to a rate, with bursts of one second's worth. */
export class Pace {
  #every;
  /** When the next call is due, by a schedule without bursts. */
  #due = 0;

  /** @param {number} perSecond 0: no limit */
  constructor(perSecond) {
    this.#every = perSecond && 1000 / perSecond;
  }

  /**
   * How long no call is to begin, in ms.
   * @param {number} now
   */
  rest(now) {
    this.#due = Math.max(this.#due, now - 1000 + this.#every);
    return this.#every && this.#due - now;
  }

  /** Notes a call. */
  take() {
    this.#due += this.#every;
  }
}
