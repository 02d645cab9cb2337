// One event: what it is, and what became of it for each subscription.
import { get, path, post } from '/console/api.js';
import { ago, ask, badge, button, copy, empty, exact, facts, h, json, problem, put, span, svg, toast } from '/console/ui.js';

/** What a state means, in a sentence. */
const meaning = {
  acknowledged: 'It was delivered, and the receiver said that it is done.',
  in_flight: 'It was sent; the receiver has not said yet that it is done.',
  waiting: 'It waits for its turn.',
  dead: 'It was set aside: it could not be delivered.',
  gap: 'It was gone from the log before it could be delivered.',
  skipped: 'Somebody moved the position past it.',
  not_matched: 'The subscription’s types or filter leave it out.',
};

export async function show(page, { parts, signal }) {
  const cursor = parts[0] ?? '';
  const [, channel, epoch, offset] = cursor.match(/^(.+)@([^@-]+)-(\d+)$/) ?? [];
  if (!channel) {
    put(page, h('h1', null, 'Event'), empty('That is no cursor', 'A cursor is a channel, an epoch and an offset: acct-42@k3f9zq-1053.'));
    return;
  }
  const read = await get(path('channels', channel, 'events'), { since: `${channel}@${epoch}-${offset - 1}`, limit: 1 }, signal);
  const event = read.events[0]?.cursor.endsWith(`-${offset}`) ? read.events[0] : null;
  const fates = h('div', { class: 'stack' }, h('p', { class: 'soft' }, 'Asking…'));
  put(page,
    h('div', { class: 'head' },
      h('div', null, h('div', { class: 'crumb' }, h('a', { href: `#/channels/${encodeURIComponent(channel)}` }, channel), ' / event'),
        h('h1', { class: 'break' }, event?.type ?? 'Event')),
      h('div', { class: 'row' },
        offset > 1 && h('a', { class: 'button', href: neighbour(channel, epoch, offset, -1) }, 'Before'),
        h('a', { class: 'button', href: neighbour(channel, epoch, offset, 1) }, 'After'))),
    h('div', { class: 'stack' },
      event ? about(event) : h('p', { class: 'note warn' }, 'This event is not in the log any longer, or not yet. What is known of it is below.'),
      h('h2', null, 'What became of it'), fates));
  const { subscriptions, next } = await get('/v1/subscriptions', { channel, limit: 200 }, signal);
  const traced = await inTurn(subscriptions, 6, async (s) => {
    try {
      return { s, trace: await get(path('subscriptions', s.name, 'trace'), { cursor }, signal) };
    } catch (error) {
      if (error.name === 'AbortError') throw error;
      return { s, error };
    }
  });
  traced.sort((a, b) => (a.trace?.state === 'not_matched') - (b.trace?.state === 'not_matched'));
  put(fates, traced.length ? traced.map((t) => fate(t, event, cursor, signal)) : h('div', { class: 'card' }, empty('Nobody is subscribed to this channel', 'Who listens without a subscription keeps a position of their own; the gateway does not know what became of it there.')),
    next && h('p', { class: 'soft small' }, 'Only the first 200 subscriptions are shown.'));
}

const neighbour = (channel, epoch, offset, by) => `#/events/${encodeURIComponent(`${channel}@${epoch}-${Number(offset) + by}`)}`;

function about(event) {
  const { data, data_base64: raw, ...rest } = event;
  const usual = ['specversion', 'id', 'source', 'type', 'time', 'subject', 'partitionkey', 'channel', 'cursor', 'datacontenttype'];
  return h('section', { class: 'card stack' },
    facts(
      ['Published', h('span', null, new Date(event.time).toLocaleString(), ' (', ago(event.time), ')')],
      event.subject !== undefined && ['Subject', event.subject],
      event.partitionkey !== undefined && ['Key', event.partitionkey],
      ['Source', event.source],
      ['Id', h('span', { class: 'mono' }, event.id)],
      ['Cursor', h('span', { class: 'mono' }, event.cursor)],
      ...Object.keys(rest).filter((k) => !usual.includes(k)).map((k) => [k, String(rest[k])])),
    h('div', null,
      h('div', { class: 'row between' }, h('h2', null, raw ? 'Data (base64)' : 'Data'), copy(() => JSON.stringify(event, null, 2), 'Copy the event')),
      data === undefined && raw === undefined ? h('p', { class: 'soft' }, 'None.') : json(raw ?? data)));
}

