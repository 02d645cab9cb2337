// What can be done to a subscription. Each action says in plain words what it
// will do before it is done, and how it is undone where it can be.
import { get, path, post, request } from '/console/api.js';
import { earlier } from '/console/time.js';
import { ask, button, choice, copy, exact, field, h, json, span, toast } from '/console/ui.js';

/**
 * The buttons for a subscription. current returns it as it is when one is
 * pressed; done is called after each action.
 */
export function actions(current, done) {
  const s = current();
  const at = (verb) => path('subscriptions', s.name, ...verb ? [verb] : []);
  const held = s.status.state === 'paused';
  return [
    s.status.state === 'disabled' && button('Enable…', async () => {
      const { lag } = current().status;
      if (!await ask({ title: `Enable the callback of ${s.name}?`, action: 'Enable', text: `Its endpoint said by 410 that it wants no more. Enabling it sends the ${exact(lag.events)} events that wait, to the same URL. If it answers 410 again, it is disabled again.` })) return;
      await request('PATCH', at(), { body: { callback: {} } });
      toast('Enabled');
      await done();
    }, { class: 'main' }),
    held ? button('Resume', async () => {
      await post(at('resume'));
      toast('Resumed: what waited is delivered now', async () => { await post(at('pause')); await done(); });
      await done();
    }, { class: 'main' }) : button('Pause…', async () => {
      if (!await ask({ title: `Pause ${s.name}?`, action: 'Pause', text: [
        'Nothing is delivered until it is resumed: events wait, as long as the log keeps them. Whoever is connected gets nothing meanwhile.',
        'Resume undoes it.'] })) return;
      await post(at('pause'));
      toast('Paused: events wait', async () => { await post(at('resume')); await done(); });
      await done();
    }),
    !s.replay && button('Move position…', () => seek(current(), at, done)),
    !s.replay && button('Replay…', () => replay(current(), at)),
    !s.replay && s.callback && button('Test…', () => test(current(), at)),
    button('More…', () => more(current(), at)),
  ];
}

async function seek(s, at, done) {
  const given = await ask({
    title: `Move the position of ${s.name}?`, action: 'Move',
    text: [
      `${exact(s.status.lag.events)} events wait now. Moving forward skips what lies between: it is not delivered. Moving back delivers again what was done already, and everything after it.`,
      'A connection is ended and comes back at the new position. Undo moves it back to where it is now; what was delivered meanwhile stays delivered.',
    ],
    fields: [
      field('To', choice('to', [['latest', 'the head: skip all that waits'], ['earliest', 'the oldest event kept: deliver all again'], ['time', 'a time'], ['cursor', 'a cursor']], 'latest')),
      field('Time or cursor', h('input', { name: 'value', spellcheck: 'false', autocomplete: 'off', placeholder: '2026-01-31T12:00:00Z or acct-42@k3f9zq-1053' }), 'Only for the last two.'),
    ],
  });
  if (!given) return;
  let to = given.to;
  if (to === 'time' || to === 'cursor') {
    to = given.value.trim();
    if (!to) throw new Error('A time or a cursor is needed.');
    if (given.to === 'time' && !Number.isNaN(Date.parse(to))) to = new Date(to).toISOString();
  }
  const before = s.cursor;
  const answer = await post(at('seek'), { to });
  toast(`Moved to ${answer.cursor}`, before && (async () => {
    await post(at('seek'), { to: before });
    await done();
  }));
  await done();
}

