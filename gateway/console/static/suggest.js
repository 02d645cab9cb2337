// Completion for expressions: the word before the caret, out of what the events
// that pass have.
import { h, put } from '/console/ui.js';

const words = ['has()', 'startsWith("")', 'endsWith("")', 'contains("")', 'matches("")', 'size()', 'true', 'false'];
const KEPT = 300, SHOWN = 12;

/** Adds the paths of an event's attributes, and of what its data has. */
export function learn(paths, event) {
  if (paths.size >= KEPT) return;
  walk(paths, 'event', event, 0);
}

function walk(paths, at, value, depth) {
  if (!value || typeof value !== 'object' || Array.isArray(value) || depth > 3) return;
  for (const name of Object.keys(value)) {
    if (!/^[A-Za-z_][A-Za-z0-9_]{0,40}$/.test(name) || paths.size >= KEPT || depth === 0 && name === 'specversion') continue;
    paths.add(`${at}.${name}`);
    if (depth > 0 || name === 'data') walk(paths, `${at}.${name}`, value[name], depth + 1);
  }
}

let ids = 0;

/**
 * Puts a list of completions below an input: arrow keys choose, Enter or Tab
 * takes, Escape closes.
 */
export function suggest(label, input, paths, className) {
  const id = `suggest-${++ids}`;
  const list = h('ul', { id, role: 'listbox', 'aria-label': 'Completions', hidden: true });
  let found = [], chosen = -1;
  for (const [name, value] of Object.entries({ role: 'combobox', 'aria-autocomplete': 'list', 'aria-controls': id, 'aria-expanded': 'false' })) input.setAttribute(name, value);

  const word = () => input.value.slice(0, input.selectionStart).match(/[A-Za-z_][\w.]*$/)?.[0] ?? '';

  function open() {
    const w = word();
    found = w ? [...paths, ...words].filter((p) => p.startsWith(w) && p !== w || !w.includes('.') && w.length > 1 && p.split('.').at(-1).startsWith(w)).slice(0, SHOWN) : [];
    put(list, found.map((text, i) => h('li', { id: `${id}-${i}`, role: 'option', 'aria-selected': 'false', onmousedown: (e) => {
      e.preventDefault(); // the input keeps the focus
      take(i);
    } }, text)));
    choose(-1);
    list.hidden = !found.length;
    input.setAttribute('aria-expanded', String(!list.hidden));
  }

  function choose(i) {
    chosen = i;
    [...list.children].forEach((li, j) => li.setAttribute('aria-selected', String(i === j)));
    if (i >= 0) input.setAttribute('aria-activedescendant', `${id}-${i}`);
    else input.removeAttribute('aria-activedescendant');
    list.children[i]?.scrollIntoView({ block: 'nearest' });
  }

  function close() {
    list.hidden = true;
    input.setAttribute('aria-expanded', 'false');
    input.removeAttribute('aria-activedescendant');
  }

  function take(i) {
    const w = word(), end = input.selectionStart, text = found[i];
    input.setRangeText(text, end - w.length, end, 'end');
    // The caret goes between quotes or brackets, if there are any.
    const caret = text.includes('""') ? text.indexOf('""') + 1 : text === 'has()' ? text.length - 1 : text.length;
    input.selectionStart = input.selectionEnd = end - w.length + caret;
    close();
  }

  input.addEventListener('input', open);
  input.addEventListener('blur', close);
  input.addEventListener('keydown', (e) => {
    if (list.hidden) return;
    if (e.key === 'ArrowDown') choose((chosen + 1) % found.length);
    else if (e.key === 'ArrowUp') choose((Math.max(chosen, 0) + found.length - 1) % found.length);
    else if ((e.key === 'Enter' || e.key === 'Tab') && chosen >= 0) take(chosen);
    else if (e.key === 'Escape') close();
    else return;
    e.preventDefault();
  });
  return h('div', { class: `suggest field ${className}` }, label, list);
}
