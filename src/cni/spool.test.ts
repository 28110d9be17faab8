import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { encodeRequest } from './frame.ts';
import { Spool, type SpooledDel } from './spool.ts';

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

test('what is no request is set aside without being opened, and costs no other request', async () => {
  const strange = mkdtempSync(path.join(folder, 'strange-'));
  const at = (name: string): string => path.join(strange, name);
  execFileSync('mkfifo', [at('1-fifo'), at('.1-fifo')]);
  symlinkSync('/dev/zero', at('2-endless'));
  symlinkSync('3-loop', at('3-loop'));
  mkdirSync(at('4-folder'));
  mkdirSync(at('.4-folder'));
  writeFileSync(at('5-huge'), Buffer.alloc(2 << 20));
  writeFileSync(at('6-stays'), '');
  mkdirSync(path.join(at('6-stays.bad'), 'full'), { recursive: true });
  const earlier = Date.now() / 1000 - 60;
  utimesSync(at('.4-folder'), earlier, earlier);
  utimesSync(at('.1-fifo'), earlier, earlier);
  writeFileSync(
    at('7-good'),
    encodeRequest({ env: { CNI_CONTAINERID: 'c', CNI_IFNAME: 'eth0' }, stdin: '' }),
  );

  const done: SpooledDel[] = [];
  assert.deepEqual(await new Spool(strange).drain(async (request) => void done.push(request)), []);
  assert.deepEqual(done, [{ containerId: 'c', ifname: 'eth0' }]);
  assert.deepEqual(readdirSync(strange).sort(), [
    ...['.1-fifo', '.4-folder'],
    ...['1-fifo.bad', '2-endless.bad', '3-loop.bad', '4-folder.bad', '5-huge.bad', '6-stays', '6-stays.bad'],
  ]);
});