async function test(s, at) {
  const given = await ask({
    title: `Send a test to ${s.name}?`, action: 'Send',
    text: `One event of type longline.test goes to ${s.callback.url} now, by the callback as it is defined. The position stays. What the receiver does with it can’t be taken back.`,
    fields: [
      field('Subject', h('input', { name: 'subject', autocomplete: 'off', spellcheck: 'false' }), 'Only needed if the URL or the body uses it.'),
      field('Data', h('textarea', { name: 'data', rows: 4, spellcheck: 'false', value: '{}' }), 'JSON.'),
    ],
  });
  if (!given) return;
  const body = { data: JSON.parse(given.data || '{}') };
  if (given.subject) body.subject = given.subject;
  const { request: sent, ...answer } = await post(at('test'), body);
  await ask({
    title: answer.error ? 'The test failed' : 'The test was answered', action: 'Close',
    text: [
      h('p', null, `${answer.status ? `It answered ${answer.status}` : 'There was no answer'} after ${span((answer.latency_ms ?? 0) / 1000)}.`, answer.error && ` ${answer.error}`),
      answer.body && h('div', null, h('h3', null, 'Answer'), json(answer.body)),
      h('details', null, h('summary', null, 'What was sent'), h('div', null,
        h('p', { class: 'mono break' }, `${sent.method} ${sent.url}`),
        json(Object.entries(sent.headers ?? {}).map(([n, v]) => `${n}: ${[v].flat().join(', ')}`).join('\n')), json(pretty(sent.body)))),
    ],
  });
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

async function more(s, at) {
  const given = await ask({
    title: s.name, action: 'Go on', text: 'What is to be done?',
    fields: [field('Action', choice('what', [
      ...!s.replay && s.callback ? [['secret', 'Make a new signing secret']] : [],
      ['copy', 'Copy the definition'], ['delete', 'Delete the subscription'],
    ]))],
  });
  if (given?.what === 'secret') await rotate(s, at);
  if (given?.what === 'delete') await remove(s, at);
  if (given?.what === 'copy') {
    const { name: _, cursor: __, status: ___, replay: ____, ...definition } = await get(at());
    await navigator.clipboard.writeText(JSON.stringify(definition, null, 2));
    toast('Copied');
  }
}

async function replay(s, at) {
  const given = await ask({
    title: `Deliver a range of ${s.name} again?`, action: 'Replay',
    text: [
      'A subscription of its own delivers what lies after the beginning, up to and including the end, and then goes by itself; this one goes on where it is.',
      'What is delivered can’t be taken back. The replay can be paused and deleted as any subscription.',
    ],
    fields: [
      field('From', h('input', { name: 'from', required: true, autocomplete: 'off', spellcheck: 'false', value: `${earlier(3_600_000).slice(0, 19)}Z` }), 'A time, a cursor, or earliest.'),
      field('To', h('input', { name: 'to', required: true, autocomplete: 'off', spellcheck: 'false', value: 'latest' }), 'A time, a cursor, or latest: what is there now.'),
      s.callback && field('By', choice('by', [['callback', 'the callback, at half the pace'], ['attach', 'whoever connects to it']], 'callback')),
    ],
  });
  if (!given) return;
  const made = await post(at('replay'), { from: given.from.trim(), to: given.to.trim(), callback: given.by === 'callback' });
  toast(h('span', null, 'Replayed by ', h('a', { href: `#/subscriptions/${encodeURIComponent(made.name)}` }, made.name)), () => request('DELETE', path('subscriptions', made.name)));
}

async function rotate(s, at) {
  if (!await ask({ title: 'Make a new signing secret?', action: 'Make one', text: 'Callbacks are signed by the new and the old one for 24 hours, then by the new one alone: the receiver has to learn it by then. The new one is shown once. The old one can’t be had back.' })) return;
  const { secret } = await post(at('rotate-secret'));
  await ask({ title: 'The new secret', action: 'Close', text: [
    h('p', null, 'It isn’t shown again.'),
    h('div', { class: 'row' }, h('code', { class: 'break' }, secret), copy(secret))] });
}

async function remove(s, at) {
  const given = await ask({
    title: `Delete ${s.name}?`, action: 'Delete', danger: true,
    text: `Its position, its ${exact(s.status.dead)} dead letters, its history and its secret are gone, and ${exact(s.status.lag.events)} events that wait are not delivered. The events stay in their channels. This can’t be undone.`,
    fields: field('Type its name to be sure', h('input', { name: 'sure', required: true, autocomplete: 'off', spellcheck: 'false' })),
  });
  if (!given) return;
  if (given.sure !== s.name) throw new Error('That is another name: nothing was deleted.');
  await request('DELETE', at());
  toast(`${s.name} is deleted`);
  location.hash = '#/subscriptions';
}
