import { errorFor } from './errors.js';
import { MAX } from './parser.js';

/**
 * A CloudEvents 1.0 event as the gateway sends it, with any extension
 * attributes of the publisher.
 * @template [T=any]
 * @typedef {object} LonglineEvent
 * @property {string} specversion
 * @property {string} id
 * @property {string} source
 * @property {string} type what happened, e.g. "email.opened"
 * @property {string} [time] RFC 3339
 * @property {string} [subject]
 * @property {string} [partitionkey] events with the same key stay in order
 * @property {string} [channel]
 * @property {string} [cursor] the event's place in its channel
 * @property {string} [datacontenttype]
 * @property {T} [data] the publisher's
 * @property {string} [data_base64] the publisher's, where it is no JSON or text
 * @property {undefined} [op]
 */

/**
 * Events after `from` up to and including `to` won't come.
 * @typedef {object} Gap
 * @property {string} channel
 * @property {string} from
 * @property {string} to
 * @property {'retention' | 'reset' | 'conflated' | 'lag'} reason
 */

/**
 * A control frame; its other fields go by the op.
 * @typedef {{op: string, specversion?: undefined, [field: string]: any}} Control
 */

/** @typedef {{channel: string, epoch: string, offset: number, toString: () => string}} Cursor */

/**
 * Decodes a frame: an event or a control frame, told apart by `specversion`.
 * Throws a ProtocolError for anything else,
 * a TooLargeError for one beyond reason.
 * @param {string} text
 * @returns {LonglineEvent | Control}
 */
export function decode(text) {
  let frame;
  if (text.length > MAX) throw errorFor(413, `more than ${MAX} characters`);
  try {
    frame = JSON.parse(text);
  } catch (cause) {
    throw protocol('no JSON', cause);
  }
  const { op, specversion, id, source, type } = frame ?? {};
  if (isText(op) || specversion === '1.0' && [id, source, type].every(isText)) return frame;
  throw protocol('no event');
}

/** @param {unknown} value */
const isText = (value) => value && typeof value === 'string';

/**
 * @param {string} message
 * @param {unknown} [cause]
 */
export function protocol(message, cause) {
  return errorFor('protocol', message, { cause });
}

const CURSOR = /^((?:[\w:-]+\.)*[\w:-]+)@([a-z0-9]+)-(0|[1-9]\d*)$/;

/**
 * Reads `<channel>@<epoch>-<offset>`; as text the result is the same again.
 * @param {string} text
 * @returns {Cursor}
 */
export function parseCursor(text) {
  const match = CURSOR.exec(text);
  if (!match) throw protocol(`no cursor: ${text}`.slice(0, 80));
  return { channel: match[1], epoch: match[2], offset: +match[3], toString: () => text };
}

/**
 * A place in several channels: the cursor of each, by channel.
 * @typedef {Map<string, Cursor>} Position
 */

/**
 * Moves a position to each of the cursors.
 * @param {string} text joined by commas, or ""
 * @param {Position} [position] a new one
 */
export function move(text, position = new Map()) {
  for (const one of text ? text.split(',') : []) {
    const cursor = parseCursor(one);
    position.set(cursor.channel, cursor);
  }
  return position;
}

/**
 * Writes a position.
 * @param {Position} position
 */
export const text = (position) => `${[...position.values()]}`;
