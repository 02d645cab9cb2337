/** Tokens, made where the secret is: on your server, for who is signed in. */

/**
 * Makes a JWT with the gateway's key: a secret of 32 bytes or more (HS256,
 * HS384, HS512), or a private Ed25519 key in PEM, PKCS #8 (EdDSA).
 *
 * `subscribe` and `publish` are patterns of channels, `subscriptions` of names;
 * `ttl` is in ms, an hour without it; `claims` are others, e.g. `iss` or `aud`.
 * @param {string} key
 * @param {{sub: string, subscribe?: string[], publish?: string[], subscriptions?: string[], admin?: boolean,
 *   max_connections?: number, ttl?: number, algorithm?: 'HS256' | 'HS384' | 'HS512' | 'EdDSA', kid?: string,
 *   claims?: Record<string, unknown>}} rights
 * @returns {Promise<string>}
 */
export async function mintToken(key, { sub, ttl = 3_600_000, algorithm = 'HS256', kid, claims, ...rights }) {
  for (const name of /** @type {const} */ (['subscribe', 'publish', 'subscriptions'])) {
    const list = rights[name] ?? [];
    if (!Array.isArray(list)) throw new TypeError(`${name} is ${JSON.stringify(list)}, want a list of patterns`);
  }
  if (!sub || typeof sub !== 'string') throw new TypeError('sub is missing: whose token is it?');
  const signer = await importKey(key, algorithm);
  const iat = Math.floor(Date.now() / 1000);
  const body = { sub, iat, exp: iat + Math.floor(ttl / 1000), jti: crypto.randomUUID(), ...claims, longline: rights };
  const signed = `${part({ alg: algorithm, typ: 'JWT', kid })}.${part(body)}`;
  const signature = await crypto.subtle.sign(signer.algorithm, signer, new TextEncoder().encode(signed));
  return `${signed}.${base64(new Uint8Array(signature))}`;
}

/**
 * @param {string} key
 * @param {string} algorithm
 */
function importKey(key, algorithm) {
  if (algorithm === 'EdDSA') {
    const text = /^-----BEGIN PRIVATE KEY-----([\w+/=\s]+)-----END PRIVATE KEY-----\s*$/.exec(key)?.[1];
    if (!text) throw new TypeError('the key is no private key in PEM (PKCS #8)');
    const bytes = Uint8Array.from(atob(text.replace(/\s/g, '')), (c) => c.charCodeAt(0));
    return crypto.subtle.importKey('pkcs8', bytes, 'Ed25519', false, ['sign']);
  }
  const bits = /^HS(256|384|512)$/.exec(algorithm)?.[1];
  if (!bits) throw new TypeError(`algorithm is ${JSON.stringify(algorithm)}, want HS256, HS384, HS512 or EdDSA`);
  const secret = new TextEncoder().encode(key);
  if (secret.length < 32) throw new TypeError(`the secret has ${secret.length} bytes, want 32 at least`);
  return crypto.subtle.importKey('raw', secret, { name: 'HMAC', hash: `SHA-${bits}` }, false, ['sign']);
}

/** @param {unknown} value */
const part = (value) => base64(new TextEncoder().encode(JSON.stringify(value)));

/** @param {Uint8Array} bytes */
function base64(bytes) {
  return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join('')).replace(/\+/g, '-').replace(/\//g, '_').replace(/=/g, '');
}
