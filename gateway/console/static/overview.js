// The overview: what needs attention first, then what happened lately.
import { get, path, recall, remember } from '/console/api.js';
import { chart } from '/console/chart.js';
import { earlier, now } from '/console/time.js';
import { ago, badge, choice, empty, every, exact, field, h, number, put, span } from '/console/ui.js';

const perSecond = (v) => v === undefined || v === null ? '–' : `${number(v)}/s`;
const seconds = (v) => v === undefined || v === null ? '–' : span(v);

/** The charts: title, lines as [name, series], how numbers are written. */
const charts = [
  ['Events', [['published', 'published'], ['sent to connections', 'sent'], ['taken by callbacks', 'called']], perSecond],
  ['Waiting', [['events, for all subscriptions', 'waiting']], number],
  ['The oldest that waits', [['since', 'oldest_seconds']], seconds],
  ['Connections', [['WebSocket', 'websocket'], ['SSE', 'sse']], number],
  ['Callbacks', [['accepted', 'callbacks_accepted'], ['refused', 'callbacks_refused'], ['in trouble', 'callbacks_trouble']], perSecond],
  ['Callbacks in flight', [['calls', 'callbacks_in_flight']], number],
  ['Time taken', [['to connections', 'delivery_seconds'], ['callbacks', 'callback_seconds']], seconds],
  ['Left undone', [['dead letters', 'dead_letters'], ['gaps', 'gaps']], perSecond],
  ['Said no to', [['by limits', 'refused'], ['requests', 'problems']], perSecond],
];

/** From how many seconds on what waits needs attention. */
const LATE = 60;

/** How many of what needs attention are shown at once. */
const FIRST = 6;

export async function show(page, { signal }) {
  const spanChoice = choice('span', [['5m', '5 minutes'], ['1h', '1 hour'], ['24h', '24 hours']], recall('span') || '5m', { onchange: () => {
    remember('span', spanChoice.value);
    draw();
  } });
  const nodeChoice = h('select', { onchange: () => draw() }, h('option', { value: '' }, 'All together'));
  const grid = h('div', { class: 'grid' });
  const attention = h('div', null, h('p', { class: 'soft' }, 'Looking…'));
  const stale = h('p', { class: 'note warn', hidden: true, role: 'status' });

  async function draw() {
    const stats = await get('/v1/stats', { span: spanChoice.value, node: nodeChoice.value }, signal);
    const nodes = ['', ...stats.nodes];
    if ([...nodeChoice.options].map((o) => o.value).join() !== nodes.join()) {
      const chosen = nodeChoice.value;
      put(nodeChoice, nodes.map((n) => h('option', { value: n, selected: n === chosen }, n || 'All together')));
    }
    const until = Date.parse(stats.until), step = stats.step_seconds * 1000;
    const times = stats.series.published.map((_, i, all) => until - (all.length - i) * step);
    // A table that is being read stays.
    if (grid.querySelector('details[open]') && grid.dataset.span === stats.span) return;
    grid.dataset.span = stats.span;
    put(grid, charts.map(([title, lines, show]) => chart({
      title, times, show, lines: lines.map(([name, series]) => ({ name, points: stats.series[series] })),
    })));
  }

  const first = draw(); // its error is the page's
  put(page,
    h('div', { class: 'head' }, h('h1', null, 'Overview'),
      h('div', { class: 'row' }, field('Of the last', spanChoice), field('Node', nodeChoice))),
    stale,
    h('div', { class: 'stack' },
      h('section', { class: 'card', 'aria-labelledby': 'attention' }, h('h2', { id: 'attention' }, 'Needs attention'), attention),
      grid));
  await first;
  const failed = (error) => {
    stale.hidden = false;
    stale.textContent = `${error.message} What is shown may be old.`;
  };
  const watch = watcher();
  every(15_000, signal, async () => {
    const found = await watch(signal);
    put(attention, found.length ? [h('ul', { class: 'attention' }, found.slice(0, FIRST)), found.length > FIRST && h('details', { open: attention.querySelector('details[open]') !== null },
      h('summary', null, `and ${exact(found.length - FIRST)} more`), h('ul', { class: 'attention' }, found.slice(FIRST)))]
      : h('p', { class: 'soft' }, 'Nothing. No endpoint fails, nobody lags, nothing was set aside in what the gateway has told of the last day.'));
  }, (error) => put(attention, empty('Not known', error.message)));
  every(5_000, signal, async () => {
    await draw();
    stale.hidden = true;
  }, failed);
}

