// Everything that can be done in the console, done by hand, and undone where it
// can be: against the embedded broker and against Redis.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { bench, freePort, receiver, startGateway, until, watch } from './gateway.js';

let shared;
before(async () => { shared = await bench(); });
after(() => shared?.end());

/** A page that is signed in; complaints must be none in the end. */
async function open(t, gateway, token = gateway.token) {
  const context = await shared.browser.newContext();
  t.after(() => context.close());
  const page = await context.newPage();
  const complaints = watch(page);
  await page.goto(`${gateway.url}/#token=${token}`);
  const dialog = page.getByRole('dialog');
  return {
    page, dialog, complaints,
    go: async (address, until) => {
      await page.goto(`${gateway.url}/#/${address}`);
      await page.getByRole('heading', { level: 1, name: until, exact: true }).waitFor();
    },
    /** Presses a button, reads what it will do, and confirms. */
    act: async (button, says, confirm, fill) => {
      await page.getByRole('button', { name: button, exact: true }).first().click();
      await dialog.getByText(says).waitFor();
      await fill?.();
      await dialog.getByRole('button', { name: confirm, exact: true }).click();
    },
    undo: () => page.getByRole('button', { name: 'Undo' }).last().click(),
    badge: (state) => page.locator('.head .badge').getByText(state, { exact: true }).waitFor(),
    said: (text) => page.locator('#toasts').getByText(text).first().waitFor(),
  };
}

async function redis(t) {
  const port = await freePort(), dir = join(shared.dir, 'redis');
  mkdirSync(dir);
  const server = spawn('redis-server', ['--port', port, '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', dir], { stdio: ['ignore', 'pipe', 'inherit'] });
  t.after(async () => {
    server.kill('SIGKILL');
    await once(server, 'exit');
  });
  for await (const piece of server.stdout) if (/Ready to accept/.test(String(piece))) break;
  server.stdout.resume();
  return `redis://127.0.0.1:${port}`;
}

