// The page's own server: it knows who is signed in, and mints a token for them.
import { createHmac, randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';

const { LONGLINE_URL: gateway, LONGLINE_JWT_SECRET: secret, PORT: port = 8000 } = process.env;
const page = readFileSync(new URL('index.html', import.meta.url));

/** A token for five minutes that may read one channel and do nothing else. */
function mint(sub, channel) {
  const now = Math.floor(Date.now() / 1000);
  const claims = { sub, jti: randomUUID(), iat: now, exp: now + 300, longline: { subscribe: [channel] } };
  const text = [{ alg: 'HS256', typ: 'JWT' }, claims].map((part) => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.');
  return `${text}.${createHmac('sha256', secret).update(text).digest('base64url')}`;
}

const answers = {
  '/': () => ['text/html; charset=utf-8', page],
  '/gateway': () => ['application/json', JSON.stringify({ gateway })],
  '/token': () => ['text/plain', mint('alice', 'acct-42')], // here goes who is signed in
};

createServer((request, response) => {
  const [type, body] = answers[request.url]?.() ?? [];
  response.writeHead(type ? 200 : 404, { 'content-type': type ?? 'text/plain', 'cache-control': 'no-store' }).end(body);
}).listen(port, '127.0.0.1');
