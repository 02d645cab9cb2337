// A table of any length: only the rows in sight, and some around them, are in
// the page.
import { h, put } from '/console/ui.js';

const AROUND = 6; // rows beyond either edge

/** columns as of table() in ui.js. Returns the element, and show(rows). */
export function longTable({ caption, columns, key }) {
  const body = h('tbody');
  const table = h('table', null,
    h('caption', { class: 'hide' }, caption),
    h('thead', null, h('tr', { 'aria-rowindex': 1 }, columns.map((c) => h('th', { scope: 'col', class: c.right && 'right' }, c.title)))), body);
  const element = h('div', { class: 'long', tabindex: 0, role: 'region', 'aria-label': caption, onscroll: () => {
    if (!frame) frame = requestAnimationFrame(() => { frame = 0; draw(false); });
  } }, table);
  let rows = [], frame = 0, made = new Map(); // key → {tr, row}
  let height = 0, sight = 0; // of a row, and of what is in sight; measured when the size changes, not while scrolling
  const resized = new ResizeObserver(() => {
    sight = element.clientHeight;
    height = 0;
    draw(false);
  });
  resized.observe(element);

  function draw(fresh) {
    height ||= body.querySelector('tr[data-key]')?.offsetHeight ?? 0;
    const each = height || 40, from = Math.max(Math.floor(element.scrollTop / each) - AROUND, 0);
    const to = Math.min(Math.ceil((element.scrollTop + (sight || 800)) / each) + AROUND, rows.length);
    const kept = new Map(), focused = document.activeElement?.closest?.('tr[data-key]')?.dataset.key;
    const trs = [];
    for (let i = from; i < to; i++) {
      const row = rows[i], k = key(row), had = made.get(k);
      const tr = had?.tr ?? h('tr', { dataset: { key: k } }, columns.map((c) => h('td', { class: c.right && 'right' }, c.cell(row))));
      if (had && fresh && had.row !== row) columns.forEach((c, j) => {
        // What has the focus stays as it is.
        if (!(k === focused && tr.children[j].contains(document.activeElement))) put(tr.children[j], c.cell(row));
      });
      tr.setAttribute('aria-rowindex', i + 2);
      kept.set(k, { tr, row });
      trs.push(tr);
    }
    made = kept;
    table.setAttribute('aria-rowcount', rows.length + 1);
    const wanted = [spacer(from * each), ...trs, spacer((rows.length - to) * each)].filter(Boolean);
    if (wanted.length !== body.children.length || wanted.some((tr, i) => tr !== body.children[i])) settle(wanted);
  }

  /** Puts rows in place without taking out those that stay: one of them may have the focus. */
  function settle(wanted) {
    for (const tr of [...body.children]) if (!wanted.includes(tr)) tr.remove();
    wanted.forEach((tr, i) => {
      if (body.children[i] !== tr) body.insertBefore(tr, body.children[i] ?? null);
    });
  }

  function spacer(height) {
    if (height <= 0) return null;
    const td = h('td', { colspan: columns.length });
    td.style.height = `${height}px`;
    return h('tr', { class: 'gap', 'aria-hidden': 'true' }, td);
  }

  return {
    element,
    show(all) {
      rows = all;
      draw(true);
    },
  };
}
