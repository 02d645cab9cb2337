// The console: signing in, and which page is shown. Each page is a module that
// is loaded when it is first asked for; its address is in the fragment.
import { ApiError, address, fromLink, me, onRefused, remember, signIn, signOut } from '/console/api.js';
import { button, empty, field, h, problem, put } from '/console/ui.js';

const main = document.getElementById('main'), nav = document.getElementById('nav'), who = document.getElementById('who');

/** By the first part of the address: the module, and the link of nav that it belongs to. */
const pages = {
  '': ['overview', '#/'],
  channels: ['channels', '#/channels'],
  events: ['event', '#/channels'],
  subscriptions: ['subscriptions', '#/subscriptions'],
  connections: ['connections', '#/connections'],
  tokens: ['tokens', '#/tokens'],
};

let refusedFor; // why the token isn't taken any longer
let leaving = new AbortController(); // of the page that is shown

async function show() {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  if (!me) return askToken(refusedFor);
  const { parts, query } = address();
  const [module, link] = Object.hasOwn(pages, parts[0] ?? '') ? pages[parts[0] ?? ''] : [];
  for (const a of nav.children) {
    if (a.hash === link) a.setAttribute('aria-current', 'page');
    else a.removeAttribute('aria-current');
  }
  if (!module) {
    put(main, empty('There is no such page', null, h('a', { href: '#/' }, 'To the overview')));
    return;
  }
  const content = h('div');
  try {
    const page = await import(`/console/${module}.js`).catch((error) => {
      throw new Error('The gateway does not answer just now.', { cause: error }); // a browser may remember that it failed: see Try again
    });
    if (signal.aborted) return;
    put(main, content);
    await page.show(content, { parts: parts.slice(1), query, signal });
  } catch (error) {
    if (signal.aborted || error.name === 'AbortError') return;
    put(main, content);
    put(content, error.status === 403 ? empty('This token may not see that', error.message,
        h('p', { class: 'row' }, h('a', { href: '#/channels' }, 'Its channels'), h('a', { href: '#/subscriptions' }, 'Its subscriptions'), h('a', { href: '#/tokens' }, 'What it may do')))
      : error.status === 404 ? empty('Nothing here', error.message)
      : h('div', { class: 'stack' }, problem(error), h('div', null, button('Try again', () => error instanceof ApiError ? show() : location.reload()))));
  }
  if (signal.aborted) return;
  document.title = `${main.querySelector('h1')?.textContent ?? 'Longline'} – Longline`;
}

/** What is asked of who has no token yet, or whose token isn't taken any more. */
function askToken(why) {
  nav.hidden = who.hidden = true;
  const input = h('input', { id: 'token', type: 'password', required: true, autocomplete: 'off', spellcheck: 'false', placeholder: 'eyJ…' });
  const said = h('div', null, why && problem(why));
  const form = h('form', { class: 'card stack', 'aria-label': 'Sign in', onsubmit: async (e) => {
    e.preventDefault();
    go.disabled = true;
    try {
      await signIn(input.value.trim());
      refusedFor = undefined;
      start();
    } catch (error) {
      put(said, problem(error));
      input.setAttribute('aria-invalid', 'true');
      input.focus();
    }
    go.disabled = false;
  } });
  const go = h('button', { class: 'main' }, 'Sign in');
  form.append(
    h('h1', null, 'Sign in'), said,
    field('Token', input, 'Kept in this tab only. What it may see and do, this page shows and does.'),
    h('div', { class: 'row between' }, go, h('a', { class: 'small', href: '/v1/openapi.json' }, 'The API')));
  put(main, h('div', { class: 'sign-in' }, form));
  document.title = 'Sign in – Longline';
  input.focus();
}

/** Shows what the address says to who is signed in. */
function start() {
  nav.hidden = who.hidden = false;
  put(who,
    h('span', { title: me.admin ? 'may do everything' : 'see Tokens for what it may do' }, me.sub || 'no name', me.admin && ' (admin)'),
    button('Sign out', () => {
      signOut();
      refusedFor = undefined;
      show();
    }, { class: 'plain' }));
  show();
}

onRefused((error) => {
  refusedFor = error;
  leaving.abort();
  signOut();
  askToken(error);
});
addEventListener('hashchange', () => {
  show();
  main.focus({ preventScroll: true });
  scrollTo(0, 0);
});
document.getElementById('skip').addEventListener('click', (e) => {
  e.preventDefault();
  main.focus();
});

const given = fromLink();
if (given?.channel) {
  remember('channel', given.channel);
  history.replaceState(null, '', `#/channels/${encodeURIComponent(given.channel)}`);
}
try {
  await signIn();
  start();
} catch (error) {
  askToken(error instanceof ApiError && error.code !== 'no_token' ? error : undefined);
}
