import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Attachment } from '../state/attachment.ts';
import { strays } from './strays.ts';

const attachment = (n: number, ...ips: string[]): Attachment =>
  ({ id: `c${n}/eth0`, ips, ...(n > 1 && { pod: { namespace: 'default', name: `p${n}` } }) }) as Attachment;

test('attachments with an address outside of the pod CIDRs are told, the first three by name', () => {
  const one = attachment(1, '10.244.1.1/32', 'fd00::1:1/128');
  const podCIDRs = ['10.244.1.0/24', 'fd00::1:0/112'];
  assert.equal(strays([one], podCIDRs), undefined);
  assert.equal(strays([], ['10.244.2.0/24']), undefined);
  assert.match(strays([one], ['10.244.1.0/24'])!, /to the addresses of c1\/eth0 \(fd00::1:1\/128\): make/);
  const many = [2, 3, 4, 5, 6].map((n) => attachment(n, `10.244.1.${n}/32`));
  assert.equal(
    strays([one, ...many], ['10.244.2.0/24', 'fd00::1:0/112']),
    'the pod CIDRs of this node are 10.244.2.0/24, fd00::1:0/112 now, and other nodes have no route to the addresses ' +
      'of c1/eth0 (10.244.1.1/32), default/p2 (10.244.1.2/32), default/p3 (10.244.1.3/32) and 3 more: make these pods anew',
  );
});
