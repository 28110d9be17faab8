import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { ERROR_CODES } from './error-codes.ts';
import { isWeftError, messageOf, WeftError } from './errors.ts';
import { errorsPage } from './errors-page.ts';

test('an error survives the way through JSON', () => {
  const error = new WeftError('WEFT_BAD_CONFIG', 'mtu: 12 is too small', {
    details: { mtu: 12 },
    hint: 'At least 1280.',
  });
  const copy = WeftError.fromJSON(JSON.parse(JSON.stringify(error)));
  assert.deepEqual(copy.toJSON(), error.toJSON());
  assert.equal(copy.hint, 'At least 1280.');
  assert.ok(isWeftError(copy, 'WEFT_BAD_CONFIG'));
  assert.ok(!isWeftError(copy, 'WEFT_INTERNAL'));
  assert.ok(!isWeftError(new Error('x')));
});

test('the hint falls back on the advice of the code', () => {
  assert.equal(new WeftError('WEFT_NOT_ROOT', 'x').hint, ERROR_CODES.WEFT_NOT_ROOT.action);
  assert.equal(messageOf('text'), 'text');
});

test('every code is well-formed and says what to do', () => {
  for (const [code, { summary, action }] of Object.entries(ERROR_CODES)) {
    assert.match(code, /^WEFT_[A-Z0-9_]+$/);
    assert.match(summary, /\.$/, `${code}: summary is a sentence`);
    assert.match(action, /\.$/, `${code}: action is a sentence`);
  }
});

test('docs/errors.md is what the table says (`npm run docs` writes it)', () => {
  const page = path.join(import.meta.dirname, '../../docs/errors.md');
  assert.equal(readFileSync(page, 'utf8'), errorsPage());
});
