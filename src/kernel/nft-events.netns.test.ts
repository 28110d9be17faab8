import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { parseIp } from '../base/ip.ts';
import { Namespace } from './namespace.ts';
import { applyRuleset } from './nft.ts';
import { applyElementChanges } from './nft-elements.ts';
import { NftEvents } from './nft-events.ts';
import { ScratchNamespaces } from './testing/scratch.ts';
import type { KernelEvent } from './types.ts';

const scratch = new ScratchNamespaces('nftev');
let namespace: Namespace;
let events: NftEvents;
before(() => {
  namespace = new Namespace(scratch.create());
  events = new NftEvents(namespace);
});
after(() => {
  events[Symbol.dispose]();
  namespace.close();
  scratch.remove();
});

type NftEvent = Extract<KernelEvent, { type: 'nft' }>;
const poll = (): NftEvent[] => {
  const seen = events.poll();
  assert.ok(seen.every((event): event is NftEvent => event.type === 'nft'));
  return seen;
};
const run = (program: string, ...args: string[]) =>
  spawnSync('ip', ['netns', 'exec', path.basename(namespace.path), program, ...args]);

test('each transaction is one event, with its tables and who made it', () => {
  const nft = run(
    'nft',
    'add table inet a; add table ip b; add chain ip b c; add set inet a s { type ipv4_addr; }',
  );
  assert.equal(nft.status, 0, String(nft.stderr));
  run('iptables', '-A', 'INPUT', '-j', 'ACCEPT');
  run('nft', 'delete table ip b');
  const seen = poll();
  assert.deepEqual(
    seen.map(({ tables, by, own }) => ({ tables, name: by?.name, own })),
    [
      { tables: ['inet a', 'ip b'], name: 'nft', own: false },
      { tables: ['ip filter'], name: 'iptables', own: false },
      { tables: ['ip b'], name: 'nft', own: false },
    ],
  );
  assert.equal(seen[0]!.by?.pid, nft.pid, '`ip netns exec` becomes the program');
  assert.ok(seen[0]!.generation < seen[1]!.generation);
});

test('our own, by libnftables and by raw elements, are told as our own', () => {
  applyRuleset(namespace.path, 'add table inet own { set s { type ipv4_addr; }; }');
  applyElementChanges(namespace.netfilter, [
    { family: 'inet', table: 'own', set: 's', action: 'add', elements: [{ key: parseIp('10.0.0.1') }] },
  ]);
  const seen = poll();
  assert.deepEqual(
    seen.map(({ tables, own, by }) => [tables, own, by?.pid]),
    [
      [['inet own'], true, process.pid],
      [['inet own'], true, process.pid],
    ],
  );
});

test('a refused transaction and a listing are no events', () => {
  run('nft', 'add table inet x; add rule inet x nowhere accept');
  run('nft', 'list', 'ruleset');
  assert.deepEqual(poll(), []);
});

test('events that were lost: resync', () => {
  using small = new NftEvents(namespace, 4096);
  const input = Array.from({ length: 300 }, (_, i) => `add table inet lost${i}`).join('\n');
  for (let i = 0; i < 3; i++) {
    execFileSync('ip', ['netns', 'exec', path.basename(namespace.path), 'nft', '-f', '-'], {
      input: `${input}\n`,
    });
    execFileSync('ip', ['netns', 'exec', path.basename(namespace.path), 'nft', 'flush', 'ruleset']);
  }
  assert.ok(small.poll().some(({ type }) => type === 'resync'));
});
