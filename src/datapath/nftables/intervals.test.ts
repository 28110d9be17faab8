import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { bigIntToIp } from '../../base/ip.ts';
import { cidrInterval, disjoint, formatInterval, mergeIntervals } from './intervals.ts';

test('CIDRs become disjoint elements in nft’s words', () => {
  const cases: Array<[string[], 4 | 6, string[]]> = [
    [[], 4, []],
    [['10.0.0.0/8', 'fd00::/8'], 4, ['10.0.0.0/8']],
    [['10.0.0.0/8', 'fd00::/8'], 6, ['fd00::/8']],
    [['10.0.0.0/8', '10.1.0.0/16', '10.0.0.1/32'], 4, ['10.0.0.0/8']],
    [['10.0.0.0/9', '10.128.0.0/9'], 4, ['10.0.0.0/8']],
    [['10.0.1.0/24', '10.0.2.0/24'], 4, ['10.0.1.0-10.0.2.255']],
    [['10.0.0.3/32', '10.0.0.1/32'], 4, ['10.0.0.1', '10.0.0.3']],
    [['10.0.0.7/24'], 4, ['10.0.0.0/24']],
    [['0.0.0.0/0', '10.0.0.0/8'], 4, ['0.0.0.0/0']],
    [['::/0'], 6, ['::/0']],
    [['255.255.255.255/32', '0.0.0.0/32'], 4, ['0.0.0.0', '255.255.255.255']],
  ];
  for (const [cidrs, family, expected] of cases) assert.deepEqual(disjoint(cidrs, family), expected);
});

test('property: merged intervals hold the same addresses, in order, with gaps between them', () => {
  const arb = fc
    .tuple(fc.integer({ min: 0, max: 255 }), fc.integer({ min: 24, max: 32 }))
    .map(([low, length]) => `10.0.0.${low}/${length}`);
  fc.assert(
    fc.property(fc.array(arb, { maxLength: 12 }), (cidrs) => {
      const parts = cidrs.map(cidrInterval);
      const merged = mergeIntervals(parts);
      for (let i = 1; i < merged.length; i++) assert.ok(merged[i]!.first > merged[i - 1]!.last + 1n);
      const within = (list: typeof parts, n: bigint): boolean =>
        list.some((i) => n >= i.first && n <= i.last);
      for (let n = 0x0a000000n; n <= 0x0a0000ffn; n++) {
        assert.equal(within(merged, n), within(parts, n), bigIntToIp(n, 4));
      }
    }),
    { numRuns: 50 },
  );
});

test('property: an interval that is a CIDR is written as one', () => {
  fc.assert(
    fc.property(
      fc.bigInt({ min: 0n, max: (1n << 128n) - 1n }),
      fc.integer({ min: 0, max: 127 }),
      (value, length) => {
        const cidr = `${bigIntToIp((value >> BigInt(128 - length)) << BigInt(128 - length), 6)}/${length}`;
        assert.equal(formatInterval(cidrInterval(cidr), 6), cidr);
      },
    ),
  );
});
