import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { isWeftError } from '../base/errors.ts';
import { eachMessage, NLMSG_HEADER, NlReader } from './netlink.ts';
import {
  decodeElements,
  decodeGeneration,
  decodeTable,
  decodeTouchedTable,
  elementAt,
  encodeElementChange,
  type NftElement,
  type NftElementChange,
} from './nf-tables.ts';

const bytes = (min: number, max: number): fc.Arbitrary<Uint8Array> =>
  fc.uint8Array({ minLength: min, maxLength: max });
const arbVerdict = fc.oneof(
  fc
    .constantFrom('accept' as const, 'drop' as const, 'continue' as const, 'return' as const)
    .map((code) => ({ code })),
  fc.record(
    {
      code: fc.constantFrom('jump' as const, 'goto' as const),
      chain: fc.stringMatching(/^[a-z]{1,20}$/),
    },
    { noNullPrototype: true },
  ),
);
const arbElement: fc.Arbitrary<NftElement> = fc
  .record(
    {
      key: bytes(1, 64),
      interval: fc.boolean(),
      intervalEnd: fc.constant(true as const),
      data: fc.oneof(bytes(1, 64), arbVerdict),
      timeout: fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
    },
    { requiredKeys: ['key'], noNullPrototype: true },
  )
  .map(({ interval, ...element }) => (interval ? { ...element, keyEnd: element.key.toReversed() } : element));
const arbChange = (action: 'add' | 'delete'): fc.Arbitrary<NftElementChange> =>
  fc.record({
    family: fc.constantFrom(
      'ip' as const,
      'ip6' as const,
      'inet' as const,
      'arp' as const,
      'bridge' as const,
      'netdev' as const,
    ),
    table: fc.stringMatching(/^[a-z]{1,30}$/),
    set: fc.stringMatching(/^[a-z]{1,30}$/),
    action: fc.constant(action),
    elements: fc.array(arbElement, { maxLength: 30 }),
  });
const payloadOf = (message: Uint8Array): Uint8Array => message.subarray(NLMSG_HEADER);

test('property: elements come back as they went out, and each message names its table', () => {
  fc.assert(
    fc.property(arbChange('add'), (change) => {
      const messages = encodeElementChange(change);
      assert.deepEqual(
        messages.flatMap(({ bytes: b }) => decodeElements(payloadOf(b))),
        change.elements,
      );
      for (const { bytes: b } of messages) {
        const [message] = [...eachMessage(b)];
        assert.equal(decodeTouchedTable(message!), `${change.family} ${change.table}`);
      }
    }),
  );
});

test('many elements are split into messages below the limit of an attribute, none lost', () => {
  const elements = Array.from({ length: 5000 }, (_, i) => ({ key: Uint8Array.of(10, 0, i >> 8, i & 255) }));
  const messages = encodeElementChange({ family: 'inet', table: 't', set: 's', action: 'add', elements });
  assert.ok(messages.length > 1);
  let count = 0;
  for (const { bytes: b, first } of messages) {
    assert.ok(b.length < 65_536);
    assert.equal(first, count);
    count += decodeElements(payloadOf(b)).length;
  }
  assert.equal(count, 5000);
});

test('flush has no list; an add or delete of nothing has no message, for a deletion without a list would empty the set', () => {
  const change = { family: 'inet', table: 't', set: 's' } as const;
  const [flush] = encodeElementChange({ ...change, action: 'flush' });
  assert.equal(new NlReader(payloadOf(flush!.bytes)).attributes(4).has(3), false);
  assert.deepEqual(encodeElementChange({ ...change, action: 'delete', elements: [] }), []);
  assert.deepEqual(encodeElementChange({ ...change, action: 'add' }), []);
});

test('property: an offset within an element names that element', () => {
  fc.assert(
    fc.property(arbChange('delete'), fc.nat(), (change, n) => {
      for (const { bytes: b } of encodeElementChange(change)) {
        const offset = n % b.length;
        const index = elementAt(b, offset);
        if (index !== undefined) assert.ok(index < change.elements!.length);
        // The list begins behind the two headers and the two names.
        const text = (length: number): number => 4 + ((length + 1 + 3) & ~3);
        const list = NLMSG_HEADER + 4 + text(change.table.length) + text(change.set.length);
        assert.equal(elementAt(b, list + 4), 0);
        assert.equal(elementAt(b, list), undefined);
        assert.equal(elementAt(b, b.length - 1), change.elements!.length - 1);
      }
    }),
  );
});

test('values without a form in nftables are refused', () => {
  const change = { family: 'inet', table: 't', set: 's', action: 'add' } as const;
  const cases: NftElement[] = [
    { key: new Uint8Array() },
    { key: new Uint8Array(65) },
    { key: Uint8Array.of(1), keyEnd: Uint8Array.of(1, 2) },
    { key: Uint8Array.of(1), data: { code: 'jump' } },
    { key: Uint8Array.of(1), data: { code: 'drop', chain: 'c' } },
  ];
  for (const element of cases) {
    assert.throws(
      () => encodeElementChange({ ...change, elements: [element] }),
      (error) => isWeftError(error, 'WEFT_BAD_CONFIG'),
    );
  }
});

test('fuzz: any bytes, and any damage to real ones, decode to a value or to WEFT_NETLINK_MALFORMED', () => {
  const attempt = (fn: () => unknown): void => {
    try {
      fn();
    } catch (error) {
      assert.ok(isWeftError(error, 'WEFT_NETLINK_MALFORMED'), String(error));
    }
  };
  const decodeAll = (payload: Uint8Array): void => {
    attempt(() => decodeElements(payload));
    attempt(() => decodeGeneration(payload));
    attempt(() => decodeTable(payload));
    attempt(() => decodeTouchedTable({ type: 0xa00, flags: 0, seq: 0, portId: 0, payload }));
  };
  fc.assert(fc.property(bytes(0, 200), decodeAll), { numRuns: 300 });
  fc.assert(
    fc.property(
      arbChange('add'),
      fc.nat(),
      fc.integer({ min: 0, max: 255 }),
      fc.nat(),
      (change, at, value, cut) => {
        for (const { bytes: b } of encodeElementChange(change)) {
          const payload = payloadOf(b).slice();
          payload[at % payload.length] = value;
          decodeAll(payload.subarray(0, payload.length - (cut % 5)));
        }
      },
    ),
    { numRuns: 300 },
  );
});
