/**
 * Administration, typed: what the gateway's HTTP API offers beside events.
 * Names and shapes are the API's own; times are texts such as "10s".
 *
 * @template [T=any] @typedef {import('./wire.js').LonglineEvent<T>} LonglineEvent
 */

/**
 * How a subscription's events leave by HTTP; `secret`, `headers` and `auth` never come back.
 * @typedef {{url: string, mode?: 'fallback' | 'always', grace?: string, secret?: string, headers?: Record<string, string>,
 *   rate?: number, concurrency?: number, order?: 'channel' | 'key', batch?: {max_events?: number, max_wait?: string},
 *   timeout?: string, method?: 'POST' | 'PUT' | 'PATCH', format?: 'structured' | 'binary' | 'data', body?: string,
 *   outcome?: string, auth?: object, signature?: object}} Callback
 */
/**
 * What a subscription is.
 * @typedef {{channels: string[], types?: string[], filter?: string, start?: string, window?: number,
 *   group?: {partitions: number}, expires_after?: string, description?: string, labels?: Record<string, string>,
 *   callback?: Callback}} Settings
 */
/**
 * Where a subscription stands.
 * @typedef {{state: 'live' | 'pull' | 'waiting' | 'callback' | 'offline' | 'paused' | 'disabled', consumer?: string,
 *   node?: string, transport?: string, since?: string, lag?: {events: number, seconds: number}, dead?: number,
 *   callback?: any, members?: any[], partitions?: any[]}} Status
 */
/** @typedef {Settings & {name: string, cursor: string, status: Status}} Info */
/**
 * One call of a callback.
 * @typedef {{time: string, status?: number, latency_ms?: number, error?: string, body?: string, method?: string,
 *   url?: string, cursors?: string[], ids?: string[]}} Attempt
 */
/**
 * What became of an event.
 * @typedef {{cursor: string, state: 'acknowledged' | 'in_flight' | 'waiting' | 'dead' | 'gap' | 'skipped' | 'not_matched',
 *   since?: string, reason?: string, attempts?: Attempt[]}} Trace
 */
/** @typedef {{request: any, status?: number, latency_ms?: number, error?: string, body?: string}} Test what was sent, and what came back */
/** @typedef {{event: LonglineEvent, reason: string, attempts: number, time: string}} DeadLetter an event that was set aside */
/** @typedef {{events: LonglineEvent[], cursor: string}} Page and the position behind it */
/**
 * A page of a subscription's events; `cursor` is what acknowledges it.
 * @typedef {Page & {held_until?: string, redelivery?: {cursor: string},
 *   gaps?: {channel: string, from: string, to: string, reason: string}[]}} Pulled
 */
/** @typedef {{channel: string, epoch: string, first: number, head: number, events: number, bytes: number, connections: number}} ChannelInfo `first` and `head` are offsets */
/** @typedef {string | Date} Since a position, "earliest", "latest" or a time */
/** @typedef {(method: string, path: string, body?: unknown, options?: import('./access.js').RequestOptions) => Promise<any>} Request */

/** @param {Since | undefined} since */
const since = (since) => since instanceof Date ? since.toISOString() : since;

/**
 * A query of what is set, with its question mark.
 * @param {Record<string, unknown>} fields
 */
function query(fields) {
  const set = Object.entries(fields).filter(([, value]) => value !== undefined && value !== '');
  const text = new URLSearchParams(set.map(([name, value]) => [name, `${value}`]));
  return set.length ? `?${text}` : '';
}

/**
 * All of a list, page by page as they are asked for.
 * @param {(next: string) => Promise<any>} ask
 * @param {string} member
 */
async function* listed(ask, member) {
  for (let next = ''; ; ) {
    const answer = await ask(next);
    yield* answer[member];
    next = answer.next;
    if (!next) return;
  }
}

/** Durable subscriptions: `line.subscriptions`. */
export class Subscriptions {
  #request;
  /** @param {Request} request */
  constructor(request) {
    this.#request = request;
  }

