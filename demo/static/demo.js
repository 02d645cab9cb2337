// The page shows what the demo counts, look by look, and presses its buttons.
import { button, exact, h, number, put, span, svg } from '/console/ui.js';

const $ = (id) => document.getElementById(id);
const CAPACITY = 10, CEILING = 40; // of the CRM: see package crm
const KEPT = 240;

/** One way into the CRM: its parts, made once and filled with each look. */
class Way {
  constructor(id, words) {
    this.card = $(id);
    this.mood = this.card.querySelector('[data-is=mood]');
    this.figures = {};
    const figure = ([key, title]) => h('div', { dataset: { figure: key } }, h('dt', { class: 'soft' }, title), this.figures[key] = h('dd', null, '0'));
    this.lamps = Array.from({ length: CEILING }, (_, i) => svg('rect', { x: i * 10 + .5, y: .5, width: 7, height: 9, rx: 1.5 }));
    this.areas = { processed: svg('path', { class: 'processed' }), waiting: svg('path', { class: 'waiting' }), lost: svg('path', { class: 'lost' }) };
    this.card.append(
      h('dl', { class: 'figures' }, [['processed', 'processed'], ['waiting', 'waiting'], ['delay', 'delay'], ['lost', 'lost']].map(figure)),
      h('div', { class: 'stack tight' },
        svg('svg', { class: 'lamps', viewBox: '0 0 400 24', 'aria-hidden': true },
          this.lamps, svg('line', { x1: CAPACITY * 10 - 1.2, x2: CAPACITY * 10 - 1.2, y1: 0, y2: 14 }),
          svg('text', { x: CAPACITY * 10 - 3, y: 22, 'text-anchor': 'end' }, 'takes ten'),
          svg('text', { x: 398, y: 22, 'text-anchor': 'end' }, 'refuses more')),
        h('dl', { class: 'more' }, [['in_flight', 'calls in progress'], ['refused', 'refused'], ['timed_out', 'timed out'], ['twice', 'came twice']].map(figure))),
      h('figure', { class: 'chart stack tight' },
        h('ul', { class: 'legend' }, [['processed', 'processed'], ['waiting', words.waiting], ['lost', 'lost']].map(([c, t]) => h('li', null, h('i', { class: c }), t)),
          h('li', null, 'of the last two minutes')),
        svg('svg', { viewBox: '0 0 100 100', preserveAspectRatio: 'none', 'aria-hidden': true }, Object.values(this.areas))));
    this.words = words;
  }

  show(looks, key) {
    const now = looks.at(-1)[key];
    for (const [name, element] of Object.entries(this.figures)) element.textContent = name === 'delay' ? span(now.delay) : number(now[name]);
    this.figures.processed.title = exact(now.processed);
    this.tint('lost', now.lost ? 'bad' : 'good');
    this.tint('refused', now.refused ? 'bad' : '');
    this.lamps.forEach((lamp, i) => lamp.setAttribute('class', i >= now.in_flight ? '' : i < CAPACITY ? 'on' : 'over'));
    const [mood, text] = this.words.mood(now);
    this.mood.className = `badge ${mood}`;
    this.mood.textContent = text;
    this.draw(looks, key);
  }

  tint(name, mood) {
    this.figures[name].parentElement.className = mood;
  }

  // draw stacks, for what has happened since the first look shown, how much of
  // it is lost, waiting and processed.
  draw(looks, key) {
    const first = looks[0], last = looks.at(-1);
    const length = Math.max(last.seconds - first.seconds, 1);
    const most = Math.max(last.emitted - first.emitted + first[key].waiting, 1);
    const edges = { processed: [], waiting: [], lost: [] };
    for (const look of looks) {
      const x = (look.seconds - first.seconds) / length * 100;
      const a = look[key], b = first[key];
      let y = 100;
      for (const name of ['processed', 'lost', 'waiting']) {
        const from = y;
        y -= (name === 'waiting' ? a.waiting : a[name] - b[name]) / most * 100;
        edges[name].push([x, from, y]);
      }
    }
    for (const [name, points] of Object.entries(edges)) {
      const up = points.map(([x, , y]) => `${x.toFixed(2)} ${y.toFixed(2)}`), down = points.map(([x, y]) => `${x.toFixed(2)} ${y.toFixed(2)}`).reverse();
      this.areas[name].setAttribute('d', `M${up.join('L')}L${down.join('L')}Z`);
    }
  }
}

