// Channels: the list, and one channel with its tail.
import { get, me, path, recall, remember, request } from '/console/api.js';
import { tail } from '/console/tail.js';
import { ask, bytes, button, empty, exact, every, facts, field, h, number, problem, put, table, toast } from '/console/ui.js';

const address = (channel) => `#/channels/${encodeURIComponent(channel)}`;

export function show(page, context) {
  return context.parts[0] ? one(page, context, context.parts[0]) : list(page, context);
}

async function list(page, { signal, query }) {
  const prefix = h('input', { id: 'find', value: query.get('prefix') ?? '', placeholder: 'acct-', autocomplete: 'off', spellcheck: 'false', maxlength: 128 });
  const shown = h('div', null, h('p', { class: 'soft' }, 'Looking…'));
  const more = h('div', { class: 'row' });
  let rows = [], next = '';

  async function load(from) {
    if (!me.admin) return known();
    const answer = await get('/v1/channels', { prefix: prefix.value.trim(), page: from, limit: 100, details: true }, signal);
    rows = from ? [...rows, ...answer.details ?? []] : answer.details ?? [];
    next = answer.next ?? '';
  }

  /** Those that the token names, for who may not list them all. */
  async function known() {
    const names = [...new Set([...me.subscribe, ...me.publish])].filter((n) => !n.includes('*') && n.startsWith(prefix.value.trim()));
    const all = await Promise.all(names.map((n) => get(path('channels', n), {}, signal).catch((error) => {
      if (error.status === 404 || error.status === 403) return { channel: n };
      throw error;
    })));
    rows = all.sort((a, b) => a.channel < b.channel ? -1 : 1);
  }

  function draw() {
    put(shown, table({
      caption: 'Channels', rows, key: (r) => r.channel,
      columns: [
        { title: 'Channel', cell: (r) => h('a', { href: address(r.channel), class: 'break' }, r.channel) },
        { title: 'Events', right: true, cell: (r) => exact(r.events) },
        { title: 'Newest', right: true, cell: (r) => r.head ? `#${exact(r.head)}` : '–' },
        { title: 'Size', right: true, cell: (r) => r.bytes === undefined ? '–' : bytes(r.bytes) },
        { title: 'Readers here', right: true, cell: (r) => exact(r.connections) },
      ],
      empty: h('div', { class: 'card' }, prefix.value
        ? empty('No channel begins so', 'Names are matched from their beginning.')
        : empty('No channels yet', 'A channel exists once something is published to it, or subscribed to.')),
    }));
    put(more, next && button('More', async () => {
      await load(next);
      draw();
    }));
  }

  const form = h('form', { class: 'bar-line', role: 'search', onsubmit: async (e) => {
    e.preventDefault();
    try {
      await load('');
      if (!me.admin && !rows.length) location.hash = address(prefix.value.trim());
      draw();
    } catch (error) {
      put(shown, problem(error));
    }
  } },
    field(me.admin ? 'Begins with' : 'Channel', prefix), h('button', null, me.admin ? 'Find' : 'Open'));
  await load('');
  put(page, h('div', { class: 'head' }, h('h1', null, 'Channels'), button('Publish…', () => publish(prefix.value.trim()))),
    h('div', { class: 'stack' }, form,
      !me.admin && h('p', { class: 'small soft' }, `This token may read ${me.subscribe.join(', ') || 'no channels'}. Only admins can list all of them.`),
      shown, more));
  draw();
}