  /**
   * @param {string} method
   * @param {string} name
   * @param {string} [path]
   * @param {unknown} [body]
   * @param {import('./access.js').RequestOptions} [options]
   */
  #call(method, name, path = '', body, options) {
    return this.#request(method, `/v1/subscriptions/${encodeURIComponent(name)}${path}`, body, options);
  }

  /** @param {string} name @returns {Promise<Info>} */
  get(name) {
    return this.#call('GET', name);
  }

  /**
   * Creates or replaces; the answer has the callback's secret where one was
   * made, this once.
   * @param {string} name
   * @param {Settings} settings
   * @returns {Promise<Info>}
   */
  put(name, settings) {
    return this.#call('PUT', name, '', settings);
  }

  /**
   * Creates, unless there is one of that name, which then stays as it is: what
   * a program does at its start. Resolves with whether it was created.
   * @param {string} name
   * @param {Settings} settings e.g. `{ channels: ['acct-42'], types: ['email.*'] }`
   * @returns {Promise<boolean>}
   */
  async create(name, settings) {
    try {
      await this.#call('PUT', name, '', settings, { headers: { 'if-none-match': '*' } });
      return true;
    } catch (/** @type {any} */ error) {
      if (error.status === 409) return false;
      throw error;
    }
  }

  /**
   * Changes what is named, and nothing else (RFC 7396: null removes).
   * @param {string} name
   * @param {object} changes
   * @returns {Promise<Info>}
   */
  patch(name, changes) {
    return this.#call('PATCH', name, '', changes);
  }

  /** @param {string} name @returns {Promise<void>} */
  delete(name) {
    return this.#call('DELETE', name);
  }

  /**
   * All of them, page by page as they are asked for.
   * @param {{prefix?: string, state?: Status['state'], label?: string, limit?: number}} [which] `label` is "name=value"
   * @returns {AsyncGenerator<Info>}
   */
  list(which = {}) {
    return listed((cursor) => this.#request('GET', `/v1/subscriptions${query({ ...which, cursor })}`), 'subscriptions');
  }

  /**
   * Moves the cursor, back or forward.
   * @param {string} name
   * @param {Since} to
   * @returns {Promise<any>}
   */
  seek(name, to) {
    return this.#call('POST', name, '/seek', { to: since(to) });
  }

  /** @param {string} name @returns {Promise<any>} */
  pause(name) {
    return this.#call('POST', name, '/pause');
  }

  /** @param {string} name @returns {Promise<any>} */
  resume(name) {
    return this.#call('POST', name, '/resume');
  }

  /**
   * One question of who can hold no connection: acknowledges `ack`, waits up to
   * `wait` for events and holds the subscription for `hold`, both in ms. An
   * error with the code "conflict": another consumer has it.
   * @param {string} name
   * @param {{max?: number, wait?: number, ack?: string, consumer?: string, hold?: number}} [options]
   * @returns {Promise<Pulled>}
   */
  pull(name, { wait = 0, hold = 30_000, ...options } = {}) {
    return this.#call('GET', name, `/events${query({ ...options, wait: `${wait}ms`, hold: `${hold}ms` })}`);
  }

  /**
   * Acknowledges for whoever is attached; resolves with where it stands.
   * @param {string} name
   * @param {string} cursor
   * @param {{connection?: string, partition?: number}} [options]
   * @returns {Promise<string>}
   */
  async ack(name, cursor, options) {
    return (await this.#call('POST', name, '/ack', { cursor, ...options })).cursor;
  }

  /**
   * Makes a dead letter of an event that was delivered and is unacknowledged.
   * Of a group it needs the connection, or the consumer of who pulls.
   * @param {string} name
   * @param {string} cursor
   * @param {string} [reason]
   * @param {{attempts?: number, connection?: string, consumer?: string}} [options]
   * @returns {Promise<void>}
   */
  reject(name, cursor, reason = '', options) {
    return this.#call('POST', name, '/reject', { cursor, reason: reason.slice(0, 1000), ...options });
  }

  /**
   * Sends one `longline.test` event by the callback, now.
   * @param {string} name
   * @param {{subject?: string, partitionkey?: string, data?: any}} [event]
   * @returns {Promise<Test>}
   */
  test(name, event) {
    return this.#call('POST', name, '/test', event);
  }

  /** Makes another secret; the old one signs too for 24 hours. @param {string} name @returns {Promise<string>} */
  async rotateSecret(name) {
    return (await this.#call('POST', name, '/rotate-secret')).secret;
  }

  /**
   * Dead letters, oldest first, of which there may be more behind the last
   * one's cursor.
   * @param {string} name
   * @param {{since?: string, limit?: number}} [which]
   * @returns {Promise<DeadLetter[]>}
   */
  async dead(name, which = {}) {
    return (await this.#call('GET', name, `/dead${query(which)}`)).dead;
  }

  /**
   * Has dead letters delivered again; resolves with how many.
   * @param {string} name
   * @param {{cursors: string[]} | {ids: string[]} | {all: true}} which
   * @returns {Promise<number>}
   */
  async redrive(name, which) {
    return (await this.#call('POST', name, '/dead/redrive', which)).redriven;
  }

  /** @param {string} name @returns {Promise<void>} */
  clearDead(name) {
    return this.#call('DELETE', name, '/dead');
  }

  /**
   * Attempts of the callback, newest first, page by page.
   * @param {string} name
   * @param {{since?: Since, status?: string | number, cursor?: string, limit?: number}} [which] `status` is one, a class
   *   like "5xx", or 0 for no answer
   * @returns {AsyncGenerator<Attempt>}
   */
  attempts(name, which = {}) {
    return listed((page) => this.#call('GET', name, `/attempts${query({ ...which, since: since(which.since), page })}`), 'attempts');
  }

  /**
   * What became of one event.
   * @param {string} name
   * @param {{cursor: string} | {id: string}} which
   * @returns {Promise<Trace>}
   */
  trace(name, which) {
    return this.#call('GET', name, `/trace${query(which)}`);
  }

  /**
   * Has events delivered again, once; the cursor stays. Resolves with how many.
   * @param {string} name
   * @param {string[]} cursors
   * @returns {Promise<number>}
   */
  async resend(name, cursors) {
    return (await this.#call('POST', name, '/resend', { cursors })).resent;
  }

  /**
   * Has what is after `from` up to and including `to` delivered again, by a
   * subscription of its own whose name it resolves with: by the same callback,
   * or for you to attach to.
   * @param {string} name
   * @param {Since} from
   * @param {Since} to
   * @param {{types?: string[], filter?: string, callback?: boolean}} [options]
   * @returns {Promise<string>}
   */
  async replay(name, from, to, options) {
    return (await this.#call('POST', name, '/replay', { from: since(from), to: since(to), callback: false, ...options })).name;
  }
}

/** Channels and their logs: `line.channels`. */
export class Channels {
  #request;
  /** @param {Request} request */
  constructor(request) {
    this.#request = request;
  }

  /** @param {string} channel @returns {Promise<ChannelInfo>} */
  get(channel) {
    return this.#request('GET', `/v1/channels/${encodeURIComponent(channel)}`);
  }

  /**
   * Names, page by page; for admins.
   * @param {{prefix?: string, limit?: number}} [which]
   * @returns {AsyncGenerator<string>}
   */
  async *list(which = {}) {
    for await (const one of listed((page) => this.#request('GET', `/v1/channels${query({ ...which, page })}`), 'channels')) yield one.channel ?? one;
  }

  /**
   * A page of the log. An error with the code "gone": the cursor's events are
   * no longer the log's.
   * @param {string} channel
   * @param {{since?: Since, types?: string[], filter?: string, limit?: number}} [which]
   * @returns {Promise<Page>}
   */
  read(channel, which = {}) {
    const fields = { ...which, since: since(which.since), types: which.types?.join() };
    return this.#request('GET', `/v1/channels/${encodeURIComponent(channel)}/events${query(fields)}`);
  }

  /** Drops the log; for admins. @param {string} channel @returns {Promise<void>} */
  delete(channel) {
    return this.#request('DELETE', `/v1/channels/${encodeURIComponent(channel)}`);
  }
}

/** Revocation, for admins: `line.tokens`. To make one, `mintToken`. */
export class Tokens {
  #request;
  /** @param {Request} request */
  constructor(request) {
    this.#request = request;
  }

  /**
   * Ends a token, or those of `sub` that were issued before then (now).
   * @param {{jti: string} | {sub: string, before?: Since}} which
   * @returns {Promise<void>}
   */
  revoke(which) {
    const body = 'sub' in which ? { sub: which.sub, before: since(which.before ?? new Date()) } : which;
    return this.#request('POST', '/v1/tokens/revoke', body);
  }
}
