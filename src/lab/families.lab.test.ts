/** Labs of one family each, side by side. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { familyOf } from '../base/ip.ts';
import { labReachability, renderReachability } from './lab.ts';
import { nothingLeaked } from './testing/leaks.ts';
import { ipsOf, TestLab } from './testing/test-lab.ts';

describe('two labs at once, one of IPv4 alone, one of IPv6 alone', { concurrency: false }, () => {
  const labs: TestLab[] = [];
  before(async () => {
    const booted = await Promise.allSettled([
      TestLab.boot('f4', { nodes: 3, subnets: 2, families: [4] }),
      TestLab.boot('f6', { nodes: 3, subnets: 2, families: [6] }),
    ]);
    for (const each of booted) if (each.status === 'fulfilled') labs.push(each.value);
    for (const each of booted) if (each.status === 'rejected') throw each.reason;
  });
  after(async () => {
    for (const lab of labs) await lab[Symbol.asyncDispose]();
  });

  test('each is reachable in every direction, by its family alone', async () => {
    for (const [i, family] of ([4, 6] as const).entries()) {
      const lab = labs[i]!;
      const found = await labReachability(lab.name);
      assert.ok(found.ok, renderReachability(found));
      assert.ok(found.dials.length > 0 && found.dials.every((dial) => dial.family === family));
      const cidrs = await Promise.all(lab.topology.nodes.map(({ name }) => lab.podCIDRs(name)));
      assert.deepEqual(
        cidrs.map((each) => each.map(familyOf)),
        [[family], [family], [family]],
      );
      const pod = await lab.pod('one');
      assert.deepEqual(ipsOf(pod).map(familyOf), [family]);
      await nothingLeaked(lab);
    }
  });

  test('nothing of the other family is set up for pods', async () => {
    const [four, six] = labs as [TestLab, TestLab];
    for (const { name } of four.topology.nodes)
      assert.equal(await four.must(name, 'ip', '-6', 'route', 'show', 'proto', '87'), '');
    for (const { name } of six.topology.nodes)
      assert.equal(await six.must(name, 'ip', '-4', 'route', 'show', 'proto', '87'), '');
  });

  test('they do not meet: when one goes, the other does not notice', async () => {
    const [four, six] = labs as [TestLab, TestLab];
    labs.splice(0, 1);
    const before = six.process('agent/node-1')?.pid;
    await four[Symbol.asyncDispose]();
    const found = await labReachability(six.name);
    assert.ok(found.ok, renderReachability(found));
    assert.equal(six.process('agent/node-1')?.pid, before);
    await nothingLeaked(six);
  });
});
