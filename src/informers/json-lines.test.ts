import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { isWeftError } from '../base/errors.ts';
import { LineSplitter } from './json-lines.ts';

test('property: however the bytes are cut, the lines are those of the text', () => {
  const text = fc.array(
    fc.oneof(fc.string({ unit: 'binary' }), fc.constantFrom('ü→😀', '', ' ', '\r', '{"a":1}')),
    {
      maxLength: 12,
    },
  );
  fc.assert(
    fc.property(text, fc.array(fc.nat(9), { minLength: 1 }), fc.boolean(), (parts, cuts, ended) => {
      const bytes = Buffer.from(parts.join('\n') + (ended ? '\n' : ''));
      const splitter = new LineSplitter(1 << 20);
      const lines: string[] = [];
      for (let at = 0, i = 0; at < bytes.length; i++) {
        const size = Math.max(1, cuts[i % cuts.length]!);
        lines.push(...splitter.push(bytes.subarray(at, at + size)));
        at += size;
      }
      const all = bytes.toString('utf8').split('\n');
      const rest = all.pop()!;
      assert.deepEqual(
        lines,
        all.filter((line) => line.trim() !== ''),
      );
      assert.equal(splitter.rest, Buffer.byteLength(rest));
    }),
    { numRuns: 300 },
  );
});

test('a line may be as long as the limit, and no longer, in one piece or many', () => {
  assert.deepEqual([...new LineSplitter(4).push(Buffer.from('abcd\nef\n'))], ['abcd', 'ef']);
  assert.throws(
    () => [...new LineSplitter(4).push(Buffer.from('abcde\n'))],
    (e) => isWeftError(e, 'WEFT_API_MALFORMED'),
  );
  const slow = new LineSplitter(4);
  for (let i = 0; i < 4; i++) assert.deepEqual([...slow.push(Buffer.from('a'))], []);
  assert.throws(
    () => [...slow.push(Buffer.from('a'))],
    (e) => isWeftError(e, 'WEFT_API_MALFORMED'),
  );
});