async function one(page, { signal, query }, channel) {
  const state = h('div');
  remember('channel', channel);
  async function look() {
    try {
      const c = await get(path('channels', channel), {}, signal);
      put(state, facts(
        ['Events', `${exact(c.events)} kept, from #${exact(c.first)} to #${exact(c.head)}`],
        ['Size', bytes(c.bytes)],
        ['Readers here', exact(c.connections)],
        ['Epoch', h('span', { class: 'mono' }, c.epoch)]));
    } catch (error) {
      if (error.status !== 404) throw error;
      put(state, h('p', { class: 'soft' }, 'Nothing was published here yet.'));
    }
  }
  const types = await get(path('channels', channel, 'types'), {}, signal).catch((error) => {
    if (error.status === 404) return { types: [] };
    throw error;
  });
  put(page,
    h('div', { class: 'head' },
      h('div', null, h('div', { class: 'crumb' }, h('a', { href: '#/channels' }, 'Channels')), h('h1', { class: 'break' }, channel)),
      h('div', { class: 'row' },
        h('a', { class: 'button', href: `#/subscriptions?channel=${encodeURIComponent(channel)}` }, 'Its subscriptions'),
        button('Publish…', () => publish(channel), { class: 'main' }))),
    h('div', { class: 'stack' },
      h('div', { class: 'grid' },
        h('section', { class: 'card' }, h('h2', null, 'The log'), state),
        h('section', { class: 'card' }, h('h2', null, 'Types seen'),
          types.types.length ? h('ul', { class: 'legend' }, types.types.slice(0, 12).map((t) => h('li', null, t.type, h('b', null, number(t.events)))))
            : h('p', { class: 'soft' }, 'None yet.')),
        h('section', { class: 'card' }, h('h2', null, 'Find one event'), finder(channel, signal))),
      tail({ channel, signal, types: types.types.map((t) => t.type), since: query.get('since') })));
  await look();
  every(5_000, signal, look);
}

/** Finds an event by its cursor or its id. */
function finder(channel, signal) {
  const input = h('input', { autocomplete: 'off', spellcheck: 'false', required: true, placeholder: 'id, or a cursor' });
  const said = h('p', { class: 'small soft', role: 'status' });
  return h('form', { class: 'stack tight', role: 'search', 'aria-label': 'One event', onsubmit: async (e) => {
    e.preventDefault();
    const text = input.value.trim();
    if (text.includes('@')) {
      location.hash = `#/events/${encodeURIComponent(text)}`;
      return;
    }
    try {
      let since = 'earliest', looked = 0;
      for (;;) {
        said.textContent = looked ? `Looked at ${exact(looked)} events…` : 'Looking…';
        const read = await get(path('channels', channel, 'events'), { since, limit: 1, filter: `event.id == ${JSON.stringify(text)}` }, signal);
        if (read.events.length) {
          location.hash = `#/events/${encodeURIComponent(read.events[0].cursor)}`;
          return;
        }
        const before = since === 'earliest' ? 0 : Number(since.split('-').at(-1)), at = Number(read.cursor.split('-').at(-1));
        if (read.cursor === since || at === before) break;
        looked += at - before;
        since = read.cursor;
      }
      said.textContent = 'No event of this channel has that id.';
    } catch (error) {
      if (error.name !== 'AbortError') said.textContent = error.message;
    }
  } }, h('div', { class: 'bar-line' }, field('Event', input), h('button', null, 'Find')), said);
}

/** Asks for an event and publishes it. */
export async function publish(channel) {
  const last = (name, without) => recall(`publish.${name}`) || without;
  const given = await ask({
    title: 'Publish an event', action: 'Publish',
    text: 'It goes to everybody who listens to the channel or is subscribed to it, callbacks included, as any event does. It can’t be taken back.',
    fields: h('div', { class: 'fields' },
      field('Channel', h('input', { name: 'channel', value: channel, required: true, maxlength: 128, spellcheck: 'false', autocomplete: 'off' })),
      field('Type', h('input', { name: 'type', value: last('type', 'test.event'), required: true, spellcheck: 'false', autocomplete: 'off' })),
      field('Subject', h('input', { name: 'subject', spellcheck: 'false', autocomplete: 'off' })),
      field('Key', h('input', { name: 'partitionkey', spellcheck: 'false', autocomplete: 'off' }), 'Events with one key stay in order.'),
      field('Data', h('textarea', { name: 'data', rows: 6, spellcheck: 'false', value: last('data', '{\n  "hello": "world"\n}') }), 'JSON; empty for none.', true)),
  });
  if (!given) return;
  const event = { type: given.type.trim() };
  if (given.subject) event.subject = given.subject;
  if (given.partitionkey) event.partitionkey = given.partitionkey;
  if (given.data.trim()) {
    try {
      event.data = JSON.parse(given.data);
    } catch (error) {
      throw new Error(`The data is no JSON: ${error.message}`);
    }
  }
  remember('publish.type', event.type);
  remember('publish.data', given.data);
  const answer = await request('POST', path('channels', given.channel.trim(), 'events'), { body: event });
  const { cursor } = answer.events[0];
  toast(h('span', null, 'Published as ', h('a', { href: `#/events/${encodeURIComponent(cursor)}` }, cursor)));
}
