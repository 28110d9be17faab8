import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type NetObject, POD_LINK_GROUP } from '../base/net-objects.ts';
import { findUnderlay } from './underlay.ts';

const machine: NetObject[] = [
  { kind: 'link', name: 'lo', mtu: 65536 },
  { kind: 'link', name: 'eth0', mtu: 9000 },
  { kind: 'link', name: 'eth1', mtu: 1500 },
  { kind: 'link', name: 'weft-vxlan', mtu: 1450 },
  { kind: 'link', name: 'wlan', group: POD_LINK_GROUP },
  { kind: 'address', dev: 'lo', address: '127.0.0.1/8', scope: 'host' },
  { kind: 'address', dev: 'eth0', address: '192.0.2.5/24', scope: 'global' },
  { kind: 'address', dev: 'eth0', address: '192.0.2.6/24', scope: 'global' },
  { kind: 'address', dev: 'eth0', address: '2001:db8::9/64', scope: 'global', flags: ['temporary'] },
  { kind: 'address', dev: 'eth0', address: '2001:db8::5/64', scope: 'global' },
  { kind: 'address', dev: 'eth0', address: 'fe80::5/64', scope: 'link' },
  { kind: 'address', dev: 'eth1', address: '198.51.100.5/24', scope: 'global' },
  { kind: 'address', dev: 'weft-vxlan', address: '10.244.0.0/32', scope: 'global' },
  { kind: 'route', dst: '0.0.0.0/0', via: '198.51.100.1', dev: 'eth1', metric: 200 },
  { kind: 'route', dst: '0.0.0.0/0', via: '192.0.2.1', dev: 'eth0', metric: 100 },
  { kind: 'route', dst: '::/0', via: 'fe80::1', dev: 'eth0' },
];

test('the default route with the lowest metric says which interface', () => {
  assert.deepEqual(findUnderlay(machine, []), {
    nodeIPs: ['192.0.2.5', '2001:db8::5'],
    underlays: [{ dev: 'eth0', mtu: 9000, onLink: ['192.0.2.0/24', '2001:db8::/64'] }],
  });
});

test('the source of the default route wins over the first address', () => {
  const objects = machine.map((o) =>
    o.kind === 'route' && o.metric === 100 ? { ...o, src: '192.0.2.6' } : o,
  );
  assert.deepEqual(findUnderlay(objects, []).nodeIPs, ['192.0.2.6', '2001:db8::5']);
});

test('addresses that were asked for are taken, whatever the routes say, IPv4 first', () => {
  assert.deepEqual(findUnderlay(machine, ['2001:db8::5', '198.51.100.5']), {
    nodeIPs: ['198.51.100.5', '2001:db8::5'],
    underlays: [
      { dev: 'eth1', mtu: 1500, onLink: ['198.51.100.0/24'] },
      { dev: 'eth0', mtu: 9000, onLink: ['192.0.2.0/24', '2001:db8::/64'] },
    ],
  });
});

test('no underlay is an error that says what to do', () => {
  assert.throws(() => findUnderlay(machine, ['192.0.2.77']), {
    code: 'WEFT_NO_UNDERLAY',
    message: /192\.0\.2\.77/,
  });
  const noDefault = machine.filter((o) => o.kind !== 'route');
  assert.throws(() => findUnderlay(noDefault, []), { code: 'WEFT_NO_UNDERLAY', hint: /nodeIPs/ });
  assert.throws(
    () => findUnderlay(machine, ['10.244.0.0']),
    { code: 'WEFT_NO_UNDERLAY' },
    'our own devices do not count',
  );
});
