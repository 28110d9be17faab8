import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Node } from '../api/types.ts';
import { canonicalCidr, canonicalIp } from '../base/ip.ts';
import { fabricNodeOf } from './nodes.ts';

const node = (more: Partial<Node>): Node => ({
  apiVersion: 'v1',
  kind: 'Node',
  metadata: { name: 'n1', creationTimestamp: '2026-01-01T00:00:00Z' },
  ...more,
});

test('the first InternalIP of each family, all pod CIDRs, the announced MAC, canonical', () => {
  const { node: fabric, problems } = fabricNodeOf(
    node({
      metadata: { name: 'n1', annotations: { 'weft.dev/vtep-mac': '02-AA-BB-CC-DD-EE' } },
      spec: { podCIDR: '10.244.1.0/24', podCIDRs: ['10.244.1.9/24', 'FD00:0:0:1::/64'] },
      status: {
        addresses: [
          { type: 'Hostname', address: 'n1' },
          { type: 'ExternalIP', address: '203.0.113.5' },
          { type: 'InternalIP', address: '2001:DB8:0:0::1' },
          { type: 'InternalIP', address: '192.0.2.1' },
          { type: 'InternalIP', address: '192.0.2.2' },
        ],
      },
    }),
  );
  assert.deepEqual(fabric, {
    name: 'n1',
    nodeIPs: ['192.0.2.1', '2001:db8::1'],
    podCIDRs: ['10.244.1.0/24', 'fd00:0:0:1::/64'],
    vtepMac: '02:aa:bb:cc:dd:ee',
  });
  assert.deepEqual(problems, []);
});

test('a node that has nothing yet is a node without anything', () => {
  assert.deepEqual(fabricNodeOf(node({})).node, {
    name: 'n1',
    nodeIPs: [],
    podCIDRs: [],
    createdAt: '2026-01-01T00:00:00Z',
  });
  assert.deepEqual(fabricNodeOf(node({ spec: { podCIDR: '10.244.1.0/24' } })).node.podCIDRs, [
    '10.244.1.0/24',
  ]);
});

test('what is malformed is left out and named; the rest stays', () => {
  const cases: Array<[Partial<Node>, RegExp]> = [
    [{ spec: { podCIDRs: ['10.244.1.0/33', '10.244.2.0/24'] } }, /podCIDR.*10\.244\.1\.0\/33/],
    [{ status: { addresses: [{ type: 'InternalIP', address: '1.2.3' }] } }, /InternalIP.*1\.2\.3/],
    ...[
      '127.0.0.1',
      '169.254.7.7',
      '224.0.0.5',
      '0.0.0.0',
      '255.255.255.255',
      '::',
      '::1',
      'fe80::1',
      'ff02::1',
    ].map((address): [Partial<Node>, RegExp] => [
      { status: { addresses: [{ type: 'InternalIP', address }] } },
      /cannot be a node's address/,
    ]),
    ...['zz', '01:00:5e:00:00:01', '00:00:00:00:00:00', 'ff:ff:ff:ff:ff:ff'].map(
      (mac): [Partial<Node>, RegExp] => [
        { metadata: { name: 'n1', annotations: { 'weft.dev/vtep-mac': mac } } },
        /vtep-mac/,
      ],
    ),
  ];
  for (const [more, message] of cases) {
    const { node: fabric, problems } = fabricNodeOf(node(more));
    assert.equal(problems.length, 1, JSON.stringify(more));
    assert.equal(problems[0]!.reason, 'InvalidNode');
    assert.match(problems[0]!.message, message);
    assert.deepEqual(fabric.nodeIPs, []);
    assert.equal(fabric.vtepMac, undefined);
    assert.deepEqual(fabric.podCIDRs, more.spec ? ['10.244.2.0/24'] : []);
  }
});

test('whatever a Node object says, what comes out is canonical, and nothing is thrown', () => {
  const scrap = fc.oneof(
    fc.string(),
    fc.ipV4(),
    fc.ipV6(),
    fc
      .tuple(fc.oneof(fc.ipV4(), fc.ipV6()), fc.integer({ min: -1, max: 130 }))
      .map(([ip, n]) => `${ip}/${n}`),
    fc.constantFrom('02:aa:bb:cc:dd:ee', '0.0.0.0/0', '::/0', '10.244.1.0/24', ''),
  );
  fc.assert(
    fc.property(
      fc.array(scrap, { maxLength: 4 }),
      fc.array(scrap, { maxLength: 4 }),
      fc.option(scrap, { nil: undefined }),
      (podCIDRs, addresses, mac) => {
        const { node: fabric } = fabricNodeOf(
          node({
            metadata: { name: 'n1', ...(mac !== undefined && { annotations: { 'weft.dev/vtep-mac': mac } }) },
            spec: { podCIDRs },
            status: { addresses: addresses.map((address) => ({ type: 'InternalIP', address })) },
          }),
        );
        for (const cidr of fabric.podCIDRs) assert.equal(canonicalCidr(cidr), cidr);
        for (const ip of fabric.nodeIPs) assert.equal(canonicalIp(ip), ip);
        assert.equal(new Set(fabric.nodeIPs.map((ip) => ip.includes(':'))).size, fabric.nodeIPs.length);
        if (fabric.vtepMac !== undefined) assert.match(fabric.vtepMac, /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/);
      },
    ),
  );
});
