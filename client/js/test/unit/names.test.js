import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import * as sdk from '../../src/index.js';

const read = (path) => readFileSync(new URL(`../../../../${path}`, import.meta.url), 'utf8');
const names = (Class) => Object.getOwnPropertyNames(Class.prototype).filter((name) => name !== 'constructor');
const snake = (name) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

test('administration has the same names in JavaScript, Python and PHP', () => {
  const python = read('client/python/longline/admin.py');
  for (const Class of [sdk.Subscriptions, sdk.Channels]) {
    const php = read(`client/php/src/${Class.name}.php`);
    const [, section] = python.split(`class ${Class.name}:`);
    for (const name of names(Class)) {
      if (name === 'pull') continue; // the others' workers are the client's
      assert.ok(section.includes(`    def ${snake(name)}(`), `Python has no ${snake(name)}`);
      assert.ok(php.includes(`function ${name}(`), `PHP has no ${name}`);
    }
  }
});

test('what the page of the SDKs and the README name is there', () => {
  const administration = read('docs/sdks.md').split('## Administration')[1];
  const there = new Set([sdk.Subscriptions, sdk.Channels, sdk.Tokens, sdk.Longline].flatMap(names).concat(names(Object.getPrototypeOf(sdk.Longline))));
  for (const [, , cell] of administration.matchAll(/^\|[^|\n]*\|([^|\n]*)\|([^|\n]*)\|/gm)) {
    for (const [, name] of cell.matchAll(/`(?:\w+\.)?(\w+)`/g)) assert.ok(there.has(name), `docs/sdks.md names ${name}`);
  }
  for (const [, member, cell] of read('client/js/README.md').matchAll(/^\| `line\.(\w+)` \|(.*)\|$/gm)) {
    const Class = sdk[member[0].toUpperCase() + member.slice(1)];
    assert.deepEqual([...cell.matchAll(/`(\w+)`/g)].map(([, name]) => name).sort(), names(Class).sort());
  }
});
