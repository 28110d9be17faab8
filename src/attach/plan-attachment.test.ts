import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import type { Attachment } from '../state/attachment.ts';
import { aliasOf, attachmentId, hostIfnameOf, macOf } from './names.ts';
import { planAttachment } from './plan-attachment.ts';

const id = attachmentId('0123456789abcdef', 'eth0');
const base: Attachment = {
  id,
  containerId: '0123456789abcdef',
  ifname: 'eth0',
  network: 'weft',
  netns: '/run/netns/cni-1',
  netnsInode: 4026532001,
  ips: ['10.244.1.5/32', 'fd00:10:244:1::5/128'],
  mac: macOf(id),
  hostIfname: hostIfnameOf(id),
  mtu: 1450,
  createdAt: '2026-01-01T00:00:00.000Z',
};

/** WEFT_UPDATE_GOLDENS=1 rewrites them. */
function golden(name: string, value: unknown): void {
  const file = path.join(import.meta.dirname, 'testdata', `${name}.json`);
  const text = `${JSON.stringify(value, null, 2)}\n`;
  if (process.env.WEFT_UPDATE_GOLDENS) writeFileSync(file, text);
  assert.equal(text, readFileSync(file, 'utf8'), `${name}: WEFT_UPDATE_GOLDENS=1 accepts the new plan`);
}

test('the plan of a dual-stack pod', () => golden('dual-stack', planAttachment(base)));
test('the plan of an IPv4 pod says nothing of IPv6', () => {
  const plan = planAttachment({ ...base, ips: ['10.244.1.5/32'] });
  golden('ipv4', plan);
  assert.doesNotMatch(JSON.stringify(plan), /ipv6|::/);
});
test('the plan of an IPv6 pod says nothing of IPv4', () => {
  const plan = planAttachment({ ...base, ips: ['fd00:10:244:1::5/128'] });
  golden('ipv6', plan);
  assert.doesNotMatch(JSON.stringify(plan), /ipv4|169\.254|0\.0\.0\.0/);
});

test('several addresses of a family share gateway and default route', () => {
  const { host, pod } = planAttachment({ ...base, ips: ['10.244.1.5/32', '10.244.1.6/32'] });
  assert.deepEqual(
    [host.routes, host.neighbours, pod.addresses, pod.routes, pod.neighbours].map((list) => list.length),
    [2, 2, 2, 1, 1],
  );
});

test('a secondary interface routes only what it is told, of families it has', () => {
  const { pod } = planAttachment({
    ...base,
    ips: ['10.244.1.5/32'],
    routes: ['10.244.0.0/16', 'fd00:10:244::/48'],
  });
  assert.deepEqual(
    pod.routes.map((route) => [route.dst, route.via]),
    [['10.244.0.0/16', '169.254.1.1']],
  );
});

test('names follow from the identity, fit the kernel, and do not meet', () => {
  const names = new Set<string>();
  for (let i = 0; i < 5000; i++) {
    const name = hostIfnameOf(attachmentId(`container-${i}`, 'eth0'));
    assert.match(name, /^weft[0-9a-f]{11}$/);
    names.add(name);
    assert.match(macOf(name), /^[0-9a-f][26ae](:[0-9a-f]{2}){5}$/, 'unicast and locally administered');
  }
  assert.equal(names.size, 5000);
  assert.equal(aliasOf('a/eth0'), 'weft:a/eth0');
  assert.equal(Buffer.byteLength(aliasOf(`${'x'.repeat(300)}/eth0`)), 255);
});
