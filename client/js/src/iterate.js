/** @typedef {import('./dispatcher.js').Handler} Handler */
/** @typedef {{given: any, release: (value?: unknown) => void, fail: (reason?: Error) => void}} Call */

/**
 * Turns a handler's calls into an async iterator: a call lasts until the next
 * value is asked for, so asking for it says that the last one is done.
 */
export class Iterate {
  /** @type {Call | undefined} the handler's present call */
  #call;
  /** @type {(value?: unknown) => void} */
  #wake = () => {};

  /** @type {Handler} */
  handler = (value) => new Promise((release, fail) => {
    this.#call = { given: value, release, fail };
    this.#wake();
  });

  /**
   * @param {Promise<void>} closed rejects with what ended it
   * @param {() => unknown} close
   * @returns {AsyncGenerator<any, void, void>}
   */
  async *values(closed, close) {
    let over = false;
    const end = () => {
      over = true;
      this.#wake();
    };
    closed.then(end, end);
    try {
      while (!over) {
        const call = this.#call;
        if (call) {
          yield call.given;
          this.#call = undefined;
          call.release();
        } else await new Promise((resolve) => { this.#wake = resolve; });
      }
      await closed;
    } finally {
      close();
    }
  }

  /** Ends the present call without its being done. */
  stop() {
    this.#call?.fail();
    this.#call = undefined;
  }
}
