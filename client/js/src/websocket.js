import { closeError } from './errors.js';
import { connection } from './stream.js';
import { decode } from './wire.js';

/** @typedef {import('./wire.js').Control} Control */

/**
 * What a transport tells: each frame, and once how it ended.
 * @typedef {object} Receiver
 * @property {() => void} seen something came, be it only a sign of life
 * @property {(frame: import('./wire.js').LonglineEvent | Control) => void} frame
 * @property {() => Promise<void>} room resolves when more can be taken
 * @property {(error: unknown) => void} end
 */

/**
 * An open line.
 * @typedef {object} Link
 * @property {(frame: Control) => any} send false: not possible over this
 *   transport; a promise: resolves when the frame has arrived, or can't
 * @property {() => void} close the receiver hears nothing more
 */

/**
 * Makes a line; `name` is the durable subscription's.
 * @typedef {(access: import('./access.js').Access, token: string, query: import('./types.js').Query, receiver: Receiver, name?: string) => Link} Transport
 */

/**
 * The part of a WebSocket that is used.
 * @typedef {object} WebSocketLike
 * @property {((event: any) => void) | null} onmessage
 * @property {((event: any) => void) | null} onclose
 * @property {((event: any) => void) | null} onerror
 * @property {(text: string) => void} send
 * @property {(code?: number) => void} close
 */

/** @type {Transport} */
export function webSocket({ url, options }, token, query, { seen, frame, end }) {
  const WebSocket = options.WebSocket ?? globalThis.WebSocket;
  /** @type {WebSocketLike} */
  const socket = new WebSocket(
    `${url}/v1/ws?${query}`.replace('http', 'ws'),
    // The token goes where no proxy logs it.
    ['longline.v1', ...(token ? [`bearer.${token}`] : [])],
  );
  socket.onmessage = ({ data }) => {
    seen();
    try {
      frame(decode(data));
    } catch (error) {
      end(error);
    }
  };
  socket.onclose = ({ code, reason }) => end(closeError(code, reason));
  // A close should follow, but Node's WebSocket leaves it out where the handshake fails.
  socket.onerror = ({ error }) => end(connection('no WebSocket', error));
  return {
    send(control) {
      socket.send(JSON.stringify(control));
      return true;
    },
    close() {
      socket.onmessage = null;
      socket.close();
    },
  };
}
