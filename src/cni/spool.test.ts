import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { Spool } from './spool.ts';

const folder = mkdtempSync(path.join(tmpdir(), 'weft-spool-'));
after(() => rmSync(folder, { recursive: true }));

test('what a killed plugin left half-written goes after a while; what is being written stays', async () => {
  for (const name of ['.1-1', '.2-2']) writeFileSync(path.join(folder, name), 'half a fra');
  const earlier = Date.now() / 1000 - 60;
  utimesSync(path.join(folder, '.1-1'), earlier, earlier);
  const spool = new Spool(folder);
  assert.deepEqual(await spool.drain(() => assert.fail('nothing is to be carried out')), []);
  assert.deepEqual(readdirSync(folder), ['.2-2']);
});
