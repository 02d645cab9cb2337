import { Channels, Subscriptions, Tokens } from './admin.js';
import { Longline as Client } from './client.js';

/** A Longline gateway, with what programs on servers do beside receiving and publishing. */
export class Longline extends Client {
  #request = this.request.bind(this);
  /** Durable subscriptions. */
  subscriptions = new Subscriptions(this.#request);
  /** Channels and their logs. */
  channels = new Channels(this.#request);
  /** Revocation. */
  tokens = new Tokens(this.#request);
}
