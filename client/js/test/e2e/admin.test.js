import assert from 'node:assert/strict';
import { generateKeyPairSync, verify } from 'node:crypto';
import { after, before, test } from 'node:test';
import { ForbiddenError, Longline, NotFoundError, UnauthorizedError, mintToken } from '../../src/index.js';
import { Control, SECRET } from './control.js';

let control, line;
before(async () => {
  control = await Control.start();
  line = new Longline(control.url, { token: await mintToken(SECRET, { sub: 'ops', admin: true, subscribe: ['**'], publish: ['**'], subscriptions: ['*'] }) });
});
after(() => control?.stop());

const all = async (list) => {
  const items = [];
  for await (const item of list) items.push(item);
  return items;
};
const ids = (events) => events.map(({ id }) => id);

test('a subscription is made, changed, listed, moved, held and deleted', async () => {
  const { subscriptions } = line;
  await line.publish('acct-1', ['a', 'b', 'c'].map((id) => ({ id, type: 'email.opened' })));
  assert.equal(await subscriptions.create('crm-1', { channels: ['acct-1'], start: 'earliest', labels: { team: 'crm' } }), true);
  assert.equal(await subscriptions.create('crm-1', { channels: ['acct-1'] }), false);
  assert.deepEqual((await subscriptions.patch('crm-1', { description: 'for the CRM' })).labels, { team: 'crm' });
  const info = await subscriptions.get('crm-1');
  assert.deepEqual([info.name, info.description, info.status.state], ['crm-1', 'for the CRM', 'offline']);
  await subscriptions.put('crm-2', { channels: ['acct-1'] });
  assert.deepEqual((await all(subscriptions.list({ limit: 1 }))).map(({ name }) => name), ['crm-1', 'crm-2']);
  assert.deepEqual((await all(subscriptions.list({ label: 'team=crm' }))).map(({ name }) => name), ['crm-1']);
  await subscriptions.pause('crm-1');
  assert.equal((await subscriptions.get('crm-1')).status.state, 'paused');
  await subscriptions.resume('crm-1');
  await subscriptions.seek('crm-1', 'latest');
  assert.equal((await subscriptions.get('crm-1')).cursor.endsWith('-3'), true);
  await subscriptions.seek('crm-1', new Date(0));
  await subscriptions.delete('crm-2');
  await assert.rejects(subscriptions.get('crm-2'), (error) => error instanceof NotFoundError && error.code === 'not_found' && error.requestId.length > 0 && !error.retry);
});

test('events are pulled, acknowledged, rejected, put back, traced, resent and replayed', async () => {
  const { subscriptions } = line;
  await line.publish('acct-2', ['a', 'b', 'c'].map((id) => ({ id, type: 'email.opened' })));
  await subscriptions.create('pull-1', { channels: ['acct-2'], start: 'earliest' });
  const page = await subscriptions.pull('pull-1', { max: 2, consumer: 'me' });
  assert.deepEqual(ids(page.events), ['a', 'b']);
  const [a, b] = page.events.map(({ cursor }) => cursor);
  await subscriptions.reject('pull-1', a, 'no such contact', { attempts: 3, consumer: 'me' });
  assert.equal(await subscriptions.ack('pull-1', b), b);
  const [letter] = await subscriptions.dead('pull-1');
  assert.deepEqual([letter.event.id, letter.reason, letter.attempts], ['a', 'no such contact', 3]);
  assert.equal((await subscriptions.trace('pull-1', { cursor: a })).state, 'dead');
  assert.equal((await subscriptions.trace('pull-1', { id: 'b' })).state, 'acknowledged');
  assert.equal(await subscriptions.redrive('pull-1', { cursors: [a] }), 1);
  assert.equal(await subscriptions.resend('pull-1', [b]), 1);
  await subscriptions.clearDead('pull-1');
  const replay = await subscriptions.replay('pull-1', 'earliest', b);
  assert.deepEqual(ids((await subscriptions.pull(replay)).events), ['a', 'b']);
});

test('a callback is tested, its secret rotated, its attempts listed', async () => {
  const { subscriptions } = line;
  const receiver = await control.receiver();
  const made = await subscriptions.put('hook', { channels: ['acct-3'], callback: { url: receiver.url, mode: 'always' } });
  assert.match(made.callback.secret, /^whsec_/);
  assert.notEqual(await subscriptions.rotateSecret('hook'), made.callback.secret);
  const result = await subscriptions.test('hook', { subject: 'alice@example.com' });
  assert.equal(result.request.url, receiver.url);
  await line.publish('acct-3', { id: 'a', type: 't' });
  let attempts;
  while (!(attempts = await all(subscriptions.attempts('hook'))).length) await new Promise((resolve) => setTimeout(resolve, 20));
  assert.deepEqual(attempts.at(-1).ids, ['a']);
});

test('channels are listed, read and dropped', async () => {
  const { channels } = line;
  await line.publish('logs.eu', ['a', 'b'].map((id) => ({ id, type: id === 'a' ? 'email.opened' : 'call' })));
  assert.deepEqual(await all(channels.list({ prefix: 'logs.' })), ['logs.eu']);
  assert.equal((await channels.get('logs.eu')).head, 2);
  assert.deepEqual(ids((await channels.read('logs.eu', { since: 'earliest', types: ['email.*'] })).events), ['a']);
  await channels.delete('logs.eu');
  await assert.rejects(channels.get('logs.eu'), NotFoundError);
});

test('a token gives what it names, until it is revoked', async () => {
  for (const algorithm of ['HS256', 'HS384', 'HS512']) {
    const token = await mintToken(SECRET, { sub: 'customer', algorithm, subscribe: ['acct-1'], ttl: 60_000 });
    const customer = new Longline(control.url, { token });
    assert.equal((await customer.channels.get('acct-1')).head > 0, true);
    await assert.rejects(customer.publish('acct-1', { type: 't' }), ForbiddenError);
    await line.tokens.revoke({ jti: JSON.parse(atob(token.split('.')[1])).jti });
    let error;
    while (!error) error = await customer.channels.get('acct-1').then(() => undefined, (refused) => refused);
    assert.ok(error instanceof UnauthorizedError, `${error}`);
  }
});

test('tokens are signed by a private key, too; what can’t be a token is refused', async () => {
  const { publicKey, privateKey } = generateKeyPairSync('ed25519');
  const token = await mintToken(privateKey.export({ type: 'pkcs8', format: 'pem' }), { sub: 'x', algorithm: 'EdDSA', kid: 'k1' });
  const [header, body, signature] = token.split('.');
  assert.deepEqual(JSON.parse(Buffer.from(header, 'base64url')), { alg: 'EdDSA', typ: 'JWT', kid: 'k1' });
  assert.ok(verify(null, Buffer.from(`${header}.${body}`), publicKey, Buffer.from(signature, 'base64url')));
  for (const [key, rights] of [
    ['short', { sub: 'x' }], [SECRET, {}], [SECRET, { sub: 'x', subscribe: 'acct-1' }], [SECRET, { sub: 'x', algorithm: 'none' }], [SECRET, { sub: 'x', algorithm: 'EdDSA' }],
  ]) await assert.rejects(mintToken(key, rights), TypeError);
});
