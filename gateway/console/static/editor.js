// A subscription's definition as JSON. Only what was changed is sent, so what
// the API keeps to itself (headers, secrets) stays as it is; what can't be taken
// the gateway refuses, in its own words.
import { path, request } from '/console/api.js';
import { ask, button, copy, field, h, problem, put, toast } from '/console/ui.js';

const template = `{
  "channels": ["acct-42"],
  "types": [],
  "description": "",
  "callback": {
    "url": "https://crm.example.com/longline"
  }
}`;

/** The definition of a subscription as GET shows it. */
function definition(s) {
  const { name: _, cursor: __, status: ___, replay: ____, ...d } = s;
  return d;
}

/** The editor for a subscription that is there. */
export function edit(s, done) {
  const at = path('subscriptions', s.name);
  let had = definition(s);
  const text = h('textarea', { class: 'editor', spellcheck: 'false', value: JSON.stringify(had, null, 2), oninput: () => check() });
  const said = h('div', { role: 'status' });
  const save = button('Save…', async () => {
    const now = parse(text.value), patch = difference(had, now);
    if (!Object.keys(patch).length) {
      toast('Nothing was changed');
      return;
    }
    const before = had, lines = changes(had, now);
    if (!await ask({ title: `Change ${s.name}?`, action: 'Save', text: [
      h('ul', { class: 'diff' }, lines.map(([at, was, is]) => h('li', null, was !== undefined && h('div', null, h('del', null, `${at}: ${was}`)), is !== undefined && h('div', null, h('ins', null, `${at}: ${is}`))))),
      ends(patch) && h('p', null, 'A connection is ended and comes back by itself, since what it is sent changes.'),
    ].filter(Boolean) })) return;
    try {
      had = definition(await request('PATCH', at, { body: patch }));
    } catch (error) {
      put(said, problem(error));
      return;
    }
    text.value = JSON.stringify(had, null, 2);
    check();
    toast('Saved', async () => {
      had = definition(await request('PATCH', at, { body: difference(had, before) }));
      text.value = JSON.stringify(had, null, 2);
      await done();
    });
    await done();
  }, { class: 'main' });
  function check() {
    try {
      parse(text.value);
      put(said);
      text.removeAttribute('aria-invalid');
      save.disabled = false;
    } catch (error) {
      put(said, problem(error));
      text.setAttribute('aria-invalid', 'true');
      save.disabled = true;
    }
  }
  return h('div', { class: 'stack' },
    field('Definition', text, 'JSON. Headers, secrets and credentials of the callback are never shown; they stay as they are unless they are given anew here.'),
    said, h('div', { class: 'row' }, save, button('Start over', () => {
      text.value = JSON.stringify(had, null, 2);
      check();
    }), copy(() => text.value)));
}

/** The page that makes a subscription. */
export function create(page) {
  const name = h('input', { required: true, autocomplete: 'off', spellcheck: 'false', placeholder: 'crm-42' });
  const text = h('textarea', { class: 'editor', spellcheck: 'false', value: template });
  const said = h('div', { role: 'status' });
  const form = h('form', { class: 'card stack', onsubmit: async (e) => {
    e.preventDefault();
    try {
      const made = await request('PUT', path('subscriptions', name.value.trim()), { body: parse(text.value), headers: { 'If-None-Match': '*' } });
      if (made.callback?.secret) {
        await ask({ title: 'The signing secret', action: 'Go on', text: [
          h('p', null, 'Callbacks are signed by it; the receiver needs it to check them. It isn’t shown again.'),
          h('div', { class: 'row' }, h('code', { class: 'break' }, made.callback.secret), copy(made.callback.secret))] });
      }
      location.hash = `#/subscriptions/${encodeURIComponent(made.name)}`;
    } catch (error) {
      put(said, problem(error));
    }
  } },
    field('Name', name), field('Definition', text, 'JSON, as PUT /v1/subscriptions/{name} takes it. Only channels are needed; without a callback events wait for a consumer.'),
    said, h('div', null, h('button', { class: 'main' }, 'Make it')));
  put(page, h('div', { class: 'head' }, h('div', null, h('div', { class: 'crumb' }, h('a', { href: '#/subscriptions' }, 'Subscriptions')), h('h1', null, 'New subscription'))), form);
}

function parse(text) {
  let value;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new Error(`This is no JSON: ${error.message}`);
  }
  if (!isObject(value)) throw new Error('A definition is an object: {"channels": […]}.');
  return value;
}

const isObject = (v) => v !== null && typeof v === 'object' && !Array.isArray(v);

/** What makes `now` of `had` by RFC 7396. */
export function difference(had, now) {
  const patch = {};
  for (const name of new Set([...Object.keys(had), ...Object.keys(now)])) {
    if (!(name in now)) patch[name] = null;
    else if (isObject(had[name]) && isObject(now[name])) {
      const inner = difference(had[name], now[name]);
      if (Object.keys(inner).length) patch[name] = inner;
    } else if (JSON.stringify(had[name]) !== JSON.stringify(now[name])) patch[name] = now[name];
  }
  return patch;
}

/** The same for people: [path, was, is]. */
function changes(had, now, at = '') {
  return [...new Set([...Object.keys(had), ...Object.keys(now)])].flatMap((name) => {
    const was = had[name], is = now[name], here = at + name;
    if (isObject(was) && isObject(is)) return changes(was, is, `${here}.`);
    return JSON.stringify(was) === JSON.stringify(is) ? [] : [[here, JSON.stringify(was), JSON.stringify(is)]];
  });
}

const ends = (patch) => ['channels', 'types', 'filter', 'group'].some((name) => name in patch);
