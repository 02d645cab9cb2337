// The way to the gateway: the token, and requests with it. The page has no
// other rights than the token's, and asks nobody but the gateway it came from.

import { heard } from '/console/time.js';

/** Where this page keeps what it must remember: the tab's storage, under a name of its own. */
const kept = document.documentElement.dataset.session ?? 'longline';

export const remember = (name, value) => value === null ? sessionStorage.removeItem(`${kept}.${name}`) : sessionStorage.setItem(`${kept}.${name}`, value);
export const recall = (name) => sessionStorage.getItem(`${kept}.${name}`) ?? '';

export const token = () => recall('token');

/**
 * Takes what a link brings in its fragment (#token=…&…) out of the address bar,
 * the token into the tab's storage, and returns it all; null if there is none.
 */
export function fromLink() {
  const given = new URLSearchParams(location.hash.slice(1));
  if (!given.has('token')) return null;
  remember('token', given.get('token').trim());
  history.replaceState(null, '', location.pathname + location.search);
  return Object.fromEntries(given);
}

/** What a token says of itself, unverified; null if it isn't one. */
export function claims(text = token()) {
  try {
    const part = text.split('.')[1].replace(/-/g, '+').replace(/_/g, '/');
    return JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(part), (c) => c.charCodeAt(0))));
  } catch {
    return null;
  }
}

/** What the token may do, as the gateway says; null: nobody is signed in. */
export let me = null;

/** Signs in with a token, or with the one that is kept, if the gateway takes it. */
export async function signIn(text = token()) {
  if (!text) throw new ApiError('No token was given.', 401, 'no_token');
  me = await request('GET', '/v1/token', { as: text });
  remember('token', text);
  return me;
}

export function signOut() {
  me = null;
  remember('token', null);
}

/** An answer that is no yes. `code` is the problem's; status 0: there was no answer. */
export class ApiError extends Error {
  name = 'ApiError';

  constructor(message, status, code, retryAfter) {
    super(message);
    Object.assign(this, { status, code, retryAfter });
  }
}

let refused = () => {};
/** Says who is to be told when the gateway doesn't take the token any longer. */
export const onRefused = (handle) => { refused = handle; };

/**
 * One request. `query` leaves out what is empty; the answer is its JSON, if it
 * has any.
 */
export async function request(method, path, { query, body, headers, signal, as = token() } = {}) {
  const q = new URLSearchParams();
  for (const [name, value] of Object.entries(query ?? {})) {
    for (const v of [value].flat()) if (v !== '' && v !== undefined && v !== null) q.append(name, v);
  }
  let response, text;
  try {
    response = await fetch(path + (q.size ? `?${q}` : ''), {
      method, signal, cache: 'no-store', credentials: 'omit',
      headers: {
        Authorization: `Bearer ${as}`,
        ...body !== undefined && { 'Content-Type': method === 'PATCH' ? 'application/merge-patch+json' : 'application/json' },
        ...headers,
      },
      body: body === undefined ? undefined : typeof body === 'string' ? body : JSON.stringify(body),
    });
    heard(response.headers.get('Date'));
    text = await response.text();
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new ApiError('The gateway does not answer just now.', 0, 'unreachable');
  }
  let answer;
  try {
    answer = text ? JSON.parse(text) : undefined;
  } catch {
    throw new ApiError('What answered is not the gateway.', response.status, 'unreadable');
  }
  if (response.ok) return answer;
  const error = new ApiError(answer?.detail ?? `The gateway answered ${response.status}.`, response.status, answer?.code, Number(response.headers.get('Retry-After')) || undefined);
  if (error.status === 401 && me && as === token()) refused(error);
  throw error;
}

export const get = (path, query, signal) => request('GET', path, { query, signal });
export const post = (path, body = {}) => request('POST', path, { body });

/** A path of its parts, each encoded: path('subscriptions', name, 'seek'). */
export const path = (...parts) => `/v1/${parts.map(encodeURIComponent).join('/')}`;

/** What the fragment of the page's address asks for: #/parts/each-encoded?query. */
export function address() {
  const [path, query = ''] = location.hash.replace(/^#\/?/, '').split('?');
  return { parts: path.split('/').filter(Boolean).map(decoded), query: new URLSearchParams(query) };
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part; // typed by hand
  }
}

/**
 * Listens: an EventSource, which resumes by itself where it was, and what takes
 * over where an EventSource gives up. query is that of /v1/sse; handlers:
 * `event(json text, id)`, `state(name, text)` with live, waiting or refused, and
 * `gap(gap)`. Returns what stops it.
 */
export function listen(query, handlers) {
  let source = null, position = '', timer = 0, stopped = false;

  function ask() {
    const q = new URLSearchParams();
    for (const [name, value] of Object.entries({ ...query, last_event_id: position })) {
      for (const v of [value].flat()) if (v !== '' && v !== undefined) q.append(name, v);
    }
    return q;
  }

  function open() {
    const q = ask();
    q.set('access_token', token());
    handlers.state?.('waiting', 'Connecting…');
    const mine = source = new EventSource(`/v1/sse?${q}`);
    const on = (control, handle) => mine.addEventListener(`longline.${control}`, (e) => {
      if (mine === source) handle(JSON.parse(e.data), e);
    });
    mine.onmessage = (e) => {
      if (mine !== source) return;
      position = e.lastEventId;
      handlers.event(e.data, e.lastEventId);
    };
    on('hello', (hello, e) => {
      position = e.lastEventId;
      handlers.state?.('live', 'Live', hello);
    });
    on('gap', (gap) => handlers.gap?.(gap));
    on('bye', (bye) => {
      if (bye.reconnect) return handlers.state?.('waiting', 'Reconnecting…');
      stop();
      handlers.state?.('refused', bye.reason);
    });
    mine.onerror = () => {
      if (mine !== source) return;
      handlers.state?.('waiting', 'Reconnecting…');
      if (mine.readyState === EventSource.CLOSED) explain();
    };
  }

  // explain asks why the EventSource gave up, which it can't tell itself: a
  // refusal is final, anything else is tried again from the same position.
  async function explain() {
    const given = source;
    const abort = new AbortController();
    let final = null;
    try {
      const response = await fetch(`/v1/sse?${ask()}`, {
        signal: abort.signal, credentials: 'omit',
        headers: { Authorization: `Bearer ${token()}`, Accept: 'text/event-stream, application/problem+json' },
      });
      if (!response.ok && response.status < 500 && response.status !== 429) final = await response.json();
    } catch {
      // The gateway isn't there just now.
    }
    abort.abort();
    if (stopped || given !== source) return;
    source = null;
    if (final) {
      stop();
      handlers.state?.('refused', final.detail);
      return;
    }
    timer = setTimeout(open, 500 + Math.random() * 1500);
  }

  function stop() {
    stopped = true;
    clearTimeout(timer);
    source?.close();
    source = null;
  }

  open();
  return stop;
}
