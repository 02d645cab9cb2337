// What pages are made of. Nothing here takes markup: whatever a string says, it
// becomes text.

import { now } from '/console/time.js';

/**
 * Makes an element. Attributes: `class`, `on…` handlers, `dataset`, booleans,
 * anything else as it is. Children: nodes, text, lists of them; null and false
 * are left out.
 */
export function h(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** Makes an SVG element, as h does. */
export function svg(tag, attributes, ...children) {
  return fill(document.createElementNS('http://www.w3.org/2000/svg', tag), attributes, children);
}

function fill(e, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith('on')) e.addEventListener(name.slice(2), value);
    else if (name === 'dataset') Object.assign(e.dataset, value);
    else if (name === 'value' || name === 'checked') e[name] = value;
    else e.setAttribute(name, value === true ? '' : value);
  }
  e.append(...flat(children));
  return e;
}

const flat = (children) => children.flat(9).filter((c) => c !== null && c !== undefined && c !== false);

/** Puts children in place of what an element has. */
export function put(e, ...children) {
  e.replaceChildren(...flat(children));
  return e;
}

// Numbers and times as people read them.

const plain = new Intl.NumberFormat('en', { maximumFractionDigits: 1 });
const short = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 });
const whole = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'medium' });
export const number = (n) => n === undefined || n === null || Number.isNaN(n) ? '–' : Math.abs(n) < 1e4 ? plain.format(n) : short.format(n);
export const exact = (n) => n === undefined || n === null ? '–' : plain.format(n);

export function bytes(n) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let i = 0;
  for (; n >= 1024 && i < units.length - 1; i++) n /= 1024;
  return `${plain.format(n)} ${units[i]}`;
}

/** A span of seconds: "3 s", "12 min", "4 h". */
export function span(seconds) {
  if (seconds === undefined || seconds === null) return '–';
  if (seconds === 0) return '0 s';
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  for (const [unit, size, next] of [['s', 1, 90], ['min', 60, 90 * 60], ['h', 3600, 48 * 3600]]) {
    if (seconds < next) return `${plain.format(seconds < 10 * size ? Math.round(seconds / size * 10) / 10 : Math.round(seconds / size))} ${unit}`;
  }
  return `${Math.round(seconds / 86400)} days`;
}

/** How long ago, with the time itself as its title. */
export function ago(time) {
  if (!time) return '–';
  const at = new Date(time), seconds = (now() - at) / 1000;
  const text = Math.abs(seconds) < 1 ? 'now' : seconds < 0 ? `in ${span(-seconds)}` : `${span(Math.floor(seconds))} ago`;
  return h('time', { datetime: at.toISOString(), title: whole.format(at), class: 'nowrap' }, text);
}

/** A time of day, to the millisecond. */
export function clock(time) {
  const at = new Date(time);
  if (Number.isNaN(at.getTime())) return String(time);
  const two = (n) => String(n).padStart(2, '0');
  return h('time', { datetime: at.toISOString(), title: whole.format(at), class: 'num' },
    `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${String(at.getMilliseconds()).padStart(3, '0')}`);
}

/** Any value as JSON that people read. */
export const json = (value) => h('pre', { tabindex: 0 }, typeof value === 'string' ? value : JSON.stringify(value, null, 2));

const moods = {
  live: 'good', pull: 'good', callback: 'good', acknowledged: 'good', closed: 'good', ready: 'good',
  waiting: 'warn', paused: 'warn', half_open: 'warn', in_flight: 'warn', standby: 'warn', draining: 'warn', skipped: 'warn', redrive: 'warn',
  disabled: 'bad', dead: 'bad', gap: 'bad', open: 'bad', refused: 'bad', failing: 'bad', gone: 'bad',
};

/** A state by its name, in its colour; the word says it without. */
export const badge = (state, text) => h('span', { class: `badge ${moods[state] ?? ''}` }, text ?? String(state).replaceAll('_', ' '));

/**
 * A table. columns: `[{title, right?, cell(row)}]`; what is empty is told by
 * `empty`, a node.
 */
export function table({ caption, columns, rows, empty: none, key }) {
  if (!rows.length && none) return none;
  return h('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': caption },
    h('table', null,
      h('caption', { class: 'hide' }, caption),
      h('thead', null, h('tr', null, columns.map((c) => h('th', { scope: 'col', class: c.right && 'right' }, c.title)))),
      h('tbody', null, rows.map((row) => h('tr', { dataset: key ? { key: key(row) } : {} },
        columns.map((c) => h('td', { class: c.right && 'right' }, c.cell(row))))))));
}

