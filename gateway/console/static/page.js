// The page listens by the browser's own EventSource, which resumes by itself
// where it was. The page takes over only where an EventSource gives up.

const $ = (id) => document.getElementById(id);
const form = $('form'), list = $('events'), status = $('status'), problem = $('problem');
const KEPT = 500; // events shown

let source = null; // the present EventSource
let again = 0; // timer of the next attempt
let position = ''; // the id of the last thing received
let count = 0;

// A link may bring a token: #token=…&channel=…. It goes from the address bar
// to this tab's storage at once.
const fragment = new URLSearchParams(location.hash.slice(1));
if (fragment.has('token')) {
  sessionStorage.setItem('longline.token', fragment.get('token'));
  if (fragment.has('channel')) sessionStorage.setItem('longline.channel', fragment.get('channel'));
  history.replaceState(null, '', location.pathname);
}
$('token').value = sessionStorage.getItem('longline.token') ?? '';
$('channel').value = sessionStorage.getItem('longline.channel') ?? '';

form.addEventListener('submit', (e) => {
  e.preventDefault();
  sessionStorage.setItem('longline.token', $('token').value);
  sessionStorage.setItem('longline.channel', $('channel').value);
  stop();
  position = '';
  listen();
});
$('stop').addEventListener('click', () => {
  stop();
  say('idle', 'Not connected');
});
$('clear').addEventListener('click', () => {
  list.replaceChildren();
  counted(0);
});
if ($('token').value && $('channel').value) listen();

function query() {
  const q = new URLSearchParams({ channel: $('channel').value.trim(), since: $('since').value });
  const types = $('types').value.trim();
  if (types) q.set('types', types);
  if (position) q.set('last_event_id', position);
  return q;
}

function listen() {
  clearTimeout(again);
  problem.hidden = true;
  $('stop').disabled = false;
  say('waiting', 'Connecting…');
  const q = query();
  q.set('access_token', $('token').value.trim());
  source = new EventSource(`/v1/sse?${q}`);
  source.onmessage = (e) => {
    position = e.lastEventId;
    show(JSON.parse(e.data));
  };
  on('hello', (control, e) => {
    position = e.lastEventId;
    say('live', `Live on ${$('channel').value.trim()}`);
  });
  on('gap', (gap) => note(`Gap (${gap.reason}): events after ${gap.from} up to ${gap.to} won’t come.`));
  on('bye', (bye) => {
    if (bye.reconnect) {
      say('waiting', 'Reconnecting…');
      return;
    }
    stop();
    refuse(bye.reason);
  });
  source.onerror = () => {
    say('waiting', 'Reconnecting…');
    if (source?.readyState === EventSource.CLOSED) explain();
  };
}

function on(control, handle) {
  const from = source;
  from.addEventListener(`longline.${control}`, (e) => {
    if (from === source) handle(JSON.parse(e.data), e);
  });
}

// explain asks why the EventSource gave up, which it can't tell itself: a
// refusal is final, anything else is tried again from the same position.
async function explain() {
  const given = source;
  let answer;
  const abort = new AbortController();
  try {
    const response = await fetch(`/v1/sse?${query()}`, {
      signal: abort.signal,
      headers: { Authorization: `Bearer ${$('token').value.trim()}`, Accept: 'text/event-stream, application/problem+json' },
    });
    if (!response.ok && response.status < 500 && response.status !== 429) answer = await response.json();
  } catch {
    // The gateway isn't there just now.
  }
  abort.abort();
  if (given !== source) return;
  stop();
  if (answer) {
    refuse(answer.detail);
    return;
  }
  say('waiting', 'Reconnecting…');
  $('stop').disabled = false;
  again = setTimeout(listen, 500 + Math.random() * 1500);
}

function stop() {
  clearTimeout(again);
  source?.close();
  source = null;
  $('stop').disabled = true;
}

function say(state, text) {
  if (status.textContent === text) return;
  status.dataset.state = state;
  status.textContent = text;
}

function refuse(reason) {
  say('refused', 'Refused');
  problem.textContent = reason;
  problem.hidden = false;
}

function counted(n) {
  count = n;
  $('count').textContent = String(n);
  $('empty').hidden = list.childElementCount > 0;
}

function element(tag, className, text) {
  const e = document.createElement(tag);
  if (className) e.className = className;
  if (text !== undefined) e.textContent = text;
  return e;
}

function add(item) {
  list.prepend(item);
  while (list.childElementCount > KEPT) list.lastElementChild.remove();
}

function show(event) {
  const item = element('li');
  item.dataset.cursor = event.cursor;
  const head = element('div', 'head');
  head.append(element('span', 'type', event.type));
  if (event.subject) head.append(element('span', 'subject', event.subject));
  head.append(element('span', 'cursor', event.cursor));
  const time = element('time', '', new Date(event.time).toLocaleTimeString());
  time.dateTime = event.time;
  time.title = event.time;
  head.append(time);
  item.append(head);
  const data = event.data_base64 === undefined ? event.data : `${event.data_base64} (base64)`;
  if (data !== undefined) item.append(element('pre', '', typeof data === 'string' ? data : JSON.stringify(data, null, 2)));
  add(item);
  counted(count + 1);
}

function note(text) {
  add(element('li', 'note', text));
  $('empty').hidden = true;
}
