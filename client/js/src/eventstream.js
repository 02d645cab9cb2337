import { bearer } from './access.js';
import { Parser } from './parser.js';
import { connection, open, read } from './stream.js';
import { decode } from './wire.js';

const OPS = 'longline.';

/**
 * The line over SSE: frames arrive as messages of an event stream, and what
 * the client has to say goes by POST.
 * @type {import('./websocket.js').Transport}
 */
export function eventStream(access, token, query, { seen, frame, room, end }, name) {
  const abort = new AbortController();
  const { signal } = abort;
  const parser = new Parser();
  /** @type {string} */
  let id;

  (async () => {
    const response = await open(access.fetch, `${access.url}/v1/sse?${query}`, { signal, headers: bearer(token) });
    for await (const messages of read(response, parser)) {
      seen();
      for (const { type, data } of messages) {
        if (signal.aborted) return;
        if (type.startsWith(OPS)) {
          const control = JSON.parse(data);
          id ??= control.connection;
          frame({ ...control, op: type.slice(OPS.length) });
        } else frame(decode(data));
      }
      // An id without data: the position moved over what was left out.
      if (!messages[0] && parser.lastEventId) frame({ op: 'position', cursor: parser.lastEventId });
      // Not reading is what slows the gateway down.
      await room();
    }
    throw connection('stream ended', 0, { retryAfter: parser.retry });
  })().catch(end);

  // One POST at a time, since an event must be rejected before it is acknowledged.
  /** @type {Promise<any>} */
  let posted = Promise.resolve();
  return {
    send({ op, ...body }) {
      if (op !== 'ack' && op !== 'reject') return false;
      const path = `/v1/subscriptions/${encodeURIComponent(`${name}`)}/${op}`;
      return posted = posted.then(() =>
        access.request('POST', path, { ...body, connection: id }, { signal, attempts: Infinity })
          // Who doesn't own the subscription any longer will hear of it. An
          // event that can't be rejected this way must not hold up the others.
          .catch((error) => op === 'ack' && error.status !== 409 && end(error)));
    },
    close: () => abort.abort(),
  };
}
