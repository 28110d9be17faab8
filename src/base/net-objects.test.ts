import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type NetObject, netObjectKey, routeMetric } from './net-objects.ts';

test('a key is what the kernel itself tells objects apart by', () => {
  const same: Array<[NetObject, NetObject]> = [
    [
      { kind: 'route', dst: '10.0.0.0/24', via: '10.1.0.1', table: 254 },
      { kind: 'route', dst: '10.0.0.0/24', via: '10.1.0.2' },
    ],
    [
      { kind: 'route', dst: 'fd00::/64', dev: 'eth0' },
      { kind: 'route', dst: 'fd00::/64', dev: 'eth0', metric: 1024 },
    ],
    [
      { kind: 'neighbour', dev: 'eth0', dst: '10.0.0.1', mac: '02:00:00:00:00:01' },
      { kind: 'neighbour', dev: 'eth0', dst: '10.0.0.1', mac: '02:00:00:00:00:02' },
    ],
  ];
  for (const [a, b] of same) assert.equal(netObjectKey(a), netObjectKey(b));
  const different: Array<[NetObject, NetObject]> = [
    [
      { kind: 'route', dst: '10.0.0.0/24', dev: 'a' },
      { kind: 'route', dst: '10.0.0.0/24', dev: 'a', metric: 5 },
    ],
    [
      { kind: 'rule', family: 4, priority: 1, table: 7 },
      { kind: 'rule', family: 6, priority: 1, table: 7 },
    ],
    [
      { kind: 'fdb', dev: 'v', mac: '02:00:00:00:00:01', dst: '10.0.0.1' },
      { kind: 'fdb', dev: 'v', mac: '02:00:00:00:00:01', dst: '10.0.0.2' },
    ],
    [
      { kind: 'link', name: 'a' },
      { kind: 'link', name: 'b' },
    ],
    [
      { kind: 'address', dev: 'a', address: '10.0.0.1/24' },
      { kind: 'address', dev: 'a', address: '10.0.0.1/32' },
    ],
  ];
  for (const [a, b] of different) assert.notEqual(netObjectKey(a), netObjectKey(b));
});

test('an absent metric is 0 for IPv4 and 1024 for IPv6', () => {
  assert.equal(routeMetric({ kind: 'route', dst: '10.0.0.0/8' }), 0);
  assert.equal(routeMetric({ kind: 'route', dst: '::/0' }), 1024);
  assert.equal(routeMetric({ kind: 'route', dst: '::/0', metric: 5 }), 5);
});
