// Who is connected, and the nodes.
import { get, path, request } from '/console/api.js';
import { ago, ask, badge, button, empty, every, exact, field, h, problem, put, table, toast } from '/console/ui.js';

const SHOWN = 200;

export async function show(page, { query, signal }) {
  const nodesBox = h('div'), list = h('div'), count = h('p', { class: 'small soft', role: 'status' });
  const sub = h('input', { value: query.get('sub') ?? '', autocomplete: 'off', spellcheck: 'false', placeholder: 'any' });
  const of = h('select', null, h('option', { value: '' }, 'all'));
  const channel = h('input', { value: query.get('channel') ?? '', autocomplete: 'off', spellcheck: 'false', placeholder: 'any' });

  let names = []; // of the nodes

  async function nodes() {
    const { nodes: all } = await get('/v1/nodes', {}, signal);
    names = all.map((n) => n.node);
    if ([...of.options].slice(1).map((o) => o.value).join() !== names.join()) {
      const chosen = of.value;
      put(of, ['', ...names].map((n) => h('option', { value: n, selected: n === chosen }, n || 'all')));
    }
    put(nodesBox, table({
      caption: 'Nodes', rows: all, key: (n) => n.node,
      columns: [
        { title: 'Node', cell: (n) => n.node },
        { title: 'State', cell: (n) => n.draining ? badge('draining') : badge('ready', 'takes connections') },
        { title: 'Connections', right: true, cell: (n) => exact(n.connections) },
        { title: 'Up', cell: (n) => ago(n.started) },
        { title: 'Heard of', cell: (n) => ago(n.seen) },
        { title: 'Version', cell: (n) => n.version || '–' },
        { title: 'Action', cell: (n) => n.draining ? button('Take back', () => drain(n, false, all.length)) : button('Drain…', () => drain(n, true, all.length)) },
      ],
      empty: empty('No node was heard of yet'),
    }));
  }

  async function drain(n, on, all) {
    if (on && !await ask({
      title: `Drain ${n.node}?`, action: 'Drain', danger: all < 2,
      text: [
        `Within 30 seconds its ${exact(n.connections)} connections are told to come back, and it takes no new ones; its /readyz fails at once. It goes on answering requests and calling callbacks.`,
        all < 2 ? 'It is the only node: until it is taken back, nobody can connect.' : 'They come back to the other nodes and go on where they were.',
        'Take back undoes it.',
      ],
    })) return;
    await request(on ? 'POST' : 'DELETE', path('nodes', n.node, 'drain'));
    toast(on ? `${n.node} drains` : `${n.node} takes connections again`, on && (() => request('DELETE', path('nodes', n.node, 'drain'))));
    await nodes();
  }

  async function connections() {
    // Each node knows its own; one that doesn't answer is named, and doesn't hide the others'.
    const silent = [];
    const answers = (await Promise.all((of.value ? [of.value] : names).map((node) => get('/v1/connections', { node, sub: sub.value.trim(), channel: channel.value.trim(), limit: SHOWN }, signal).catch((error) => {
      if (error.status !== 503 && error.status !== 404) throw error;
      silent.push(node);
    })))).filter(Boolean);
    const total = answers.reduce((sum, a) => sum + a.total, 0);
    const all = answers.flatMap((a) => a.connections.map((c) => ({ ...c, node: a.node }))).sort((a, b) => a.since < b.since ? -1 : 1).slice(0, SHOWN);
    count.textContent = `${exact(total)} ${total === 1 ? 'connection' : 'connections'}${total > all.length ? `; the ${exact(all.length)} oldest are shown` : ''}.${silent.length ? ` Node ${silent.join(', ')} did not answer.` : ''}`;
    put(list, table({
      caption: 'Connections', rows: all, key: (c) => c.connection,
      columns: [
        { title: 'Who', cell: (c) => [h('div', null, c.sub || '–'), c.address && h('small', { class: 'soft' }, c.address)] },
        { title: 'Node', cell: (c) => c.node },
        { title: 'By', cell: (c) => c.transport },
        { title: 'Listens to', cell: (c) => c.subscription ? h('a', { href: `#/subscriptions/${encodeURIComponent(c.subscription)}` }, c.subscription) : channels(c) },
        { title: 'Behind', right: true, cell: (c) => exact(c.behind) },
        { title: 'Since', cell: (c) => ago(c.since) },
        { title: 'Token ends', cell: (c) => ago(c.expires) },
        { title: 'Action', cell: (c) => button('Close…', () => close(c)) },
      ],
      empty: h('div', { class: 'card' }, sub.value || channel.value ? empty('Nobody is like that') : empty('Nobody is connected')),
    }));
  }

  async function close(c) {
    if (!await ask({
      title: 'Close this connection?', action: 'Close', text: [
        `${c.sub || 'Its holder'} is told goodbye${c.subscription ? `; ${c.subscription} goes on from what was acknowledged` : ''}. A client that is still meant to be there may come back by itself; to keep somebody out, revoke the token (see Tokens).`],
    })) return;
    await request('DELETE', path('connections', c.connection));
    toast(names.length > 1 ? `Node ${c.node} is told to close it` : 'Closed');
    await connections();
  }

  const refresh = async () => {
    // A button that is about to be pressed stays in place.
    if (list.contains(document.activeElement) || nodesBox.contains(document.activeElement)) return;
    await look();
  };
  const look = async () => {
    await nodes();
    await connections();
  };
  await look();
  put(page,
    h('div', { class: 'head' }, h('h1', null, 'Connections')),
    h('div', { class: 'stack' },
      h('h2', null, 'Nodes'), nodesBox,
      h('h2', null, 'Who is connected'),
      h('form', { class: 'bar-line', role: 'search', onsubmit: (e) => {
        e.preventDefault();
        connections().catch((error) => put(list, problem(error)));
      } }, field('Node', of), field('Sub', sub), field('Channel', channel), h('button', null, 'Find')),
      count, list));
  every(5_000, signal, refresh, (error) => { count.textContent = `${error.message} What is shown may be old.`; });
}

const channels = (c) => h('span', null, c.channels.slice(0, 3).map((name, i) => [i > 0 && ', ', h('a', { href: `#/channels/${encodeURIComponent(name)}` }, name)]),
  c.channels.length > 3 && ` and ${c.channels.length - 3} more`);