/** What is shown where nothing is: what it would be, and what to do about it. */
export const empty = (title, text, ...more) => h('div', { class: 'empty' }, h('strong', null, title), text && h('p', null, text), more);

/** Names and what they are, as a list. */
export const facts = (...pairs) => h('dl', null, pairs.filter(Boolean).map(([name, value]) => [h('dt', null, name), h('dd', null, value)]));

/** An error as the gateway tells it. */
export const problem = (error) => h('p', { class: 'note bad', role: 'alert' }, error.message ?? String(error));

/** A field with its label, and help below. */
export function field(label, input, help, wide) {
  input.id ||= `field-${++ids}`;
  const small = help && h('small', { id: `${input.id}-help` }, help);
  if (small) input.setAttribute('aria-describedby', small.id);
  return h('div', { class: wide ? 'field wide' : 'field' }, h('label', { for: input.id }, label), input, small);
}
let ids = 0;

/** A choice: options are names, or [value, text]. */
export const choice = (name, options, value, more) => h('select', { name, ...more },
  options.map((o) => [o].flat()).map(([v, text = v]) => h('option', { value: v, selected: v === value }, text)));

/**
 * A button that does something that takes time, once at a time; errors are told.
 * It keeps the focus meanwhile, which a disabled one would lose.
 */
export function button(text, run, attributes) {
  const b = h('button', { type: 'button', ...attributes, onclick: async () => {
    if (b.hasAttribute('aria-busy')) return;
    b.setAttribute('aria-busy', 'true');
    try {
      await run(b);
    } catch (error) {
      if (error.name !== 'AbortError') toast(error.message);
    } finally {
      b.removeAttribute('aria-busy');
    }
  } }, text);
  return b;
}

/** A button that copies text. */
export const copy = (text, label = 'Copy') => button(label, async (b) => {
  await navigator.clipboard.writeText(typeof text === 'function' ? text() : text);
  b.textContent = 'Copied';
  setTimeout(() => { b.textContent = label; }, 1500);
}, { class: 'plain' });

/** Says that something was done, with a way back where there is one. */
export function toast(text, undo) {
  const box = document.getElementById('toasts');
  const t = h('div', { class: 'toast' }, h('span', null, text),
    undo && button('Undo', async () => { t.remove(); await undo(); }));
  box.append(t);
  while (box.childElementCount > 4) box.firstElementChild.remove();
  setTimeout(() => t.remove(), undo ? 15_000 : 7_000);
}

/**
 * Asks before something is done: says in plain words what it will do. Resolves
 * to the fields' values by name, or to null if it isn't to be done.
 */
export function ask({ title, text, action, danger, fields = [] }) {
  return new Promise((resolve) => {
    let answer = null;
    const form = h('form', { method: 'dialog', class: 'stack', onsubmit: () => {
      answer = Object.fromEntries(new FormData(form));
    } },
      h('h2', { id: 'ask' }, title),
      [text].flat().map((t) => t instanceof Node ? t : h('p', null, t)),
      fields,
      h('div', { class: 'row end' },
        h('button', { type: 'button', onclick: () => dialog.close() }, 'Cancel'),
        h('button', { class: danger ? 'main danger' : 'main' }, action)));
    const dialog = h('dialog', { 'aria-labelledby': 'ask', onclose: () => {
      dialog.remove();
      resolve(answer);
    } }, form);
    document.body.append(dialog);
    dialog.showModal();
  });
}

/**
 * Calls run now and every ms, one after another, while the page is looked at
 * and signal lasts. Errors go to failed.
 */
export async function every(ms, signal, run, failed = () => {}) {
  while (!signal.aborted) {
    if (document.visibilityState === 'visible') {
      try {
        await run();
      } catch (error) {
        if (signal.aborted) return;
        failed(error);
      }
    }
    await pause(ms, signal);
  }
}

/** Resolves after ms, or when signal ends. */
export const pause = (ms, signal) => new Promise((resolve) => {
  if (signal?.aborted) return resolve();
  const timer = setTimeout(done, ms);
  function done() {
    clearTimeout(timer);
    signal?.removeEventListener('abort', done);
    resolve();
  }
  signal?.addEventListener('abort', done);
});
