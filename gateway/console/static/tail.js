// A channel's events as they happen. However many come, at most KEPT are in the
// page, and at most BATCH are drawn at once, a few times a second.
import { listen } from '/console/api.js';
import { badge, button, choice, clock, exact, field, h, json, put } from '/console/ui.js';
import { learn, suggest } from '/console/suggest.js';

const KEPT = 100; // rows in the page
const BATCH = 8; // rows made at once
const QUEUE = 80; // that wait to be drawn; of more only the newest are shown
const PACE = 120; // ms from one to the next

/** @param {{channel: string, signal: AbortSignal, types: string[], since: string | null}} what */
export function tail({ channel, signal, types: seen, since: from }) {
  const paths = new Set(['event.type', 'event.subject', 'event.partitionkey', 'event.id', 'event.source', 'event.time', 'event.data']);
  const list = h('ol', { class: 'tail', id: 'events' });
  const none = h('p', { class: 'empty', id: 'empty' }, 'Nothing yet. What is published to the channel appears here as it happens.');
  const count = h('span', { id: 'count', class: 'num' }, '0');
  const state = h('span', { id: 'state', role: 'status' }, badge('waiting', 'Connecting…'));
  const alarm = h('p', { class: 'note bad', role: 'alert', hidden: true });
  const pauseButton = h('button', { type: 'button', 'aria-pressed': 'false', onclick: () => pause(!paused) }, 'Pause');
  const types = h('input', { name: 'types', placeholder: 'all, or email.*', list: 'types', autocomplete: 'off', spellcheck: 'false', autocapitalize: 'none' });
  const filter = h('input', { name: 'filter', placeholder: 'event.data.amount > 100.0', autocomplete: 'off', spellcheck: 'false', autocapitalize: 'none', maxlength: 1024 });
  const at = h('input', { name: 'at', type: 'datetime-local', step: 1 });
  const since = choice('since', [['latest', 'now on'], ['earliest', 'the beginning'], ['time', 'a time…']], from ? 'time' : 'latest', { onchange: () => {
    atField.hidden = since.value !== 'time';
  } });
  const atField = field('Begin at', at);
  atField.hidden = !from;
  if (from) at.value = local(new Date(from));

  let stop = () => {}, paused = false, total = 0, waiting = [], missed = 0, timer = 0;

  function start() {
    stop();
    waiting = [];
    missed = 0;
    alarm.hidden = true;
    const given = since.value !== 'time' ? since.value : at.value ? new Date(at.value).toISOString() : 'latest';
    stop = listen({ channel, since: given, types: types.value.trim(), filter: filter.value.trim() }, {
      event: (text) => come(text),
      gap: (gap) => come(null, gap),
      state: (name, text) => {
        put(state, badge(name, name === 'live' ? 'Live' : name === 'refused' ? 'Refused' : text));
        alarm.hidden = name !== 'refused';
        alarm.textContent = name === 'refused' ? text : '';
      },
    });
  }

  // What comes waits as text to be drawn; of more than can be shown,
  // the oldest is let go.
  function come(text, gap) {
    if (text) total++;
    waiting.push(gap ?? text);
    if (waiting.length > QUEUE) {
      waiting.shift();
      missed++;
    }
    later();
  }

  const later = () => { timer ||= setTimeout(() => requestAnimationFrame(draw), PACE); };

  function draw() {
    timer = 0;
    if (signal.aborted) return;
    put(count, exact(total));
    if (paused) {
      pauseButton.textContent = `Go on (${exact(waiting.length + missed)} more)`;
      return;
    }
    const rows = waiting.splice(0, BATCH).map((one) => typeof one === 'string' ? row(JSON.parse(one)) : hole(one));
    if (missed && rows.length) {
      const first = list.firstElementChild;
      const so = first?.dataset.missed ? Number(first.dataset.missed) + missed : missed;
      if (first?.dataset.missed) first.remove();
      list.prepend(h('li', { class: 'gone', dataset: { missed: so } }, `${exact(so)} events came too fast to be shown here; they are in the log.`));
    }
    missed = 0;
    list.prepend(...rows.reverse());
    if (waiting.length) later();
    while (list.childElementCount > KEPT) list.lastElementChild.remove();
    none.hidden = list.childElementCount > 0;
  }

  function row(event) {
    learn(paths, event);
    const details = h('details', { ontoggle: () => {
      if (details.open && details.childElementCount === 1) details.append(body(event));
    } }, h('summary', null,
      clock(event.time), h('span', { class: 'type break' }, event.type), h('span', { class: 'break' }, event.subject ?? event.partitionkey ?? ''),
      h('span', { class: 'cursor mono' }, `#${event.cursor.split('-').at(-1)}`)));
    return h('li', { dataset: { cursor: event.cursor } }, details);
  }

  function pause(on) {
    paused = on;
    pauseButton.setAttribute('aria-pressed', String(on));
    pauseButton.textContent = on ? 'Go on' : 'Pause';
    if (!on) draw();
  }

  const form = h('form', { class: 'bar-line', 'aria-label': 'What to listen to', onsubmit: (e) => {
    e.preventDefault();
    clear();
    start();
  } },
    field('Types', types), suggest(field('Filter', filter), filter, paths, 'more'),
    field('From', since), atField, h('button', null, 'Listen'));
  const clear = () => {
    list.replaceChildren();
    total = 0;
    put(count, '0');
    none.hidden = false;
  };
  signal.addEventListener('abort', () => stop());
  start();
  return h('section', { class: 'stack', 'aria-labelledby': 'events-title' },
    h('div', { class: 'row between' },
      h('div', { class: 'row' }, h('h2', { id: 'events-title' }, 'Events ', count), state),
      h('div', { class: 'row' }, pauseButton, button('Clear', clear))),
    form, h('datalist', { id: 'types' }, seen.map((t) => h('option', { value: t }))), alarm,
    h('div', { role: 'log', 'aria-live': 'off', 'aria-labelledby': 'events-title' }, none, list));
}

const hole = (gap) => h('li', { class: 'gone' }, `Gap (${gap.reason}): events after ${gap.from} up to ${gap.to} won’t come.`);

const body = (event) => h('div', { class: 'body' },
  h('div', { class: 'row small' }, h('a', { href: `#/events/${encodeURIComponent(event.cursor)}` }, 'What became of it'), h('span', { class: 'soft break' }, event.id)),
  json(event.data === undefined ? event : event.data));

/** A moment as an input of type datetime-local takes it. */
export const local = (t) => new Date(t - t.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
