import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { cidrAt } from '../base/ip.ts';
import { AddressPool } from './address-pool.ts';

const exhausted = { code: 'WEFT_IPAM_EXHAUSTED' };

test('what each size of pool gives, and in what order', () => {
  const table: Array<{ cidr: string; size: number; first: string[] }> = [
    { cidr: '10.0.0.0/24', size: 254, first: ['10.0.0.1', '10.0.0.2', '10.0.0.3'] },
    { cidr: '10.0.0.8/30', size: 2, first: ['10.0.0.9', '10.0.0.10'] },
    { cidr: '10.0.0.8/31', size: 1, first: ['10.0.0.9'] },
    { cidr: '10.0.0.8/32', size: 0, first: [] },
    { cidr: '10.0.0.0/8', size: 65_536, first: ['10.0.0.1', '10.0.0.2'] },
    { cidr: 'fd00::/64', size: 65_536, first: ['fd00::1', 'fd00::2'] },
    { cidr: 'fd00::8/126', size: 3, first: ['fd00::9', 'fd00::a', 'fd00::b'] },
    { cidr: 'fd00::8/128', size: 0, first: [] },
  ];
  for (const { cidr, size, first } of table) {
    const pool = new AddressPool(cidr, 1000);
    assert.equal(pool.size, size, cidr);
    assert.deepEqual(
      first.map((_, i) => pool.take(`o${i}`, 0)),
      first,
    );
    if (first.length === size) assert.throws(() => pool.take('more', 0), exhausted);
  }
});

test('a full pool says which it is, its size, and how many addresses cool down', () => {
  const pool = new AddressPool('10.0.0.0/30', 1000);
  const [a] = [pool.take('a', 0), pool.take('b', 0)];
  pool.release(a, 'a', 5000);
  assert.throws(() => pool.take('c', 5999), {
    code: 'WEFT_IPAM_EXHAUSTED',
    message: 'pool 10.0.0.0/30 has no free address: 1 of 2 are in use and 1 are cooling down',
    details: { pool: '10.0.0.0/30', size: 2, inUse: 1, coolingDown: 1 },
  });
  assert.equal(pool.take('c', 6000), a);
});

test('released addresses go to the end, the longest rested first', () => {
  const pool = new AddressPool('10.0.0.0/29', 1000);
  const [a, b, c] = [pool.take('a', 0), pool.take('b', 0), pool.take('c', 0)];
  pool.release(b, 'b', 10);
  pool.release(a, 'a', 20);
  pool.release(c, 'c', 30);
  assert.deepEqual(
    Array.from({ length: 6 }, (_, i) => pool.take(`n${i}`, 50_000)),
    ['10.0.0.4', '10.0.0.5', '10.0.0.6', b, a, c],
  );
});

test('one address by name: only usable, only free, at once', () => {
  const pool = new AddressPool('10.0.0.0/24', 60_000);
  for (const wrong of ['10.0.0.0', '10.0.0.255', '10.0.1.1', 'fd00::1']) {
    assert.throws(() => pool.claim(wrong, 'a'), { code: 'WEFT_IPAM_NOT_IN_POOL' }, wrong);
  }
  pool.claim('10.0.0.2', 'a');
  pool.claim('10.0.0.2', 'a');
  assert.throws(() => pool.claim('10.0.0.2', 'b'), {
    code: 'WEFT_IPAM_IN_USE',
    details: { address: '10.0.0.2', holder: 'a' },
  });
  assert.deepEqual([pool.take('c', 0), pool.take('d', 0)], ['10.0.0.1', '10.0.0.3']);
  pool.release('10.0.0.2', 'a', 0);
  pool.claim('10.0.0.2', 'b'); // still cooling down, but asked for by name
  assert.equal(pool.release('10.0.0.2', 'a', 0), false, 'only its owner gives an address back');
  const big = new AddressPool('fd00::/64', 0);
  big.claim('fd00::1234:5678:9abc', 'far');
  assert.equal(big.ownerOf('fd00::1234:5678:9abc'), 'far');
});

test('a clock that was set back by a year does not freeze the pool', () => {
  const pool = new AddressPool('10.0.0.0/31', 1000);
  const ip = pool.take('a', 0);
  pool.release(ip, 'a', 31_536_000_000);
  assert.equal(pool.take('b', 5), ip);
});

test('against a model: unique, in the pool, rested, never exhausted while there is one', () => {
  const commands = fc.array(
    fc.oneof(
      { weight: 5, arbitrary: fc.record({ kind: fc.constant('take' as const) }) },
      { weight: 4, arbitrary: fc.record({ kind: fc.constant('release' as const), pick: fc.nat() }) },
      { weight: 2, arbitrary: fc.record({ kind: fc.constant('claim' as const), offset: fc.nat(16) }) },
      { weight: 3, arbitrary: fc.record({ kind: fc.constant('wait' as const), ms: fc.nat(150) }) },
    ),
    { maxLength: 60 },
  );
  fc.assert(
    fc.property(fc.constantFrom('10.9.8.0/28', 'fd00::/124', '10.9.8.0/30'), commands, (cidr, list) => {
      const pool = new AddressPool(cidr, 100);
      const held = new Map<string, string>();
      const releasedAt = new Map<string, number>();
      let now = 0;
      list.forEach((command, i) => {
        const owner = `o${i}`;
        if (command.kind === 'wait') now += command.ms;
        else if (command.kind === 'release') {
          const ips = [...held.keys()];
          const ip = ips[command.pick % (ips.length || 1)];
          if (ip === undefined) return;
          assert.ok(pool.release(ip, held.get(ip)!, now));
          held.delete(ip);
          releasedAt.set(ip, now);
        } else if (command.kind === 'claim') {
          if (BigInt(command.offset) >= 1n << BigInt(cidr.startsWith('fd') ? 4 : cidr.endsWith('28') ? 4 : 2))
            return;
          const ip = cidrAt(cidr, command.offset);
          if (pool.isUsable(ip) && !held.has(ip)) {
            pool.claim(ip, owner);
            held.set(ip, owner);
          } else assert.throws(() => pool.claim(ip, owner));
        } else {
          const usable = Array.from({ length: pool.size }, (_, n) => cidrAt(cidr, n + 1));
          const free = usable.filter(
            (ip) => !held.has(ip) && (releasedAt.get(ip) ?? Number.NEGATIVE_INFINITY) + 100 <= now,
          );
          if (free.length === 0) {
            assert.throws(() => pool.take(owner, now), exhausted);
            return;
          }
          const ip = pool.take(owner, now);
          assert.ok(free.includes(ip), `${ip} was not free`);
          const never = free.filter((f) => !releasedAt.has(f));
          if (never.length > 0) assert.equal(ip, never[0], 'those never given go first, in order');
          else assert.equal(releasedAt.get(ip), Math.min(...free.map((f) => releasedAt.get(f)!)));
          held.set(ip, owner);
        }
      });
      assert.equal(pool.usage(now).inUse, held.size);
    }),
    { numRuns: 300 },
  );
});
