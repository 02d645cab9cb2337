// Subscriptions: the list. One of them is subscription.js.
import { get } from '/console/api.js';
import { spark } from '/console/chart.js';
import { longTable } from '/console/long.js';
import { badge, button, choice, empty, exact, field, h, number, pause, put, span } from '/console/ui.js';

const states = ['live', 'pull', 'waiting', 'callback', 'offline', 'paused', 'disabled'];

export async function show(page, context) {
  if (context.parts[0] === 'new') return (await import('/console/editor.js')).create(page, context);
  if (context.parts[0]) return (await import('/console/subscription.js')).show(page, context);
  return list(page, context);
}

/** What the list has seen: name → {lag: the last numbers waiting, at, done, rate}. It outlives the page, and forgets who is gone. */
let history = new Map();

const link = (name) => `#/subscriptions/${encodeURIComponent(name)}`;

async function list(page, { query, signal }) {
  const prefix = h('input', { value: query.get('prefix') ?? '', placeholder: 'crm-', autocomplete: 'off', spellcheck: 'false' });
  const channel = h('input', { value: query.get('channel') ?? '', placeholder: 'any', autocomplete: 'off', spellcheck: 'false' });
  const label = h('input', { value: query.get('label') ?? '', placeholder: 'customer=42', autocomplete: 'off', spellcheck: 'false' });
  const state = choice('state', [['', 'any'], ...states], query.get('state') ?? '', { onchange: find });
  const order = choice('order', [['name', 'name'], ['lag', 'most waiting'], ['dead', 'most set aside']], query.get('order') ?? 'name', { onchange: () => draw() });
  const count = h('p', { class: 'small soft', role: 'status' }, 'Looking…');
  const shown = h('div');
  let rows = [], round = 0;

  const rowsTable = longTable({
    caption: 'Subscriptions', key: (s) => s.name,
    columns: [
      { title: 'Name', cell: (s) => h('a', { href: link(s.name) }, s.name) },
      { title: 'State', cell: (s) => badge(s.status.state) },
      { title: 'Waiting', right: true, cell: (s) => exact(s.status.lag.events) },
      { title: 'Oldest', right: true, cell: (s) => s.status.lag.events ? span(s.status.lag.seconds) : '–' },
      { title: 'Lately', cell: (s) => spark(history.get(s.name)?.lag ?? [], `waiting lately: ${(history.get(s.name)?.lag ?? []).slice(-5).join(', ')}`) },
      { title: 'Done', right: true, cell: (s) => history.get(s.name)?.rate === undefined ? '–' : `${number(history.get(s.name).rate)}/s` },
      { title: 'Set aside', right: true, cell: (s) => s.status.dead ? h('a', { href: `${link(s.name)}/dead` }, exact(s.status.dead)) : '0' },
      { title: 'Last error', cell: (s) => h('span', { class: 'why', title: s.status.callback?.last_error }, s.status.callback?.last_error ?? '') },
    ],
  });

  const filtered = () => prefix.value || channel.value || label.value || state.value;

  async function load() {
    const mine = ++round, all = [];
    for (let cursor = ''; ;) {
      const answer = await get('/v1/subscriptions', {
        prefix: prefix.value.trim(), channel: channel.value.trim(), label: label.value.trim(), state: state.value, cursor, limit: 1000,
      }, signal);
      if (mine !== round) return;
      all.push(...answer.subscriptions);
      cursor = answer.next ?? '';
      if (!cursor) break;
      if (all.length > rows.length) { // the first time: show what there is
        rows = all.slice();
        draw();
        await pause(0, signal);
      }
    }
    rows = all;
    const now = Date.now();
    const had = history;
    if (!filtered()) history = new Map();
    for (const s of rows) note(s, now, had.get(s.name));
    draw();
  }

  /** Remembers what a list that refreshes itself can tell of the time in between. */
  function note(s, now, had = { lag: [] }) {
    const done = s.cursor.split(',').reduce((sum, c) => sum + Number(c.split('-').at(-1)), 0);
    if (had.at && done >= had.done) had.rate = (done - had.done) / (now - had.at) * 1000;
    had.lag.push(s.status.lag.events);
    if (had.lag.length > 30) had.lag.shift();
    Object.assign(had, { at: now, done });
    history.set(s.name, had);
  }

  function draw() {
    const by = { name: null, lag: (s) => s.status.lag.events, dead: (s) => s.status.dead }[order.value];
    const sorted = by ? [...rows].sort((a, b) => by(b) - by(a)) : rows;
    count.textContent = rows.length === 1 ? '1 subscription' : `${exact(rows.length)} subscriptions`;
    if (!rows.length) {
      put(shown, h('div', { class: 'card' }, filtered()
        ? empty('None is like that', 'Names are matched from their beginning; labels are NAME=VALUE.')
        : empty('No subscriptions yet', 'A subscription is a position in channels that outlives connections: nothing is lost while nobody is there.', h('a', { class: 'button', href: '#/subscriptions/new' }, 'Make one'))));
      return;
    }
    if (shown.firstChild !== rowsTable.element) put(shown, rowsTable.element);
    rowsTable.show(sorted);
  }

  async function find(e) {
    e?.preventDefault();
    rows = [];
    const q = new URLSearchParams(Object.entries({ prefix: prefix.value.trim(), channel: channel.value.trim(), label: label.value.trim(), state: state.value }).filter(([, v]) => v));
    window.history.replaceState(null, '', `#/subscriptions${q.size ? `?${q}` : ''}`);
    try {
      await load();
    } catch (error) {
      if (error.name !== 'AbortError') count.textContent = error.message;
    }
  }

  put(page,
    h('div', { class: 'head' }, h('h1', null, 'Subscriptions'), h('a', { class: 'button', href: '#/subscriptions/new' }, 'New…')),
    h('div', { class: 'stack' },
      h('form', { class: 'bar-line', role: 'search', onsubmit: find },
        field('Begins with', prefix), field('State', state), field('Channel', channel), field('Label', label), field('Order', order), h('button', null, 'Find')),
      count, shown));
  await load();
  // A refresh of thousands costs the gateway something: not so often then.
  (async () => {
    while (!signal.aborted) {
      await pause(rows.length > 1000 ? 30_000 : 5_000, signal);
      if (!signal.aborted && document.visibilityState === 'visible') await load().catch((error) => { count.textContent = `${error.message} What is shown may be old.`; });
    }
  })();
}
