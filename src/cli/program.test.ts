import assert from 'node:assert/strict';
import { test } from 'node:test';
import { program } from './program.ts';

test('a lab needs root, and says so before anything else', { skip: process.geteuid?.() !== 0 }, async () => {
  process.seteuid!(65_534);
  try {
    for (const line of [
      ['up'],
      ['down'],
      ['status'],
      ['exec', 'pod', 'true'],
      ['logs', 'pod'],
      ['kubeconfig'],
    ])
      await assert.rejects(program().parseAsync(line, { from: 'user' }), { code: 'WEFT_NOT_ROOT' }, line[0]!);
  } finally {
    process.seteuid!(0);
  }
});