const ways = {
  webhooks: new Way('webhooks', {
    waiting: 'being tried',
    mood: (a) => a.in_flight > CAPACITY ? ['bad', 'overrun'] : ['', 'within its means'],
  }),
  longline: new Way('longline', {
    waiting: 'waiting in the log',
    mood: (a) => a.in_flight > CAPACITY ? ['bad', 'overrun'] : ['good', 'within its means'],
  }),
};

const press = (name) => async () => {
  const response = await fetch(`/press/${name}`, { method: 'POST' }).catch(() => null);
  if (!response?.ok) throw new Error(response ? `The demo answered ${response.status}.` : 'The demo does not answer.');
};
const pairs = [
  ['plugged', true, 'unplug', 'Unplug the CRM’s line', 'plug', 'Plug the line in'],
  ['broken', false, 'break', 'Break its callback URL', 'repair', 'Repair the callback URL'],
  ['second', false, 'hire', 'Add a second worker', 'dismiss', 'Send the second worker home'],
].map(([fact, normal, to, toText, from, fromText]) => {
  const there = button(toText, press(to)), back = button(fromText, press(from), { class: 'main', hidden: true });
  return { fact, normal, there, back };
});
put($('buttons'), pairs.map((p) => [p.there, p.back]), button('kill -9 the gateway', press('kill'), { class: 'danger' }));

/** Who holds the line, in words. */
function holder(look) {
  if (!look.gateway.up) return ['The gateway is down: ', h('b', null, 'events wait at their sender.')];
  const { state, members, breaker, status } = look.holder;
  switch (state) {
    case 'live':
      return ['The line is held by ', h('b', null, members?.length ? members.map((m) => `${m.consumer} (${m.partitions?.length ?? 0} of 8 partitions)`).join(' and ') : 'a worker'), '.'];
    case 'waiting':
      return ['Nobody holds the line. ', h('b', null, 'The callback takes over in a moment.')];
    case 'callback':
      return breaker !== 'closed' || status >= 400
        ? ['The callback’s turn, but ', h('b', null, `its URL answers ${status || 'nothing'}: events wait.`)]
        : ['The line is unplugged: ', h('b', null, 'the callback brings events.')];
    default:
      return [`The subscription is ${state || 'not there'}.`];
  }
}

let looks = [], said = '';

function show() {
  const look = looks.at(-1);
  $('rate').textContent = String(Math.round(look.rate));
  $('emitted').textContent = exact(look.emitted);
  ways.webhooks.show(looks, 'webhooks');
  ways.longline.show(looks, 'longline');
  for (const { fact, normal, there, back } of pairs) {
    const focused = [there, back].includes(document.activeElement);
    there.hidden = look[fact] !== normal;
    back.hidden = !there.hidden;
    if (focused && document.activeElement.hidden) (there.hidden ? back : there).focus();
  }
  const words = holder(look);
  const text = words.map((w) => w.textContent ?? w).join('');
  if (text !== said) put($('holder'), ...words); // a screen reader is told of changes alone
  said = text;
  $('console').href = look.gateway.console;
  put($('notes'), (look.notes ?? []).map((n) => h('li', null, h('time', null, clock(n.seconds)), h('span', null, n.text))));
}

const clock = (s) => `${Math.floor(s / 60)}:${String(Math.floor(s % 60)).padStart(2, '0')}`;

const source = new EventSource('/looks');
source.onmessage = (e) => {
  const more = JSON.parse(e.data);
  if (looks.length && more[0].seconds <= looks.at(-1).seconds) looks = []; // another demo at the same address
  looks = [...looks, ...more].slice(-KEPT);
  show();
};
const state = (text, mood) => {
  $('status').textContent = text;
  $('status').className = `badge ${mood}`;
};
source.onopen = () => state('Live', 'good');
source.onerror = () => state('The demo has ended', 'bad');
