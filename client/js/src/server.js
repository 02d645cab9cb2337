import { Longline as Client } from './client.js';

/** A Longline gateway, with what programs on servers do beside receiving and publishing. */
export class Longline extends Client {
  /**
   * Creates a durable subscription unless there is one of that name, which then
   * stays as it is: what a program does at its start. Resolves with whether it
   * was created.
   * @param {string} name
   * @param {object} definition e.g. `{ channels: ['acct-42'], types: ['email.*'] }`
   * @returns {Promise<boolean>}
   */
  async createSubscription(name, definition) {
    try {
      await this.request('PUT', path(name), definition, { headers: { 'if-none-match': '*' } });
      return true;
    } catch (/** @type {any} */ error) {
      if (error.status === 409) return false;
      throw error;
    }
  }

  /**
   * Changes what is named of a subscription (RFC 7396: null removes), and
   * nothing else. Resolves with what it is then.
   * @param {string} name
   * @param {object} changes
   * @returns {Promise<any>}
   */
  patchSubscription(name, changes) {
    return this.request('PATCH', path(name), changes);
  }
}

/** @param {string} name */
const path = (name) => `/v1/subscriptions/${encodeURIComponent(name)}`;
