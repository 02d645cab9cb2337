// One subscription: how it stands, what it is, what was tried, what was set
// aside, and what can be done about it.
import { get, path } from '/console/api.js';
import { actions } from '/console/actions.js';
import { edit } from '/console/editor.js';
import { attempts, dead } from '/console/history.js';
import { ago, badge, empty, every, exact, facts, h, put, span, svg, table } from '/console/ui.js';

const tabs = { '': 'How it stands', definition: 'Definition', attempts: 'Attempts', dead: 'Dead letters' };

export async function show(page, { parts: [name, tab = ''], signal }) {
  const at = path('subscriptions', name);
  let s = await get(at, {}, signal);
  const state = h('span'), buttons = h('div', { class: 'row' }), body = h('div');
  const address = (t) => `#/subscriptions/${encodeURIComponent(name)}${t ? `/${t}` : ''}`;
  put(page,
    h('div', { class: 'head' },
      h('div', null, h('div', { class: 'crumb' }, h('a', { href: '#/subscriptions' }, 'Subscriptions')),
        h('div', { class: 'row' }, h('h1', { class: 'break' }, name), state),
        s.replay ? h('p', { class: 'small soft' }, 'A replay of ', h('a', { href: `#/subscriptions/${encodeURIComponent(s.replay.of)}` }, s.replay.of), `, from ${s.replay.from} to ${s.replay.to}; it goes by itself when it is done.`)
          : s.description && h('p', { class: 'small soft' }, s.description)),
      buttons),
    h('div', { class: 'stack' },
      h('nav', { class: 'tabs', 'aria-label': 'Parts' }, Object.entries(tabs).map(([t, text]) => h('a', { href: address(t), 'aria-current': t === tab && 'page' }, text))),
      body));

  async function refresh() {
    s = await get(at, {}, signal);
    draw();
  }
  let were = '';
  function draw() {
    put(state, badge(s.status.state));
    // Buttons that stay the same stay in place, for whoever is about to press one.
    const are = `${['paused', 'disabled'].includes(s.status.state) && s.status.state} ${Boolean(s.callback)}`;
    if (are !== were) {
      const had = buttons.contains(document.activeElement);
      put(buttons, actions(() => s, refresh));
      if (had) buttons.querySelector('button')?.focus();
    }
    were = are;
    if (tab === '') standing(body, s, signal);
  }

  draw();
  if (tab === 'definition') put(body, s.replay ? empty('A replay can’t be changed', 'It can be paused and deleted.') : edit(s, refresh));
  else if (tab === 'attempts') await attempts(body, s, signal);
  else if (tab === 'dead') await dead(body, s, signal, refresh);
  else if (tab !== '') put(body, empty('There is no such part'));
  every(3_000, signal, refresh, () => {});
}

/** What the states mean. */
const meaning = {
  live: 'A consumer is connected and is sent what comes.',
  pull: 'A consumer fetches events by request.',
  waiting: 'Nobody is connected; the callback takes over when the grace is over.',
  callback: 'Nobody is connected; events go out by callback.',
  offline: 'Nobody is connected and there is no callback: events wait.',
  paused: 'Delivery is held: events wait until it is resumed.',
  disabled: 'The endpoint answered 410: events wait until the callback is given anew.',
};

function standing(body, s, signal) {
  const { status } = s, c = status.callback;
  if (!body.firstChild) put(body, h('div', { class: 'stack' }, h('div', { class: 'grid' }, h('section', { class: 'card' }), h('section', { class: 'card' })), h('section', { class: 'card' }), h('div')));
  const [top, places, group] = body.firstChild.children, [now, callback] = top.children;
  put(now, h('h2', null, 'Now'), h('div', { class: 'stack tight' },
    h('p', { class: 'small' }, meaning[status.state]),
    facts(
      ['Waiting', `${exact(status.lag.events)} ${status.lag.events === 1 ? 'event' : 'events'}${status.lag.events ? `, the oldest for ${span(status.lag.seconds)}` : ''}`],
      status.consumer && ['Consumer', status.consumer],
      status.transport && ['By', status.transport],
      status.node && ['Node', status.node],
      status.since && ['Since', ago(status.since)],
      status.due && ['Callback due', ago(status.due)],
      ['Set aside', status.dead ? h('a', { href: `#/subscriptions/${encodeURIComponent(s.name)}/dead` }, `${exact(status.dead)} dead letters`) : 'none'])));
  put(callback, h('h2', null, 'Callback'), !s.callback ? h('p', { class: 'soft small' }, 'None: events wait for a consumer.') : facts(
    ['To', h('span', { class: 'mono break' }, `${s.callback.method ?? 'POST'} ${s.callback.url}`)],
    ['When', s.callback.mode === 'always' ? 'always' : `while nobody is connected, after ${s.callback.grace ?? '10s'}`],
    c?.breaker && ['Endpoint', badge(c.breaker, { closed: 'answers', open: 'fails: calls wait', half_open: 'is being tried' }[c.breaker])],
    c?.last_status && ['Last answer', String(c.last_status)],
    c?.last_error && ['Last error', h('span', { class: 'break' }, c.last_error)],
    c?.next_attempt && ['Next attempt', ago(c.next_attempt)],
    c && ['In flight', exact(c.in_flight ?? 0)],
    ['Pace', `${s.callback.rate ? `${s.callback.rate} calls a second` : 'as fast as it answers'}, ${s.callback.concurrency ?? 1} at once, in order of ${s.callback.order ?? 'channel'}`]));
  picture(places, s, signal);
  members(group, s);
}

