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

  return {
    send: ({ op, cursor }) => op === 'ack' && access.request(
      'POST', `/v1/subscriptions/${encodeURIComponent(`${name}`)}/ack`, { cursor, connection: id }, { signal, attempts: Infinity },
    ).then(() => true, (error) => (end(error), false)),
    close: () => abort.abort(),
  };
}