function fate({ s, trace, error }, event, cursor, signal) {
  const link = h('h3', null, h('a', { href: `#/subscriptions/${encodeURIComponent(s.name)}` }, s.name));
  if (error) return h('section', { class: 'card fate' }, link, problem(error));
  const card = h('section', { class: 'card fate', dataset: { subscription: s.name } });
  const again = trace.state !== 'not_matched' && button('Deliver again…', () => resend(s, cursor, trace, async () => {
    card.replaceWith(fate({ s, trace: await get(path('subscriptions', s.name, 'trace'), { cursor }, signal) }, event, cursor, signal));
  }));
  return put(card,
    h('div', { class: 'row between' }, h('div', { class: 'row' }, link, badge(trace.state), trace.since && h('small', { class: 'soft' }, ago(trace.since))), again),
    h('p', { class: 'small soft' }, trace.reason ? `${meaning[trace.state]} ${trace.reason}` : meaning[trace.state]),
    trace.attempts.length > 0 && waterfall(trace.attempts, event));
}

/** Attempts as bars in time, from when the event was published on; the oldest first. */
function waterfall(attempts, event) {
  const all = [...attempts].reverse();
  const from = Math.min(event ? Date.parse(event.time) : Infinity, ...all.map((a) => Date.parse(a.time)));
  const to = Math.max(...all.map((a) => Date.parse(a.time) + (a.latency_ms ?? 0)), from + 1);
  const x = (t) => (t - from) / (to - from) * 100;
  return h('div', null,
    h('div', { class: 'fall', role: 'list', 'aria-label': 'Attempts' }, all.map((a, i) => {
      const begins = Date.parse(a.time), width = Math.max((a.latency_ms ?? 0) / (to - from) * 100, 0.6);
      const kind = a.status >= 200 && a.status < 300 && !a.error ? 'good' : a.status === 429 || a.status === 503 ? 'wait' : 'bad';
      return h('div', { role: 'listitem' },
        h('span', { class: 'num' }, `#${i + 1} `, `+${span(Math.max(begins - from, 0) / 1000)}`),
        svg('svg', { viewBox: '0 0 100 10', preserveAspectRatio: 'none', 'aria-hidden': 'true' },
          svg('rect', { class: 'track', width: 100, height: 10, rx: 0.5 }),
          svg('rect', { class: kind, x: Math.min(x(begins), 100 - width), width, height: 10, rx: 0.3 })),
        h('span', { class: 'num' }, `${a.status || 'no answer'}, ${span((a.latency_ms ?? 0) / 1000)}`));
    })),
    h('details', null, h('summary', null, `${exact(all.length)} ${all.length === 1 ? 'attempt' : 'attempts'}, with what was answered`),
      h('div', { class: 'stack tight' }, all.map((a, i) => h('div', null,
        h('p', { class: 'small' }, `#${i + 1}, ${new Date(a.time).toLocaleString()}: ${a.method ?? 'POST'} `, h('span', { class: 'mono break' }, a.url ?? ''), a.error && `: ${a.error}`),
        a.body && json(a.body))))));
}

/** Asks, and has one event delivered again to one subscription. */
export async function resend(s, cursor, trace, done) {
  const yes = await ask({
    title: `Deliver again to ${s.name}?`, action: 'Deliver again',
    text: [
      trace?.state === 'waiting' ? 'It has not been delivered yet and will be anyway; this delivers it once more.' : 'The event is delivered once more, marked as a redelivery, and only to this subscription.',
      'The subscription’s position stays where it is. What the receiver does with an event that it had already can’t be taken back.',
    ],
  });
  if (!yes) return;
  await post(path('subscriptions', s.name, 'resend'), { cursors: [cursor] });
  toast(`On its way to ${s.name}`);
  await done?.();
}

/** Runs for each of a list, so many at once; the answers in the list's order. */
export async function inTurn(list, width, run) {
  const out = [];
  let next = 0;
  await Promise.all(Array.from({ length: Math.min(width, list.length) }, async () => {
    for (let i = next++; i < list.length; i = next++) out[i] = await run(list[i]);
  }));
  return out;
}
