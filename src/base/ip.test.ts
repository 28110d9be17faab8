import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  bigIntToIp,
  canonicalCidr,
  canonicalIp,
  cidrAt,
  cidrContains,
  cidrOverlaps,
  cidrSize,
  compareIp,
  formatIp,
  formatMac,
  hostCidr,
  ipToBigInt,
  isIp,
  linkLocalOf,
  parseCidr,
  parseIp,
  parseMac,
} from './ip.ts';

test('canonical text (RFC 5952)', () => {
  const table: Array<[string, string]> = [
    ['10.0.0.1', '10.0.0.1'],
    ['2001:0db8::0001', '2001:db8::1'],
    ['2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1'], // a single zero group stays (§4.2.2)
    ['2001:0:0:1:0:0:0:1', '2001:0:0:1::1'], // the longest run (§4.2.3)
    ['2001:db8:0:0:1:0:0:1', '2001:db8::1:0:0:1'], // the first of equals (§4.2.3)
    ['2001:DB8::ABCD', '2001:db8::abcd'],
    ['::', '::'],
    ['::1', '::1'],
    ['1::', '1::'],
    ['::ffff:192.0.2.1', '::ffff:192.0.2.1'],
    ['0:0:0:0:0:ffff:c000:201', '::ffff:192.0.2.1'],
    ['64:ff9b::192.0.2.33', '64:ff9b::c000:221'],
  ];
  for (const [given, expected] of table) assert.equal(canonicalIp(given), expected, given);
});

test('what is no address is refused with its code', () => {
  const wrong = [
    '',
    '1',
    '1.2.3',
    '1.2.3.4.5',
    '256.1.1.1',
    '01.2.3.4',
    '1.2.3.4 ',
    ' 1.2.3.4',
    '1..2.3',
    '1.2.3.-4',
    'a.b.c.d',
    ':',
    ':::',
    '1::2::3',
    '1:2:3:4:5:6:7',
    '1:2:3:4:5:6:7:8:9',
    '12345::',
    'g::',
    '::1.2.3',
    '1.2.3.4::',
    'fe80::1%eth0',
    '1:2:3:4:5:6:7::8:9',
  ]; // prettier-ignore
  for (const text of wrong) {
    assert.throws(() => parseIp(text), { code: 'WEFT_BAD_ADDRESS' }, JSON.stringify(text));
    assert.equal(isIp(text), false);
  }
  for (const text of [
    '10.0.0.0/33',
    '10.0.0.0/',
    '10.0.0.0/08',
    '10.0.0.0/-1',
    '::/129',
    '10.0.0.0/1/2',
    '/8',
  ]) {
    assert.throws(() => parseCidr(text), { code: 'WEFT_BAD_ADDRESS' }, text);
  }
  for (const text of ['', '00:11:22:33:44', '00:11:22:33:44:5g', '001122334455', '00:11:22:33:44:55:66']) {
    assert.throws(() => parseMac(text), { code: 'WEFT_BAD_ADDRESS' }, text);
  }
});

test('text → bytes → text, and number → text → number, for any address', () => {
  const bytes = fc.oneof(
    fc.uint8Array({ minLength: 4, maxLength: 4 }),
    fc.uint8Array({ minLength: 16, maxLength: 16 }),
    fc
      .array(fc.constantFrom(0, 0, 0, 1, 255), { minLength: 16, maxLength: 16 })
      .map((a) => Uint8Array.from(a)),
  );
  fc.assert(
    fc.property(bytes, (b) => {
      const text = formatIp(b);
      assert.deepEqual(parseIp(text), b);
      assert.equal(bigIntToIp(ipToBigInt(text), b.length === 4 ? 4 : 6), text);
    }),
  );
});

test('any text either parses to something that prints and parses again, or throws the coded error', () => {
  const soup = fc.string({ unit: fc.constantFrom(...'0123456789abcdef:./%x'), maxLength: 45 });
  fc.assert(
    fc.property(soup, (text) => {
      try {
        const { ip, network, length } = parseCidr(text);
        assert.equal(canonicalIp(ip), ip);
        assert.equal(canonicalCidr(`${network}/${length}`), `${network}/${length}`);
      } catch (error) {
        assert.equal((error as { code?: string }).code, 'WEFT_BAD_ADDRESS');
      }
    }),
    { numRuns: 2000 },
  );
});

test('CIDR arithmetic', () => {
  assert.equal(canonicalCidr('10.1.2.3/16'), '10.1.0.0/16');
  assert.equal(canonicalCidr('10.1.2.3/0'), '0.0.0.0/0');
  assert.equal(canonicalCidr('10.1.2.3/31'), '10.1.2.2/31');
  assert.equal(canonicalCidr('2001:db8::ff/64'), '2001:db8::/64');
  assert.equal(canonicalCidr('2001:db8:0:0:8000::/65'), '2001:db8:0:0:8000::/65');
  assert.equal(hostCidr('::1'), '::1/128');
  assert.equal(cidrContains('10.0.0.0/8', '10.255.0.1'), true);
  assert.equal(cidrContains('10.0.0.0/8', '11.0.0.0'), false);
  assert.equal(cidrContains('10.0.0.0/8', '10.0.0.0/7'), false);
  assert.equal(cidrContains('0.0.0.0/0', '::1'), false);
  assert.equal(cidrOverlaps('10.0.0.0/8', '10.2.0.0/16'), true);
  assert.equal(cidrOverlaps('10.2.0.0/16', '10.3.0.0/16'), false);
  assert.equal(cidrSize('10.0.0.0/24'), 256n);
  assert.equal(cidrSize('fd00::/64'), 1n << 64n);
  assert.equal(cidrAt('10.0.0.0/24', 255), '10.0.0.255');
  assert.throws(() => cidrAt('10.0.0.0/24', 256), { code: 'WEFT_BAD_ADDRESS' });
  assert.throws(() => bigIntToIp(1n << 32n, 4), { code: 'WEFT_BAD_ADDRESS' });
  assert.deepEqual(['10.0.0.10', '::1', '10.0.0.9'].sort(compareIp), ['10.0.0.9', '10.0.0.10', '::1']);
});

test('MAC addresses and the link-local address made from one (RFC 4291 appendix A)', () => {
  assert.equal(formatMac(parseMac('AA-bb-0C-0d-0e-0f')), 'aa:bb:0c:0d:0e:0f');
  assert.equal(linkLocalOf('00:1b:21:3c:9d:f8'), 'fe80::21b:21ff:fe3c:9df8');
});