/**
 * Returns what looks for trouble: it reads what the gateway told of itself, at
 * first of the last day and then what is new, asks how those stand that were
 * named, and returns what is still so.
 */
function watcher() {
  const channel = 'longline.events', named = new Map(); // subscription → what was told of it
  const gone = new Map(); // node → when it left
  let since = earlier(86_400_000);

  function take(event) {
    const kind = event.type.replace(/^longline\.(subscription\.)?/, ''), data = event.data ?? {};
    if (kind === 'node.left') gone.set(data.node, event.time);
    if (kind === 'node.joined') gone.delete(data.node);
    if (!['callback_failing', 'callback_recovered', 'callback_disabled', 'deadletter', 'gap', 'lagging'].includes(kind)) return;
    const told = named.get(data.subscription) ?? { dead: 0 };
    named.delete(data.subscription); // the newest last
    named.set(data.subscription, Object.assign(told, { [kind]: event.time, dead: told.dead + (kind === 'deadletter'), reason: data.reason }));
  }

  return async (signal) => {
    for (let pages = 0; pages < 10; pages++) {
      const read = await get(path('channels', channel, 'events'), { since, limit: 1000 }, signal).catch((error) => {
        if (error.status === 404) return { events: [] }; // nothing was ever told
        if (error.status === 410) since = 'earliest';
        else throw error;
        return { events: [] };
      });
      read.events.forEach(take);
      since = read.cursor ?? since;
      if (read.events.length < 1000) break;
    }
    const { nodes } = await get('/v1/nodes', {}, signal);
    const found = nodes.filter((n) => n.draining).map((n) => line('draining', 'draining', '#/connections', `Node ${n.node}`, 'takes no new connections'));
    for (const [node, time] of gone) {
      if (!nodes.some((n) => n.node === node)) found.push(line('gone', 'gone', '#/connections', `Node ${node}`, 'left', time));
    }
    const stats = await get('/v1/stats', { span: '5m' }, signal);
    const refused = stats.series.refused.reduce((sum, v) => sum + (v ?? 0) * stats.step_seconds, 0);
    if (refused >= 1) found.push(line('refused', 'refused', '#/connections', 'Limits', `said no ${exact(Math.round(refused))} times in the last 5 minutes`));
    const last = (name) => stats.series[name].findLast((v) => v !== null) ?? 0;
    const oldest = last('oldest_seconds');
    if (oldest > LATE) found.push(line('waiting', 'lags', '#/subscriptions?order=lag', 'Subscriptions', `${exact(last('waiting'))} events wait, the oldest since ${span(oldest)}`));
    const asked = [...named].reverse().slice(0, 25);
    const standing = await Promise.all(asked.map(([name]) => get(path('subscriptions', name), {}, signal).catch((error) => {
      if (error.status === 404) named.delete(name);
      else if (error.status !== 403) throw error;
      return null;
    })));
    standing.forEach((s, i) => {
      if (!s) return;
      const [name, told] = asked[i], { status } = s, link = `#/subscriptions/${encodeURIComponent(name)}`, callback = status.callback;
      if (status.state === 'disabled') found.push(line('disabled', 'disabled', link, name, 'its endpoint answered 410: nothing is delivered until the callback is given anew', told.callback_disabled));
      else if (callback && callback.breaker !== 'closed') found.push(line('failing', 'failing', link, name, `its endpoint fails: ${callback.last_error || `it answers ${callback.last_status}`}`, told.callback_failing));
      if (status.lag.seconds > LATE && status.state !== 'paused') found.push(line('waiting', 'lags', link, name, `${exact(status.lag.events)} events wait, the oldest since ${span(status.lag.seconds)}`));
      if (status.dead) found.push(line('dead', 'dead letters', `${link}/dead`, name, `${exact(status.dead)} set aside${told.reason ? `, the last because: ${told.reason}` : ''}`, told.deadletter));
      if (told.gap && now() - Date.parse(told.gap) < 3_600_000) found.push(line('gap', 'gap', link, name, 'events were gone before they were delivered', told.gap));
    });
    return found;
  };
}

const line = (state, text, link, name, what, time) => h('li', null,
  badge(state, text), h('span', { class: 'what' }, h('a', { href: link }, name), ' ', what), time && h('small', { class: 'soft' }, ago(time)));
