import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { isWeftError } from '../base/errors.ts';
import { canonicalCidr, cidrContains, cidrOverlaps, parseCidr } from '../base/ip.ts';
import { CidrAllocator } from './cidr-allocator.ts';

test('blocks come one after another, and rest before they come again', () => {
  const pool = new CidrAllocator('10.244.0.0/22', 24);
  assert.equal(pool.capacity, 4);
  assert.deepEqual(
    ['a', 'b', 'c'].map((owner) => pool.allocate(owner)),
    ['10.244.0.0/24', '10.244.1.0/24', '10.244.2.0/24'],
  );
  assert.equal(pool.release('a'), true);
  assert.equal(pool.release('a'), false);
  assert.equal(pool.allocate('d'), '10.244.3.0/24');
  assert.equal(pool.allocate('e'), '10.244.0.0/24');
  assert.equal(pool.allocate('f'), undefined);
  assert.equal(pool.used, 4);
});

test('IPv6, in sizes beyond counting', () => {
  const pool = new CidrAllocator('fd00:10::/32', 64);
  assert.equal(pool.capacity, 2 ** 32);
  assert.equal(pool.allocate('a'), 'fd00:10::/64');
  assert.equal(pool.allocate('b'), 'fd00:10:0:1::/64');
  assert.deepEqual(pool.claim('c', 'fd00:10:8000::/33'), []);
  assert.equal(pool.used, 2 ** 31 + 2);
  assert.equal(pool.allocate('d'), 'fd00:10:0:2::/64');
});

const claims: Array<
  [name: string, claims: Array<[string, string]>, conflicts: string[], next: string | undefined]
> = [
  ['smaller than a block', [['a', '10.0.0.128/25']], [], '10.0.1.0/24'],
  [
    'two within one block',
    [
      ['a', '10.0.0.128/25'],
      ['b', '10.0.0.0/25'],
    ],
    [],
    '10.0.1.0/24',
  ],
  ['larger than a block', [['a', '10.0.0.0/23']], [], '10.0.2.0/24'],
  ['all of it and more', [['a', '10.0.0.0/8']], [], undefined],
  ['host bits', [['a', '10.0.0.77/24']], [], '10.0.1.0/24'],
  ['outside', [['a', '192.168.0.0/24']], [], '10.0.0.0/24'],
  ['another family', [['a', 'fd00::/64']], [], '10.0.0.0/24'],
  [
    'the same twice',
    [
      ['a', '10.0.0.0/24'],
      ['b', '10.0.0.0/24'],
    ],
    ['a'],
    '10.0.1.0/24',
  ],
  [
    'one within another',
    [
      ['a', '10.0.0.0/23'],
      ['b', '10.0.1.0/26'],
    ],
    ['a'],
    '10.0.2.0/24',
  ],
  [
    'twice by one owner',
    [
      ['a', '10.0.0.0/24'],
      ['a', '10.0.0.0/24'],
    ],
    [],
    '10.0.1.0/24',
  ],
  ['the last one', [['a', '10.0.3.0/24']], [], '10.0.0.0/24'],
];
for (const [name, list, conflicts, next] of claims) {
  test(`claims by hand: ${name}`, () => {
    const pool = new CidrAllocator('10.0.0.0/22', 24);
    assert.deepEqual(
      list.flatMap(([owner, cidr]) => pool.claim(owner, cidr)),
      conflicts,
    );
    assert.equal(pool.allocate('new'), next);
  });
}

test('masks that do not fit are refused', () => {
  for (const [cidr, mask] of [
    ['10.0.0.0/24', 23],
    ['10.0.0.0/24', 33],
    ['10.0.0.0/24', 24.5],
    ['fd00::/8', 64],
  ] as const) {
    assert.throws(
      () => new CidrAllocator(cidr, mask),
      (e) => isWeftError(e, 'WEFT_BAD_CONFIG') && e.message.includes(`/${mask}`),
    );
  }
  assert.throws(
    () => new CidrAllocator('10.0.0.0/99', 24),
    (e) => isWeftError(e, 'WEFT_BAD_ADDRESS'),
  );
});

const owner = fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f');
const step = fc.oneof(
  { weight: 4, arbitrary: owner.map((allocate) => ({ allocate })) },
  { weight: 2, arbitrary: owner.map((release) => ({ release })) },
  {
    weight: 1,
    arbitrary: fc.record({ claim: owner, at: fc.nat(63), length: fc.integer({ min: 20, max: 28 }) }),
  },
);

test('property: what is given lies inside, overlaps nothing, and is refused only when there is nothing left', () => {
  fc.assert(
    fc.property(fc.constantFrom(4, 6), fc.array(step, { maxLength: 60, size: 'max' }), (family, steps) => {
      const [cluster, mask] = family === 4 ? ['10.0.0.0/21', 24] : ['fd00::/61', 64];
      const pool = new CidrAllocator(cluster, mask);
      const model: Array<{ owner: string; cidr: string }> = [];
      const blocks = Array.from({ length: 8 }, (_, i) =>
        family === 4 ? `10.0.${i}.0/24` : canonicalCidr(`fd00:0:0:${i}::/64`),
      );
      for (const s of steps) {
        if ('allocate' in s) {
          const free = blocks.filter((b) => !model.some(({ cidr }) => cidrOverlaps(b, cidr)));
          const given = pool.allocate(s.allocate);
          if (given === undefined) assert.deepEqual(free, []);
          else {
            assert.ok(free.includes(given));
            assert.ok(cidrContains(cluster, given));
            model.push({ owner: s.allocate, cidr: given });
          }
        } else if ('release' in s) {
          assert.equal(
            pool.release(s.release),
            model.some((m) => m.owner === s.release),
          );
          for (let i = model.length; i-- > 0; ) if (model[i]!.owner === s.release) model.splice(i, 1);
        } else {
          const cidr = canonicalCidr(
            family === 4
              ? `10.0.${s.at >> 3}.${(s.at & 7) * 32}/${s.length}`
              : `fd00:0:0:${s.at >> 3}::/${s.length + 40}`,
          );
          const expected = new Set(
            model.filter((m) => m.owner !== s.claim && cidrOverlaps(m.cidr, cidr)).map((m) => m.owner),
          );
          assert.deepEqual(new Set(pool.claim(s.claim, cidr)), expected);
          model.push({ owner: s.claim, cidr });
        }
        const used = blocks.filter((b) => model.some(({ cidr }) => cidrOverlaps(b, cidr)));
        assert.equal(pool.used, used.length);
      }
      for (const { owner: name } of model) {
        assert.deepEqual(
          pool.cidrsOf(name).sort(),
          model
            .filter((m) => m.owner === name)
            .map((m) => m.cidr)
            .sort(),
        );
      }
      assert.equal(parseCidr(pool.clusterCidr).family, family);
    }),
    { numRuns: 100 },
  );
});
