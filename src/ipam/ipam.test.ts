import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ManualClock } from '../base/clock.ts';
import type { Attachment } from '../state/attachment.ts';
import { Ipam } from './ipam.ts';

const dual = (clock = new ManualClock(1_000_000)): { ipam: Ipam; clock: ManualClock } => ({
  clock,
  ipam: new Ipam({ podCIDRs: ['fd00:1::/64', '10.1.0.0/29'], cooldownSeconds: 30, clock }),
});

test('one address of each family, IPv4 first', () => {
  const { ipam } = dual();
  assert.deepEqual(ipam.allocate('a'), ['10.1.0.1', 'fd00:1::1']);
  assert.deepEqual(ipam.allocate('b'), ['10.1.0.2', 'fd00:1::2']);
  const clock = new ManualClock();
  assert.deepEqual(new Ipam({ podCIDRs: ['10.1.0.0/24'], cooldownSeconds: 0, clock }).allocate('x'), [
    '10.1.0.1',
  ]);
  assert.deepEqual(new Ipam({ podCIDRs: ['fd00::/64'], cooldownSeconds: 0, clock }).allocate('x'), [
    'fd00::1',
  ]);
});

test('requested addresses replace the automatic one of their family; several are allowed', () => {
  const { ipam } = dual();
  assert.deepEqual(ipam.allocate('a', ['fd00:1::77', 'fd00:1::78']), [
    '10.1.0.1',
    'fd00:1::77',
    'fd00:1::78',
  ]);
  assert.deepEqual(ipam.allocate('b', ['10.1.0.5']), ['10.1.0.5', 'fd00:1::1']);
  assert.throws(() => ipam.allocate('c', ['10.1.0.5']), { code: 'WEFT_IPAM_IN_USE' });
  assert.throws(() => ipam.allocate('c', ['192.0.2.1']), { code: 'WEFT_IPAM_NOT_IN_POOL' });
});

test('a refusal takes nothing', () => {
  const { ipam } = dual();
  ipam.allocate('holder', ['10.1.0.6']);
  const before = ipam.usage();
  for (const request of [
    ['10.1.0.5', '10.1.0.6'],
    ['fd00:1::99', '10.9.9.9'],
  ]) {
    assert.throws(() => ipam.allocate('c', request));
  }
  assert.deepEqual(ipam.usage(), before);
  for (let i = 0; i < 5; i++) ipam.allocate(`fill${i}`);
  const full = ipam.usage();
  assert.throws(() => ipam.allocate('late'), {
    code: 'WEFT_IPAM_EXHAUSTED',
    message: /^pool 10\.1\.0\.0\/29/,
  });
  assert.deepEqual(ipam.usage(), full, 'no IPv6 address was burnt for a pod that got no IPv4 one');
});

test('what is restored is neither given twice nor before it has rested', async () => {
  const { ipam, clock } = dual();
  const record = { id: 'old/eth0', ips: ['10.1.0.1/32', '172.16.0.9/32', 'fd00:1::1/128'] } as Attachment;
  ipam.restore({
    attachments: [record],
    released: [
      { ip: '10.1.0.4', releasedAt: clock.now() - 20_000 },
      { ip: '10.1.0.2', releasedAt: clock.now() - 10_000 },
      { ip: '172.16.0.1', releasedAt: 0 },
    ],
  });
  const given = ['a', 'b', 'c'].map((owner) => ipam.allocate(owner)[0]);
  assert.deepEqual(given, ['10.1.0.3', '10.1.0.5', '10.1.0.6']);
  assert.throws(() => ipam.allocate('d'), { code: 'WEFT_IPAM_EXHAUSTED', message: /2 are cooling down/ });
  await clock.advance(10_000);
  assert.equal(ipam.allocate('e')[0], '10.1.0.4');
  ipam.release('old/eth0', ['10.1.0.1', 'fd00:1::1', '172.16.0.9']);
  assert.equal(ipam.usage()[0]!.coolingDown, 2);
});

test('a node without pools, or with two of a family, is refused', () => {
  const clock = new ManualClock();
  for (const podCIDRs of [[], ['10.0.0.0/24', '10.0.1.0/24']]) {
    assert.throws(() => new Ipam({ podCIDRs, cooldownSeconds: 1, clock }), { code: 'WEFT_BAD_CONFIG' });
  }
  assert.throws(() => new Ipam({ podCIDRs: ['10.0.0.0/33'], cooldownSeconds: 1, clock }), {
    code: 'WEFT_BAD_ADDRESS',
  });
});