// They wait for callbacks more than they work: both at once.
describe('what an operator does', { concurrency: 2 }, () => {
  for (const kind of ['embedded', 'Redis']) {
    test(`on ${kind}`, { timeout: 120_000 }, async (t) => {
      const gateway = await startGateway(shared.binary, await freePort(), kind === 'Redis' ? await redis(t) : join(shared.dir, 'actions'));
      t.after(gateway.kill);
      const crm = await receiver((event) => event.data?.bad ? [422, 'no such contact'] : event.type === 'crm.closed' ? [410] : [200, '{"ok":true}']);
      t.after(crm.close);
      const { page, dialog, complaints, go, act, undo, badge, said } = await open(t, gateway);
      await page.getByRole('heading', { name: 'Overview' }).waitFor();
      const standing = () => gateway.call('GET', '/v1/subscriptions/crm-1');

      // Make a subscription; a wrong definition is refused in the API's words.
      await go('subscriptions/new', 'New subscription');
      await page.getByLabel('Name').fill('crm-1');
      const definition = { channels: ['acct-1'], start: 'earliest', callback: { url: crm.url, grace: '0s', headers: { 'X-Tenant': '1' } } };
      await page.getByLabel('Definition').fill(JSON.stringify({ ...definition, windo: 3 }));
      await page.getByRole('button', { name: 'Make it' }).click();
      await page.getByRole('alert').getByText('windo').waitFor();
      await page.getByLabel('Definition').fill(JSON.stringify(definition));
      await page.getByRole('button', { name: 'Make it' }).click();
      assert.match(await dialog.locator('code').textContent(), /^whsec_/);
      await dialog.getByRole('button', { name: 'Go on' }).click();
      await page.getByRole('heading', { level: 1, name: 'crm-1' }).waitFor();

      // Publish, and see what became of it.
      await go('channels/acct-1', 'acct-1');
      await act('Publish…', /can’t be taken back/, 'Publish', async () => {
        await dialog.getByLabel('Type').fill('email.opened');
        await dialog.getByLabel('Data').fill('{"n":1}');
      });
      await page.locator('#toasts a').click();
      await page.locator('.fate .badge').waitFor();
      await until(() => crm.got.length === 1, 'it is delivered');
      await until(async () => (await standing()).status.lag.events === 0, 'it is acknowledged');
      await page.reload();
      await page.locator('.fate .badge').getByText('acknowledged').waitFor();
      await act('Deliver again…', /delivered once more/, 'Deliver again');
      await said('On its way to crm-1');
      await until(() => crm.got.filter((e) => e.data?.n === 1).length === 2, 'it comes again');

      // Pause, undo, pause, resume.
      await go('subscriptions/crm-1', 'crm-1');
      await act('Pause…', /Nothing is delivered until/, 'Pause');
      await badge('paused');
      await undo();
      await page.getByRole('button', { name: 'Pause…' }).waitFor();
      await act('Pause…', /Nothing is delivered until/, 'Pause');
      await badge('paused');
      await gateway.publish('acct-1', { type: 'email.clicked', data: { bad: true } }, { type: 'email.clicked', data: { n: 3 } });

      // Move the position forward, and back by undo.
      const { cursor } = await standing();
      await act('Move position…', /skips what lies between/, 'Move');
      await said('Moved to');
      await until(async () => (await standing()).cursor !== cursor, 'it moved');
      await undo();
      await until(async () => (await standing()).cursor === cursor, 'it moved back');
      await page.getByRole('button', { name: 'Resume' }).click();
      await until(async () => (await standing()).status.dead === 1, 'one is set aside');

      // Dead letters: deliver again, one and all; delete.
      await go('subscriptions/crm-1/dead', 'crm-1');
      const bad = () => crm.got.filter((e) => e.data?.bad).length;
      const setAsideAgain = (than) => until(async () => bad() > than && (await gateway.call('GET', '/v1/subscriptions/crm-1/dead')).dead.length === 1, 'it was tried, and set aside again');
      let tried = bad();
      await page.getByRole('checkbox').check();
      await act('Deliver 1 again…', /Each is delivered once more/, 'Deliver again');
      await said('1 on their way');
      await setAsideAgain(tried);
      await page.reload();
      tried = bad();
      await act('Deliver all again…', /Each is delivered once more/, 'Deliver again');
      await setAsideAgain(tried);
      await page.reload();
      await act('Delete all…', /This can’t be undone/, 'Delete');
      await page.getByText('Nothing was set aside').waitFor();

      // Attempts, with what was answered.
      await go('subscriptions/crm-1/attempts', 'crm-1');
      await page.getByLabel('Answer').selectOption('4xx');
      await page.locator('.tail summary').first().click();
      await page.getByText('no such contact').first().waitFor();

      // Test, a new secret.
      await go('subscriptions/crm-1', 'crm-1');
      await act('Test…', /One event of type longline\.test goes to/, 'Send');
      await dialog.getByText('It answered 200').waitFor();
      await dialog.getByRole('button', { name: 'Close' }).click();
      await act('Replay…', /goes by itself/, 'Replay');
      await said('Replayed by');
      await act('More…', /What is to be done/, 'Go on', () => dialog.getByLabel('Action').selectOption('secret'));
      await dialog.getByText(/for 24 hours/).waitFor();
      await dialog.getByRole('button', { name: 'Make one' }).click();
      assert.match(await dialog.locator('code').textContent(), /^whsec_/);
      await dialog.getByRole('button', { name: 'Close' }).click();

      // Edit: no JSON, refused by the API, saved, undone.
      await go('subscriptions/crm-1/definition', 'crm-1');
      const editor = page.getByLabel('Definition');
      await editor.fill('{\n"channels": [\n}');
      await page.getByRole('alert').getByText('This is no JSON').waitFor();
      const { name: _, cursor: __, status: ___, ...had } = await standing();
      await editor.fill(JSON.stringify({ ...had, filter: 'event.data.n >' }));
      await act('Save…', /filter/, 'Save');
      await page.getByRole('alert').getByText(/filter/).waitFor();
      await editor.fill(JSON.stringify({ ...had, description: 'the first' }));
      await act('Save…', /description/, 'Save');
      await until(async () => (await standing()).description === 'the first', 'it is saved');
      await undo();
      await until(async () => !(await standing()).description, 'it is as it was');

      // An endpoint that wants no more disables the callback; it is enabled by hand.
      await gateway.publish('acct-1', { type: 'crm.closed' });
      await go('subscriptions/crm-1', 'crm-1');
      await badge('disabled');
      await act('Enable…', /said by 410/, 'Enable');
      await said('Enabled');

      // Connections: close one. Nodes: drain, take back.
      const line = fetch(`${gateway.url}/v1/sse?channel=acct-1&access_token=${gateway.token}`).then((r) => r.text());
      await go('connections', 'Connections');
      await page.locator('tr').filter({ hasText: 'acct-1' }).waitFor();
      await act('Close…', /is told goodbye/, 'Close');
      assert.match(await line, /closed by an operator/);
      await act('Drain…', /the only node/, 'Drain');
      await until(async () => (await fetch(`${gateway.url}/readyz`)).status === 503, 'it drains');
      await page.getByRole('button', { name: 'Take back' }).click();
      await until(async () => (await fetch(`${gateway.url}/readyz`)).status === 200, 'it is back');

      // Tokens: make one where the gateway does, look at it, revoke it.
      await go('tokens', 'Tokens');
      if (kind === 'embedded') {
        await page.getByLabel('Sub', { exact: true }).fill('dev');
        await page.getByRole('button', { name: 'Make it' }).click();
        const made = await page.locator('form pre').textContent();
        await page.locator('dd').getByText('crm-42-*').waitFor();
        await page.getByLabel('By').selectOption('sub');
        await page.getByLabel('Which').fill('dev');
        await page.waitForFunction(() => Date.now() % 1000 < 200); // a token is of the second it was made in
        await act('Revoke…', /within two seconds/, 'Revoke');
        await said('Revoked');
        await page.getByLabel('Token').fill(made);
        await until(async () => {
          await page.getByRole('button', { name: 'Look' }).click();
          return await page.getByText('not taken').count() > 0;
        }, 'it is not taken');
      } else {
        await page.getByText('This gateway makes no tokens').waitFor();
      }

      // Delete, with its name typed.
      await go('subscriptions/crm-1', 'crm-1');
      await act('More…', /What is to be done/, 'Go on', () => dialog.getByLabel('Action').selectOption('delete'));
      await dialog.getByText(/This can’t be undone/).waitFor();
      await dialog.getByLabel('Type its name').fill('crm-1');
      await dialog.getByRole('button', { name: 'Delete' }).click();
      await page.getByText('No subscriptions yet').waitFor();
      assert.deepEqual(complaints, []);
    });
  }
});

