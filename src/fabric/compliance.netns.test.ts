import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { type Check, ComplianceSuite, runChecks } from './compliance.ts';
import { FabricNet, type FabricNetOptions } from './testing/fabric-net.ts';

const cases: Array<[string, FabricNetOptions & { events?: boolean }]> = [
  ['vxlan, two racks', { label: 'v', backend: 'vxlan', racks: [[1, 2], [3]], events: false }],
  ['auto, two racks', { label: 'a', backend: 'auto', racks: [[1, 2], [3]] }],
  ['host-gw, one rack', { label: 'h', backend: 'host-gw', racks: [[1, 2]] }],
  [
    'vxlan over IPv4 alone',
    { label: 'w', backend: 'vxlan', racks: [[1], [2]], underlay: [4], events: false },
  ],
  [
    'vxlan over IPv6 alone',
    { label: 'x', backend: 'vxlan', racks: [[1], [2]], underlay: [6], events: false },
  ],
  [
    'vxlan over either family',
    { label: 'm', backend: 'vxlan', racks: [[1], [2], [4]], familiesOf: { 2: [6] }, events: false },
  ],
];

for (const [name, options] of cases) {
  describe(name, () => {
    let net: FabricNet;
    let suite: ComplianceSuite;
    before(async () => {
      net = await FabricNet.create(options);
      suite = new ComplianceSuite(
        net.topology([
          {
            name: 'the agent of n1 restarts',
            lossless: true,
            run: async () => {
              net.operations = 0;
              await net.restartAgent(1);
              assert.equal(net.operations, 0, 'it found everything as it should be');
            },
          },
          { name: 'n2 changes its address', lossless: false, run: () => net.changeAddress(2) },
          { name: 'n2 is replaced by another machine', lossless: false, run: () => net.replace(2) },
        ]),
      );
      await suite.start();
    });
    after(async () => {
      await suite?.[Symbol.asyncDispose]();
      await net?.[Symbol.asyncDispose]();
    });

    test('every rule holds', async () => {
      const checks: Check[] = suite.checks();
      assert.ok(checks.length > 0);
      await runChecks(checks);
    });

    if (options.events === false) return;
    test('and goes on holding', async () => {
      for (const check of suite.eventChecks()) await check.run();
    });
  });
}

test('pods attached before the tunnel was needed keep their MTU, and lose nothing by it', async () => {
  await using net = await FabricNet.create({ label: 'j', backend: 'auto', racks: [[1, 2], []] });
  assert.equal(net.machine(1).pods[0]!.mtu, 1500);
  await net.join(3, 1);
  assert.equal(net.machine(3).pods[0]!.mtu, 1450);
  await using suite = new ComplianceSuite(net.topology());
  await suite.start();
  await runChecks(suite.checks());
});
