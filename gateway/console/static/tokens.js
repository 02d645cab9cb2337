// Tokens: what one may do, making one where the gateway does, and revoking.
import { claims, me, request, token } from '/console/api.js';
import { earlier } from '/console/time.js';
import { ago, ask, badge, choice, copy, empty, facts, field, h, json, problem, put, toast } from '/console/ui.js';

export function show(page) {
  const shown = h('div');
  const pasted = h('textarea', { rows: 3, spellcheck: 'false', placeholder: 'eyJ…', autocomplete: 'off' });
  const form = h('form', { class: 'card stack', onsubmit: async (e) => {
    e.preventDefault();
    await inspect(pasted.value.trim());
  } }, h('h2', null, 'What may a token do?'),
    field('Token', pasted, 'It is sent to this gateway alone, to ask whether it is taken.'),
    h('div', { class: 'row' }, h('button', { class: 'main' }, 'Look'), h('button', { type: 'button', onclick: () => inspect(token()) }, 'Mine')));

  async function inspect(text) {
    const said = claims(text);
    try {
      put(shown, rights(await request('GET', '/v1/token', { as: text }), said));
    } catch (error) {
      put(shown, h('section', { class: 'card stack' }, h('div', null, badge('refused', 'not taken')), problem(error),
        said ? [h('p', { class: 'small' }, 'What it says of itself, which nobody vouches for:'), json(said)] : empty('It is no JWT', 'A token has three parts, divided by dots.')));
    }
  }

  put(page, h('div', { class: 'head' }, h('h1', null, 'Tokens')),
    h('div', { class: 'stack' }, form, shown, me.mints ? mint(inspect) : h('p', { class: 'small soft' }, 'This gateway makes no tokens: it was given a key, and whoever has that makes them, e.g. by longline token.'), me.admin && revoke()));
  inspect(token());
}

const list = (patterns) => patterns.length ? h('span', { class: 'mono break' }, patterns.join('  ')) : h('span', { class: 'soft' }, 'none');

const rights = (t, said) => h('section', { class: 'card stack' },
  h('div', { class: 'row' }, badge('ready', 'taken'), t.admin && h('span', { class: 'tag' }, 'admin: may do everything')),
  facts(
    ['Sub', t.sub || '–'],
    t.jti && ['Id (jti)', h('span', { class: 'mono' }, t.jti)],
    t.issued && ['Issued', ago(t.issued)],
    ['Ends', ago(t.expires)],
    ['May read', t.admin ? 'every channel' : list(t.subscribe)],
    ['May publish to', t.admin ? 'every channel' : list(t.publish)],
    ['Subscriptions', t.admin ? 'all' : list(t.subscriptions)],
    t.max_connections && ['Connections', `at most ${t.max_connections} on a node`]),
  said && h('details', null, h('summary', null, 'As it is written'), json(said)));

function mint(inspect) {
  const made = h('div');
  const patterns = (text) => text.split(/[\s,]+/).filter(Boolean);
  const form = h('form', { class: 'card stack', onsubmit: async (e) => {
    e.preventDefault();
    const given = Object.fromEntries(new FormData(form));
    try {
      const { token: text } = await request('POST', '/v1/tokens', { body: {
        sub: given.sub, subscribe: patterns(given.subscribe), publish: patterns(given.publish), subscriptions: patterns(given.subscriptions),
        admin: given.admin === 'on', ttl: given.ttl,
      } });
      put(made, h('div', { class: 'stack tight' }, h('div', { class: 'row between' }, h('h3', null, 'The token'), copy(text)), json(text)));
      await inspect(text);
    } catch (error) {
      put(made, problem(error));
    }
  } },
    h('div', null, h('h2', null, 'Make a token'), h('p', { class: 'small soft' }, 'This gateway has a key of its own, for development.')),
    h('div', { class: 'fields' },
      field('Sub', h('input', { name: 'sub', value: 'customer-42', required: true, autocomplete: 'off', spellcheck: 'false' })),
      field('May read', h('input', { name: 'subscribe', value: 'acct-42', autocomplete: 'off', spellcheck: 'false' }), 'Channel patterns: acct-42, public.**'),
      field('May publish to', h('input', { name: 'publish', autocomplete: 'off', spellcheck: 'false' }), 'Channel patterns.'),
      field('Subscriptions', h('input', { name: 'subscriptions', value: 'crm-42-*', autocomplete: 'off', spellcheck: 'false' }), 'Name patterns.'),
      field('Lasts', choice('ttl', [['15m', '15 minutes'], ['1h', '1 hour'], ['24h', '1 day'], ['720h', '30 days']], '1h')),
      h('label', { class: 'check' }, h('input', { type: 'checkbox', name: 'admin' }), 'Admin: may do everything')),
    h('div', null, h('button', { class: 'main' }, 'Make it')), made);
  return form;
}

function revoke() {
  const form = h('form', { class: 'card stack', onsubmit: async (e) => {
    e.preventDefault();
    const { by, value } = Object.fromEntries(new FormData(form));
    if (!await ask({
      title: by === 'jti' ? 'Revoke this token?' : `Revoke all tokens of ${value}?`, action: 'Revoke', danger: true,
      text: `It takes effect on every node within two seconds; connections by it are ended.${by === 'sub' ? ' Subscriptions that these tokens made are paused. Tokens issued from now on are good.' : ''} This can’t be undone.`,
    })) return;
    try {
      await request('POST', '/v1/tokens/revoke', { body: by === 'jti' ? { jti: value } : { sub: value, before: earlier(0) } });
      toast('Revoked');
    } catch (error) {
      toast(error.message);
    }
  } }, h('h2', null, 'Revoke'), h('div', { class: 'bar-line' },
    field('By', choice('by', [['jti', 'the token’s id (jti)'], ['sub', 'the sub: all its tokens so far']])),
    field('Which', h('input', { name: 'value', required: true, autocomplete: 'off', spellcheck: 'false' })),
    h('button', { class: 'danger' }, 'Revoke…')));
  return form;
}
