// The page that a service gives its customers: their own subscriptions, and
// nothing of others. What it may show and do is what the link's token may; how
// it looks stands in that token too, so no link shows what its signer didn't say.
import { address, fromLink, get, me, onRefused, path, request, signIn, signOut } from '/console/api.js';
import { ago, ask, badge, button, copy, empty, exact, field, h, problem, put } from '/console/ui.js';

const $ = (id) => document.getElementById(id);
const main = $('main');
const shared = { subscriptions: 'subscription', events: 'event', channels: 'channels' }; // the console's own pages
let leaving = new AbortController();

async function show() {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  if (!me) return ended();
  const { parts: [where = '', ...parts], query } = address();
  const page = h('div');
  put(main, page);
  try {
    if (where === 'new') await create(page, signal);
    else if (Object.hasOwn(shared, where) && parts.length) await (await import(`/console/${shared[where]}.js`)).show(page, { parts, query, signal });
    else await overview(page, signal);
  } catch (error) {
    if (signal.aborted || error.name === 'AbortError') return;
    put(page, h('div', { class: 'stack' }, problem(error), h('a', { href: '#/' }, 'To the beginning')));
  }
}

/** What is theirs: subscriptions, and what types of events come. */
async function overview(page, signal) {
  const [subs, ...types] = await Promise.all([
    get('/v1/subscriptions', { limit: 100 }, signal),
    ...me.subscribe.map((c) => get(`${path('channels', c)}/types`, {}, signal).catch(() => ({ types: [] }))),
  ]);
  if (signal.aborted) return;
  put(page, h('div', { class: 'stack' },
    h('div', { class: 'head' }, h('h1', null, 'Where your events go'), h('a', { class: 'button', href: '#/new' }, 'New destination')),
    h('section', { class: 'card', 'aria-label': 'Destinations' }, subs.subscriptions.length ? h('ul', { class: 'list' }, subs.subscriptions.map(destination)) :
      empty('Nothing yet', 'A destination is where events are brought: a URL of yours, a CRM, or a program that holds a line.', h('a', { class: 'button', href: '#/new' }, 'Make the first one'))),
    h('section', { class: 'card' }, h('h2', null, 'What happens'), seen(me.subscribe, types)),
    h('section', { class: 'card' }, h('h2', null, 'Take them by a program'), lines(subs.subscriptions[0]?.name))));
}

const destination = (s) => h('li', null,
  h('a', { href: `#/subscriptions/${encodeURIComponent(s.name)}`, class: 'break' }, s.name), badge(s.status.state),
  h('span', { class: 'soft small break' }, s.callback?.url ?? 'no URL: taken by a program'),
  s.status.lag.events > 0 && h('span', { class: 'small' }, `${exact(s.status.lag.events)} wait`),
  s.status.dead > 0 && h('span', { class: 'small' }, `${exact(s.status.dead)} set aside`));

function seen(channels, lists) {
  const rows = lists.flatMap(({ types }, i) => types.map((t) => h('li', null, h('span', { class: 'mono break' }, t.type),
    h('span', { class: 'soft small' }, `${exact(t.events)} of late in ${channels[i]}, the newest `),
    h('a', { class: 'small', href: `#/events/${encodeURIComponent(t.last)}` }, 'here'))));
  return rows.length ? h('ul', { class: 'list' }, rows) : h('p', { class: 'soft small' }, 'No event has been published for you yet.');
}

/** The SDK's lines, to be copied. Tokens for programs are the service's to give. */
function lines(name) {
  const text = `import { Longline } from 'longline';

const line = new Longline('${location.origin}', { token: process.env.LONGLINE_TOKEN });
for await (const event of line.attach('${name ?? me.subscriptions[0].replace(/\*/g, 'crm')}')) {
  await handle(event.data); // acknowledged when the loop goes on
}`;
  return h('div', { class: 'stack tight' }, h('p', { class: 'small soft' }, 'No URL has to be open to the world: the program asks for its events and takes them at its own pace. This page’s token ends soon; ask your provider for one for programs.'),
    h('pre', { tabindex: 0 }, text), h('div', null, copy(text)));
}

const webhook = { name: 'webhook', title: 'A URL of yours', text: 'A signed POST for each event. Receivers check the signature by the secret that you are shown once.',
  definition: { callback: { url: 'https://example.com/events', mode: 'always' } } };
const program = { name: 'program', title: 'A program', text: 'No URL: a program attaches with the SDK and takes events at its own pace.', definition: {} };