test('a customer’s token shows what it may see, and is told the rest', { timeout: 60_000 }, async (t) => {
  const gateway = await startGateway(shared.binary, await freePort(), join(shared.dir, 'customer'));
  t.after(gateway.kill);
  await gateway.publish('acct-42', { type: 'email.opened' });
  await gateway.publish('acct-43', { type: 'email.opened' });
  for (const name of ['crm-42-a', 'crm-43-a']) await gateway.call('PUT', `/v1/subscriptions/${name}`, { channels: [name.startsWith('crm-42') ? 'acct-42' : 'acct-43'] });
  const { token } = await gateway.call('POST', '/v1/tokens', { sub: 'customer-42', subscribe: ['acct-42'], subscriptions: ['crm-42-*'] });
  const { page, complaints } = await open(t, gateway, token);
  const section = (name) => page.locator('#nav').getByRole('link', { name }).click();
  await page.getByText('This token may not see that').waitFor();
  await section('Subscriptions');
  await page.getByRole('link', { name: 'crm-42-a' }).waitFor();
  await page.getByText('1 subscription', { exact: true }).waitFor();
  await section('Channels');
  await page.getByRole('link', { name: 'acct-42' }).click();
  await page.locator('#state').getByText('Live').waitFor();
  for (const [address, why] of [['channels/acct-43', 'subscribe to "acct-43"'], ['subscriptions/crm-43-a', 'use subscription "crm-43-a"'], ['connections', 'is for admins']]) {
    await page.goto(`${gateway.url}/#/${address}`);
    await page.getByText(why).waitFor();
    await page.getByText('This token may not see that').waitFor();
  }
  // A token that is revoked meanwhile is asked for again.
  await gateway.call('POST', '/v1/tokens/revoke', { sub: 'customer-42', before: new Date(Date.now() + 1000).toISOString() });
  await section('Subscriptions');
  await page.getByRole('heading', { name: 'Sign in' }).waitFor();
  await page.getByRole('alert').getByText('revoked').waitFor();
  assert.deepEqual(complaints, []);
});
