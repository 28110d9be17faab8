import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { isWeftError } from '../base/errors.ts';
import { formatIp } from '../base/ip.ts';
import { NLMSG_HEADER, NlReader } from './netlink.ts';
import {
  type Conntrack,
  type ConntrackTuple,
  decodeConntrack,
  encodeConntrackDelete,
  encodeConntrackDump,
} from './nf-conntrack.ts';
import { NFPROTO_IPV4, nfWriter } from './nfnetlink.ts';

const u16 = fc.integer({ min: 0, max: 65535 });
const plain = { noNullPrototype: true };
const u8 = fc.integer({ min: 0, max: 255 });
const arbTuple = (family: 4 | 6, protocol: number): fc.Arbitrary<ConntrackTuple> => {
  const ip = fc
    .uint8Array({ minLength: family === 4 ? 4 : 16, maxLength: family === 4 ? 4 : 16 })
    .map(formatIp);
  const base = { src: ip, dst: ip, protocol: fc.constant(protocol) };
  if (protocol === 1 || protocol === 58)
    return fc.record({ ...base, icmp: fc.record({ id: u16, type: u8, code: u8 }, plain) }, plain);
  return fc.record(
    { ...base, sport: u16, dport: u16, zone: u16 },
    { requiredKeys: ['src', 'dst', 'protocol', 'sport', 'dport'], noNullPrototype: true },
  );
};
const arbEntry: fc.Arbitrary<Conntrack> = fc
  .tuple(fc.constantFrom(4 as const, 6 as const), fc.constantFrom(1, 6, 17, 58))
  .chain(([family, protocol]) =>
    fc.record(
      {
        family: fc.constant(family),
        protocol: fc.constant(protocol),
        original: arbTuple(family, protocol),
        reply: arbTuple(family, protocol),
        zone: u16,
        id: fc.integer({ min: 0, max: 0xffffffff }),
      },
      { requiredKeys: ['family', 'protocol', 'original', 'reply'], noNullPrototype: true },
    ),
  );

test('property: a deletion names the original tuple, zone and id of its entry and nothing else', () => {
  fc.assert(
    fc.property(arbEntry, (entry) => {
      const payload = encodeConntrackDelete(entry).subarray(NLMSG_HEADER);
      // A deletion has no reply tuple: read it back as an entry whose reply is the same as its original.
      const both = new NlReader(payload).attributes(4);
      assert.deepEqual(
        [...both.types()].sort((a, b) => a - b),
        [1, ...(entry.id === undefined ? [] : [12]), ...(entry.zone === undefined ? [] : [18])],
      );
      const twice = nfWriter(0, 0, payload[0]!)
        .raw(payload.subarray(4))
        .attr(2, both.bytes(1)!)
        .finish()
        .subarray(NLMSG_HEADER);
      assert.deepEqual(decodeConntrack(twice), { ...entry, reply: entry.original });
    }),
  );
});

test('a tuple of the other family is refused', () => {
  const tuple = { src: '::1', dst: '::2', protocol: 17, sport: 1, dport: 2 };
  assert.throws(
    () => encodeConntrackDelete({ family: 4, protocol: 17, original: tuple, reply: tuple }),
    (error) => isWeftError(error, 'WEFT_BAD_CONFIG'),
  );
});

test('a dump asks for one family or for all; entries of other families are passed over', () => {
  assert.deepEqual(
    [undefined, 4, 6].map((f) => encodeConntrackDump(f as 4 | 6 | undefined)[NLMSG_HEADER]),
    [0, 2, 10],
  );
  assert.equal(decodeConntrack(Uint8Array.of(7, 0, 0, 0)), undefined);
});

test('fuzz: any bytes, and any damage to real ones, decode to a value or to WEFT_NETLINK_MALFORMED', () => {
  const attempt = (payload: Uint8Array): void => {
    try {
      decodeConntrack(payload);
    } catch (error) {
      assert.ok(isWeftError(error, 'WEFT_NETLINK_MALFORMED'), String(error));
    }
  };
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (noise) =>
      attempt(Uint8Array.of(NFPROTO_IPV4, 0, 0, 0, ...noise)),
    ),
    { numRuns: 300 },
  );
  fc.assert(
    fc.property(arbEntry, fc.nat(), u8, (entry, at, value) => {
      const payload = encodeConntrackDelete(entry).subarray(NLMSG_HEADER).slice();
      payload[at % payload.length] = value;
      attempt(payload);
    }),
    { numRuns: 300 },
  );
});
