// A table of any length: only the rows in sight, and some around them, are in
// the page. Rows are boxes of their own, placed one by one, so that a new one
// costs what it has in it and nothing of the others; where many come into sight
// at once, some are made in each frame, those in sight first.
import { h, put } from '/console/ui.js';

const AROUND = 4; // rows beyond either edge
const A_FRAME = 4; // rows made in one frame

/** columns as of table() in ui.js. Returns the element, and show(rows). */
export function longTable({ caption, columns, key }) {
  const body = h('tbody', { role: 'rowgroup' });
  // Roles are said, since tables that are laid out as boxes have none in all browsers.
  const table = h('table', { role: 'table' },
    h('caption', { class: 'hide' }, caption),
    h('thead', { role: 'rowgroup' }, h('tr', { role: 'row', 'aria-rowindex': 1 }, columns.map((c) => h('th', { scope: 'col', role: 'columnheader', class: c.right && 'right' }, c.title)))), body);
  const element = h('div', { class: 'long', tabindex: 0, role: 'region', 'aria-label': caption, onscroll: () => soon() }, table);
  const made = new Map(); // key → {tr, row, at}
  let rows = [], frame = 0;
  let height = 0, sight = 0; // of a row, and of what is in sight; measured when the size changes, not while scrolling
  new ResizeObserver(() => {
    sight = element.clientHeight;
    height = parseFloat(getComputedStyle(element).getPropertyValue('--row')) * parseFloat(getComputedStyle(document.documentElement).fontSize);
    draw();
  }).observe(element);

  const soon = () => { frame ||= requestAnimationFrame(draw); };

  /** Makes what is in sight and isn't there, and takes away what is far from it. */
  function draw() {
    cancelAnimationFrame(frame);
    frame = 0;
    if (!height) return;
    const top = element.scrollTop, first = Math.floor(top / height), last = Math.min(Math.ceil((top + sight) / height), rows.length);
    const from = Math.max(first - AROUND, 0), to = Math.min(last + AROUND, rows.length);
    const wanted = [];
    for (let i = first; i < last; i++) wanted.push(i);
    for (let i = 1; i <= AROUND; i++) wanted.push(last + i - 1, first - i);
    const far = new Map(made);
    let left = A_FRAME;
    for (const i of wanted) {
      if (i < from || i >= to) continue;
      const k = key(rows[i]), had = made.get(k);
      far.delete(k);
      if (had?.row === rows[i]) continue;
      if (left-- > 0) place(had, k, i);
      else soon();
    }
    for (const [k, one] of far) {
      // What has the focus stays, for whoever goes on from there by keyboard.
      if (one.tr.contains(document.activeElement) && rows[one.at] && key(rows[one.at]) === k) continue;
      one.tr.remove();
      made.delete(k);
    }
  }

  /** Has row i in the page, as it is now. */
  function place(had, k, i) {
    const row = rows[i];
    if (had) {
      // What has the focus stays as it is.
      columns.forEach((c, j) => { if (!had.tr.children[j].contains(document.activeElement)) put(had.tr.children[j], c.cell(row)); });
      had.row = row;
      return;
    }
    const tr = h('tr', { role: 'row', dataset: { key: k } }, columns.map((c) => h('td', { role: 'cell', class: c.right && 'right' }, c.cell(row))));
    const one = move({ tr, row }, i), next = after(i);
    made.set(k, one);
    body.insertBefore(tr, next); // in the order in which they are read
  }

  function move(one, i) {
    one.at = i;
    one.tr.style.top = `${i * height}px`;
    one.tr.setAttribute('aria-rowindex', i + 2);
    return one;
  }

  /** The row in the page that comes next after i. */
  function after(i) {
    let next = null, at = Infinity;
    for (const one of made.values()) {
      if (one.at > i && one.at < at) [next, at] = [one.tr, one.at];
    }
    return next;
  }

  return {
    element,
    show(all) {
      rows = all;
      table.setAttribute('aria-rowcount', rows.length + 1);
      body.style.height = `calc(var(--row) * ${rows.length})`;
      // Those that are elsewhere now are made anew there, but for the one that has the focus.
      const places = new Map();
      rows.forEach((row, i) => {
        if (made.has(key(row))) places.set(key(row), i);
      });
      for (const [k, one] of made) {
        const at = places.get(k);
        if (at === one.at) continue;
        if (at !== undefined && one.tr.contains(document.activeElement)) move(one, at);
        else {
          one.tr.remove();
          made.delete(k);
        }
      }
      draw();
    },
  };
}