/** Makes a destination of a recipe. */
async function create(page, signal) {
  const { recipes } = await get('/v1/recipes', {}, signal);
  const all = [webhook, program, ...recipes];
  const name = h('input', { name: 'name', required: true, autocomplete: 'off', spellcheck: 'false', value: proposed() });
  const types = h('input', { name: 'types', autocomplete: 'off', spellcheck: 'false', placeholder: 'all, or email.*, mailshot.completed' });
  const url = h('input', { name: 'url', type: 'url', placeholder: 'https://crm.example.com/events' });
  const text = h('textarea', { name: 'callback', class: 'editor', spellcheck: 'false' });
  const about = h('p', { class: 'small said' }), said = h('div', { role: 'status' });
  const simple = field('URL', url), full = field('Call', text, 'What is called, and how. Put your own address, names and credentials where the example has its.');
  let chosen = webhook;
  function choose(recipe) {
    chosen = recipe;
    about.textContent = recipe.text;
    types.value = (recipe.definition.types ?? []).join(', ');
    text.value = recipe.definition.callback ? JSON.stringify(recipe.definition.callback, null, 2) : '';
    simple.hidden = recipe !== webhook;
    full.hidden = recipe === webhook || recipe === program;
    url.required = recipe === webhook;
  }
  const channels = me.subscribe.map((c) => h('input', { type: 'checkbox', name: 'channel', value: c, checked: true }));
  const form = h('form', { class: 'card stack', 'aria-label': 'New destination', onsubmit: async (e) => {
    e.preventDefault();
    try {
      const body = { channels: channels.filter((c) => c.checked).map((c) => c.value), types: types.value.split(',').map((t) => t.trim()).filter(Boolean), labels: { recipe: chosen.name } };
      if (chosen === webhook) body.callback = { url: url.value, mode: 'always' };
      else if (chosen !== program) body.callback = JSON.parse(text.value);
      const made = await request('PUT', path('subscriptions', name.value.trim()), { body, headers: { 'If-None-Match': '*' } });
      if (made.callback?.secret) {
        await ask({ title: 'The signing secret', action: 'Go on', text: [h('p', null, 'Your receiver checks signatures by it. It isn’t shown again.'),
          h('div', { class: 'row' }, h('code', { class: 'break' }, made.callback.secret), copy(made.callback.secret))] });
      }
      location.hash = `#/subscriptions/${encodeURIComponent(made.name)}`;
    } catch (error) {
      put(said, problem(error));
    }
  } },
    h('fieldset', { class: 'recipes' }, h('legend', null, 'Where to'), all.map((r) => h('label', null, h('input', { type: 'radio', name: 'recipe', checked: r === webhook, onchange: () => choose(r) }), r.title))),
    about, simple, full,
    h('div', { class: 'fields' }, field('Name', name, `One of yours: ${me.subscriptions.join(', ')}`), field('Types of events', types)),
    channels.length > 1 && h('fieldset', { class: 'plain' }, h('legend', null, 'Channels'), channels.map((c) => h('label', { class: 'check' }, c, c.value))),
    said, h('div', { class: 'row' }, h('button', { class: 'main' }, 'Make it'), h('a', { href: '#/' }, 'Cancel')));
  choose(webhook);
  put(page, h('div', { class: 'head' }, h('h1', null, 'New destination')), form);
}

/** A name that the token allows. */
const proposed = () => me.subscriptions[0].replace(/\*/g, Math.random().toString(36).slice(2, 6));

/** How the portal looks is what its token says. A colour that can't be read on both papers only marks. */
function theme({ name, accent, return_url: back } = {}) {
  if (name) $('name').textContent = document.title = name;
  if (accent) document.querySelector('.mark').style.setProperty('--accent', accent);
  if (/^https?:\/\//.test(back ?? '')) {
    $('back').href = back;
    $('back').target = '_top'; // of a frame, too
    $('back').hidden = false;
  }
  put($('expires'), 'This link ends ', ago(me.expires));
}

function ended(error) {
  leaving.abort();
  $('expires').textContent = '';
  put(main, empty('This link has ended', error?.message ?? 'Links last for minutes. Open the page again from where you came.', !$('back').hidden && h('a', { class: 'button', href: $('back').href, target: '_top' }, 'Back')));
}

onRefused((error) => {
  signOut();
  ended(error);
});
addEventListener('hashchange', async () => {
  if (new URLSearchParams(location.hash.slice(1)).has('token')) return location.reload(); // another link in the same tab
  await show();
  main.focus({ preventScroll: true });
});
fromLink();
try {
  await signIn();
  theme(me.portal);
  await show();
} catch (error) {
  ended(error.code === 'no_token' ? undefined : error);
}
