// What callbacks tried, and what was set aside.
import { get, path, post, request } from '/console/api.js';
import { ago, ask, badge, button, choice, clock, empty, exact, field, h, json, put, span, toast } from '/console/ui.js';

/** The attempts of a subscription, newest first. */
export async function attempts(box, s, signal) {
  const at = path('subscriptions', s.name, 'attempts');
  const status = choice('status', [['', 'any'], ['2xx', '2xx: taken'], ['4xx', '4xx: refused'], ['5xx', '5xx: failed'], ['0', 'no answer']], '', { onchange: () => load().catch((error) => toast(error.message)) });
  const list = h('div'), more = h('div');
  let rows = [], next;
  async function load(page) {
    const answer = await get(at, { status: status.value, page, limit: 50 }, signal);
    rows = page ? [...rows, ...answer.attempts] : answer.attempts;
    next = answer.next;
    put(list, rows.length ? h('ul', { class: 'tail' }, rows.map(attempt)) : h('div', { class: 'card' }, empty('No attempts', s.callback ? 'Callbacks are kept for 72 hours, the last 10,000 of them.' : 'This subscription has no callback.')));
    put(more, next && button('Older', () => load(next)));
  }
  put(box, h('div', { class: 'stack' }, h('div', { class: 'row' }, field('Answer', status), button('Refresh', () => load())), list, more));
  await load();
}

function attempt(a) {
  const good = a.status >= 200 && a.status < 300 && !a.error;
  return h('li', null, h('details', null,
    h('summary', null, clock(a.time), h('span', null, badge(good ? 'acknowledged' : 'dead', a.status ? String(a.status) : 'no answer'), ' ', h('span', { class: 'num soft' }, span(a.latency_ms / 1000))),
      h('span', { class: 'clip' }, a.error ?? ''), h('span', { class: 'cursor small' }, a.cursors?.length > 1 ? `${a.cursors.length} events` : '')),
    h('div', { class: 'body' },
      h('p', { class: 'mono small break' }, `${a.method ?? 'POST'} ${a.url ?? ''}`),
      a.error && h('p', { class: 'small break' }, a.error),
      h('p', { class: 'small' }, 'Events: ', (a.cursors ?? []).map((c, i) => [i > 0 && ', ', h('a', { href: `#/events/${encodeURIComponent(c)}`, class: 'break' }, c)])),
      a.body ? json(a.body) : h('p', { class: 'soft small' }, 'The answer had no body.'))));
}

/** The dead letters of a subscription, and what can be done with them. */
export async function dead(box, s, signal, done) {
  const at = path('subscriptions', s.name, 'dead');
  const list = h('div'), more = h('div'), chosen = new Set();
  let rows = [], next;
  const again = button('Deliver again…', () => redrive([...chosen]));
  const all = button('Deliver all again…', () => redrive(null));
  const remove = button('Delete all…', async () => {
    if (!await ask({ title: 'Delete all dead letters?', action: 'Delete', danger: true, text: `${exact(s.status.dead)} events that were set aside are forgotten here, and won’t be delivered. This can’t be undone.` })) return;
    await request('DELETE', at);
    toast('Deleted');
    await load();
    await done();
  }, { class: 'danger' });

  async function redrive(cursors) {
    const n = cursors ? cursors.length : s.status.dead;
    if (!await ask({ title: `Deliver ${exact(n)} ${n === 1 ? 'dead letter' : 'dead letters'} again?`, action: 'Deliver again', text: 'Each is delivered once more, beside what else is delivered, marked as a redelivery. One that fails again is set aside again. What was delivered can’t be taken back.' })) return;
    const answer = await post(`${at}/redrive`, cursors ? { cursors } : { all: true });
    toast(`${exact(answer.redriven)} on their way`);
    chosen.clear();
    await load();
    await done();
  }

  async function load(since) {
    const answer = await get(at, { since, limit: 50 }, signal);
    rows = since ? [...rows, ...answer.dead] : answer.dead;
    next = answer.next;
    again.hidden = all.hidden = remove.hidden = !rows.length;
    mark();
    put(list, rows.length ? h('ul', { class: 'tail' }, rows.map(letter)) : h('div', { class: 'card' }, empty('Nothing was set aside', 'An event is set aside when its receiver refuses it, or a consumer rejects it; never because an endpoint is down.')));
    put(more, next && button('More', () => load(next)));
  }
  const mark = () => {
    again.disabled = !chosen.size;
    again.textContent = chosen.size ? `Deliver ${exact(chosen.size)} again…` : 'Deliver again…';
  };

  function letter(d) {
    const { cursor, type } = d.event;
    const box = h('input', { type: 'checkbox', 'aria-label': `Choose ${cursor}`, checked: chosen.has(cursor), onchange: () => {
      if (box.checked) chosen.add(cursor);
      else chosen.delete(cursor);
      mark();
    } });
    return h('li', { class: 'letter' }, box, h('details', null,
      h('summary', null, h('span', null, ago(d.time)), h('span', { class: 'type break' }, type), h('span', { class: 'break' }, d.reason), h('span', { class: 'cursor small nowrap' }, d.attempts ? `${exact(d.attempts)} attempts` : '')),
      h('div', { class: 'body' }, h('a', { href: `#/events/${encodeURIComponent(cursor)}` }, 'What became of it'), json(d.event))));
  }

  put(box, h('div', { class: 'stack' }, h('div', { class: 'row' }, again, all, remove), list, more));
  await load();
}
