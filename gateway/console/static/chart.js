// Charts, drawn here: lines over time, with the same numbers as a table.
import { clock, h, number, svg, table } from '/console/ui.js';

const W = 300, H = 100;

/** A little more than the highest, so that the axis has a round number. */
function roof(max) {
  if (!(max > 0)) return 1;
  const scale = 10 ** Math.floor(Math.log10(max));
  return [1, 1.5, 2, 3, 5, 7.5, 10].map((n) => n * scale).find((n) => n >= max * 1.02) ?? 20 * scale;
}

/** The path of points, interrupted where nothing is known. */
function path(points, top, area) {
  const x = (i) => (i / Math.max(points.length - 1, 1) * W).toFixed(1), y = (v) => (H - v / top * H).toFixed(1);
  let d = '', from = -1;
  points.forEach((v, i) => {
    const known = v !== null && v !== undefined;
    if (known) {
      d += `${from < 0 ? 'M' : 'L'}${x(i)} ${y(v)}`;
      if (from < 0) from = i;
    }
    if (from >= 0 && (!known || i === points.length - 1)) {
      if (area) d += `L${x(known ? i : i - 1)} ${H}L${x(from)} ${H}Z`;
      else if (known && from === i) d += 'h.5'; // a single point
      from = -1;
    }
  });
  return d;
}

/**
 * A chart. lines: `[{name, points}]`, of one length; `times` the moment of each
 * point; `show` writes a number with its unit.
 */
export function chart({ title, lines, times, show = number }) {
  const known = lines.flatMap((l) => l.points).filter((v) => v !== null && v !== undefined);
  const top = roof(Math.max(0, ...known));
  const latest = (points) => points.findLast((v) => v !== null && v !== undefined);
  return h('section', { class: 'card chart', 'aria-label': title },
    h('div', { class: 'chart-head' }, h('h2', null, title), h('span', { class: 'max' }, `up to ${show(top)}`)),
    h('ul', { class: 'legend' }, lines.map((l, i) => h('li', null, h('i', { class: `k${i + 1}` }), l.name, h('b', null, show(latest(l.points)))))),
    svg('svg', { viewBox: `0 0 ${W} ${H}`, preserveAspectRatio: 'none', 'aria-hidden': 'true' },
      svg('path', { class: 'axis', d: `M0 ${H}H${W}M0 ${H / 2}H${W}M0 0H${W}`, 'stroke-dasharray': '2 3' }),
      lines.map((l, i) => [
        i === 0 && svg('path', { class: `area k${i + 1}`, d: path(l.points, top, true) }),
        svg('path', { class: `line k${i + 1}`, d: path(l.points, top) }),
      ])),
    h('div', { class: 'times' }, h('span', null, short(times[0])), h('span', null, short(times.at(-1)))),
    numbers(title, lines, times, show));
}

const short = (t) => t ? new Date(t).toLocaleTimeString('en-GB', { hour: '2-digit', minute: '2-digit' }) : '';

/** The table is made when it is opened. */
function numbers(title, lines, times, show) {
  const rows = () => times.map((t, i) => ({ t, i })).filter(({ i }) => lines.some((l) => l.points[i] !== null)).reverse();
  const details = h('details', { ontoggle: () => {
    if (details.open && details.childElementCount === 1) {
      details.append(table({
        caption: title, rows: rows(),
        columns: [{ title: 'Time', cell: ({ t }) => clock(t) }, ...lines.map((l) => ({ title: l.name, right: true, cell: ({ i }) => show(l.points[i]) }))],
        empty: h('p', { class: 'soft small' }, 'Nothing is known yet.'),
      }));
    }
  } }, h('summary', null, 'As a table'));
  return details;
}

/** A line as large as a word. */
export function spark(points, label) {
  const top = Math.max(1, ...points);
  return svg('svg', { class: 'spark', viewBox: `0 0 ${W} ${H}`, preserveAspectRatio: 'none', role: 'img', 'aria-label': label },
    points.length > 1 && svg('path', { d: path(points, top) }));
}
