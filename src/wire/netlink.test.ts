import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { isWeftError } from '../base/errors.ts';
import {
  attributePathAt,
  eachAttribute,
  eachMessage,
  NLM_F_ACK_TLVS,
  NLM_F_CAPPED,
  NLMSG_DONE,
  NLMSG_ERROR,
  NlReader,
  NlWriter,
  readAttributes,
  readFailure,
} from './netlink.ts';

/** The value, or undefined when the bytes were refused as malformed; any other error is a fault. */
function orMalformed<T>(fn: () => T): T | undefined {
  try {
    return fn();
  } catch (error) {
    assert.ok(isWeftError(error, 'WEFT_NETLINK_MALFORMED'), String(error));
    return undefined;
  }
}

test('a message is laid out as the kernel expects', () => {
  const bytes = new NlWriter(16, 0x600)
    .u8(2)
    .u8(0)
    .u16(0x0102)
    .attrString(3, 'lo')
    .attrU16be(9, 0x1234)
    .nest(18, (w) => w.attrU8(1, 7))
    .finish();
  assert.equal(
    Buffer.from(bytes).toString('hex'),
    [
      '30000000' + '1000' + '0006' + '00000000' + '00000000', // length, type, flags, sequence, port
      '02000201',
      '0700' + '0300' + '6c6f0000', // padded to four
      '0600' + '0900' + '12340000',
      '0c00' + '1280' + '0500' + '0100' + '07000000', // nested flag
    ].join(''),
  );
});

test('what is written is read again', () => {
  const values = fc.array(fc.tuple(fc.integer({ min: 0, max: 0x3fff }), fc.uint8Array({ maxLength: 600 })));
  fc.assert(
    fc.property(values, (attributes) => {
      const w = new NlWriter(1, 0).u32(7);
      for (const [type, value] of attributes) w.attr(type, value);
      const [message] = [...eachMessage(w.finish())];
      assert.ok(message);
      assert.equal(new NlReader(message.payload).u32(), 7);
      const read = [...eachAttribute(message.payload.subarray(4))];
      assert.deepEqual(
        read.map(({ type, value }) => [type, [...value]]),
        attributes.map(([type, value]) => [type, [...value]]),
      );
      for (const [type, value] of attributes) {
        const last = attributes.findLast(([t]) => t === type)?.[1] ?? value;
        assert.deepEqual(readAttributes(message.payload.subarray(4)).bytes(type), last);
      }
    }),
  );
});

test('numbers of every width', () => {
  const a = new NlReader(
    new NlWriter(0, 0)
      .attrU8(1, 0xfe)
      .attrU16(2, 0xfedc)
      .attrU32(3, 0xfedcba98)
      .attrU32be(4, 0xfedcba98)
      .attrU64(5, 0xfedcba9876543210n)
      .attrU64be(6, 0xfedcba9876543210n)
      .attrFlag(7)
      .finish()
      .subarray(16),
  ).attributes();
  assert.equal(a.u8(1), 0xfe);
  assert.equal(a.u16(2), 0xfedc);
  assert.equal(a.u32(3), 0xfedcba98);
  assert.equal(a.i32(3), 0xfedcba98 | 0);
  assert.equal(a.u32be(4), 0xfedcba98);
  assert.equal(a.u64(5), 0xfedcba9876543210n);
  assert.equal(a.u64be(6), 0xfedcba9876543210n);
  assert.ok(a.has(7));
  assert.equal(a.u8(99), undefined);
  orMalformed(() => a.u32(2));
  assert.throws(() => a.u32(2), { code: 'WEFT_NETLINK_MALFORMED' });
});

test('an attribute or a nest that does not fit in 16 bits is refused, not truncated', () => {
  assert.throws(() => new NlWriter(0, 0).attr(1, new Uint8Array(65532)), { code: 'WEFT_INTERNAL' });
  const big = new Uint8Array(40000);
  assert.throws(() => new NlWriter(0, 0).nest(1, (w) => w.attr(1, big).attr(2, big)), {
    code: 'WEFT_INTERNAL',
  });
});

test('any bytes end in messages or in WEFT_NETLINK_MALFORMED', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
      orMalformed(() => [...eachMessage(bytes)].map((m) => readFailure(m)));
      orMalformed(() => readAttributes(bytes));
      attributePathAt(bytes, 4, bytes.length >> 1);
    }),
    { numRuns: 2000 },
  );
});

const answer = (
  type: number,
  flags: number,
  build: (w: NlWriter) => void,
): Parameters<typeof readFailure>[0] => {
  const w = new NlWriter(type, flags);
  build(w);
  return [...eachMessage(w.finish())][0]!;
};

test('acknowledgement, refusal, and refusal with reasons', () => {
  const minus17 = 0x100000000 - 17;
  const header = (w: NlWriter): NlWriter => w.u32(16).u16(16).u16(5).u32(1).u32(2);
  assert.equal(readFailure(answer(NLMSG_ERROR, 0, (w) => header(w.u32(0)))), undefined);
  assert.equal(readFailure(answer(NLMSG_DONE, 0, () => {})), undefined);
  assert.deepEqual(readFailure(answer(NLMSG_ERROR, 0, (w) => header(w.u32(minus17)))), { errno: 17 });
  const capped = answer(NLMSG_ERROR, NLM_F_CAPPED | NLM_F_ACK_TLVS, (w) =>
    header(w.u32(minus17)).attrString(1, 'Name taken').attrU32(2, 36).attrU32(5, 3),
  );
  assert.deepEqual(readFailure(capped), { errno: 17, message: 'Name taken', offset: 36, missingType: 3 });
  const whole = answer(NLMSG_ERROR, NLM_F_ACK_TLVS, (w) =>
    w.u32(minus17).u32(24).u16(16).u16(5).u32(1).u32(2).u32(0).u32(0).attrString(1, 'Name taken'),
  );
  assert.deepEqual(readFailure(whole), { errno: 17, message: 'Name taken' });
  const done = answer(NLMSG_DONE, NLM_F_ACK_TLVS, (w) => w.u32(minus17).attrString(1, 'No table'));
  assert.deepEqual(readFailure(done), { errno: 17, message: 'No table' });
});

test('an offset in a request is named by the attributes that hold it', () => {
  const request = new NlWriter(16, 0)
    .raw(new Uint8Array(16))
    .attrString(3, 'eth0') // at 32, 12 bytes
    .nest(18, (w) => w.attrString(1, 'vxlan').nest(2, (v) => v.attrU32(1, 5))) // at 44; 48; 60; 64
    .finish();
  assert.deepEqual(attributePathAt(request, 16, 32), [3]);
  assert.deepEqual(attributePathAt(request, 16, 44), [18]);
  assert.deepEqual(attributePathAt(request, 16, 48), [18, 1]);
  assert.deepEqual(attributePathAt(request, 16, 64), [18, 2, 1]);
  assert.deepEqual(attributePathAt(request, 16, 4), []);
  assert.deepEqual(attributePathAt(request, 16, 4000), []);
});