/** Where the position stands in each channel's log; only channels that are asked for are read. */
async function picture(box, s, signal) {
  const cursors = new Map(s.cursor.split(',').filter(Boolean).map((c) => [c.slice(0, c.lastIndexOf('@')), Number(c.split('-').at(-1))]));
  const logs = await Promise.all(s.channels.slice(0, 20).map((c) => get(path('channels', c), {}, signal).catch(() => null)));
  if (signal.aborted) return;
  put(box, h('h2', null, 'Position'), h('div', { class: 'stack' }, logs.map((log, i) => {
    const channel = s.channels[i], at = cursors.get(channel);
    if (!log || at === undefined) return h('p', { class: 'small soft' }, `${channel}: nothing was published yet.`);
    const first = Math.max(log.first, 1) - 1, size = Math.max(log.head - first, 1), x = (n) => Math.min(Math.max((n - first) / size, 0), 1) * 100;
    const wait = Math.max(log.head - at, 0);
    return h('div', { class: 'place' },
      h('div', { class: 'row between small' }, h('a', { href: `#/channels/${encodeURIComponent(channel)}` }, channel), h('span', { class: 'num' }, wait ? `${exact(wait)} wait` : 'at the head')),
      svg('svg', { viewBox: '0 0 100 10', preserveAspectRatio: 'none', role: 'img', 'aria-label': `Position ${exact(at)} of ${exact(log.head)}; the oldest event kept is ${exact(log.first)}` },
        svg('rect', { class: 'log', y: 3, width: 100, height: 4 }),
        svg('rect', { class: 'done', y: 3, width: x(at), height: 4 }),
        svg('rect', { class: 'todo', x: x(at), y: 3, width: 100 - x(at), height: 4 }),
        (s.status.partitions ?? []).map((p) => {
          const own = Number(p.cursor.split(',').find((c) => c.startsWith(`${channel}@`))?.split('-').at(-1));
          return own >= 0 && svg('rect', { class: 'at', x: x(own), y: 2, width: 0.25, height: 6, opacity: 0.6 });
        }),
        svg('rect', { class: 'at', x: Math.min(x(at), 99.5), width: 0.5, height: 10 })),
      h('div', { class: 'ends' }, h('span', null, `#${exact(Math.max(log.first, 1))}, the oldest kept`), h('span', null, `position #${exact(at)}`), h('span', null, `head #${exact(log.head)}`)));
  }), s.channels.length > 20 && h('p', { class: 'small soft' }, `and ${s.channels.length - 20} more channels`)));
}

function members(box, s) {
  if (!s.group) return put(box);
  const { members: all = [], partitions = [] } = s.status;
  put(box, h('div', { class: 'grid wide' },
    h('section', { class: 'stack tight' }, h('h2', null, `Consumers (${all.length})`), table({
      caption: 'Consumers', rows: all,
      columns: [
        { title: 'Consumer', cell: (m) => m.consumer }, { title: 'By', cell: (m) => m.transport }, { title: 'Node', cell: (m) => m.node },
        { title: 'Partitions', cell: (m) => m.partitions.join(', ') || 'none: stands by' }, { title: 'Since', cell: (m) => ago(m.since) },
      ], empty: h('p', { class: 'soft small' }, 'Nobody is connected.'),
    })),
    h('section', { class: 'stack tight' }, h('h2', null, `Partitions (${s.group.partitions})`), table({
      caption: 'Partitions', rows: partitions,
      columns: [
        { title: 'Partition', right: true, cell: (p) => p.partition }, { title: 'Consumer', cell: (p) => p.consumer || '–' },
        { title: 'Waiting', right: true, cell: (p) => exact(p.lag.events) }, { title: 'Oldest', right: true, cell: (p) => p.lag.events ? span(p.lag.seconds) : '–' },
      ], empty: h('p', { class: 'soft small' }, 'Not known.'),
    }))));
}
