/** The fabrics' compliance suite on whole labs: real agents, real pods, every backend. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { cidrAt } from '../base/ip.ts';
import { ComplianceSuite, type Endpoint, runChecks } from '../fabric/compliance.ts';
import { ProbeClient } from '../fabric/probe-client.ts';
import { LabTopology } from './testing/lab-topology.ts';
import { TestLab } from './testing/test-lab.ts';
import type { LabOptions } from './topology.ts';

/** A port of our own beside the suite's. */
const EAR = 17_017;

/** As root in the pod: give it the address, and send a datagram from there. */
async function sendFrom(from: Endpoint, source: string, target: string, text: string): Promise<void> {
  const program = `
    const family = process.argv[1].includes(':') ? 6 : 4;
    const socket = require('node:dgram').createSocket('udp' + family);
    socket.bind(0, process.argv[1], () => socket.send(process.argv[3], ${EAR}, process.argv[2], () => socket.close()));`;
  const own = from.addresses.includes(source);
  const prefixed = `${source}/${source.includes(':') ? '128' : '32'}`;
  const address = (verb: string): Promise<string> =>
    finished(from, [
      'ip',
      'address',
      verb,
      prefixed,
      'dev',
      'lo',
      ...(verb === 'add' && source.includes(':') ? ['nodad'] : []),
    ]);
  if (!own) await address('add');
  await finished(from, [process.execPath, '-e', program, source, target, text]);
  if (!own) await address('del');
}

/** Its output, when it has ended. */
async function finished(endpoint: Endpoint, argv: string[]): Promise<string> {
  let output = '';
  for await (const piece of endpoint.spawn(argv).stdout) output += piece;
  return output;
}

const cases: Array<[string, string, Omit<LabOptions, 'name'>]> = [
  ['vxlan', 'cv', { nodes: 2, fabric: 'vxlan' }],
  ['host-gw', 'ch', { nodes: 2, fabric: 'host-gw' }],
  ['auto over two subnets', 'ca', { nodes: 3, fabric: 'auto', subnets: 2 }],
];

for (const [title, label, options] of cases) {
  describe(title, { concurrency: false }, () => {
    let lab: TestLab;
    let topology: LabTopology;
    let suite: ComplianceSuite;
    before(async () => {
      lab = await TestLab.boot(label, options);
      topology = await LabTopology.of(lab);
      suite = new ComplianceSuite(
        topology.topology([
          {
            name: 'kill -9 of the agent of node-1',
            lossless: true,
            run: () => lab.restartAgent('node-1'),
          },
          { name: 'node-2 changes its address', lossless: false, run: () => topology.renumber('node-2') },
          { name: 'node-2 is replaced', lossless: false, run: () => topology.replace('node-2') },
        ]),
      );
      await suite.start();
    });
    after(async () => {
      await suite?.[Symbol.asyncDispose]();
      await lab?.[Symbol.asyncDispose]();
    });

    test('every rule holds', async () => {
      const checks = suite.checks();
      const groups = new Set(checks.map(({ group }) => group.split(',')[0]!));
      for (const group of [
        'pod to pod across nodes',
        'pod to node across nodes',
        'full size',
        'to the outside',
      ])
        assert.ok(groups.has(group), `nothing checked: ${group} (${[...groups]})`);
      await runChecks(checks);
    });

    test('no pod sends with an address that is not its own', async () => {
      const pods = topology
        .topology()
        .endpoints()
        .filter(({ kind }) => kind === 'pod');
      const victim = pods.find(({ node }) => node === 'node-2')!;
      const [liar, neighbour] = pods.filter(({ node }) => node === 'node-1') as [Endpoint, Endpoint];
      const ear = new ProbeClient(victim, EAR);
      await ear.ready;
      const heard = async (source: string, target: string): Promise<boolean> => {
        const note = `note:${source}#${Math.random()};`;
        await sendFrom(liar, source, target, note);
        for (let i = 0; i < 20; i++) {
          if (await ear.ask({ do: 'heard', note })) return true;
          await new Promise((resolve) => setTimeout(resolve, 10));
        }
        return false;
      };
      try {
        for (const [i, target] of victim.addresses.entries()) {
          assert.ok(
            await heard(liar.addresses[i]!, target),
            'an honest one does not arrive: this proves nothing',
          );
          const node = topology
            .topology()
            .endpoints()
            .find((each) => each.kind === 'node' && each.node === 'node-1')!;
          // Of the pod beside it, of nobody, of the node, of a stranger.
          const strangers = ['203.0.113.77', '2001:db8::77'];
          const unallocated = (await lab.podCIDRs('node-1')).map((cidr) => cidrAt(cidr, 201));
          for (const source of [neighbour.addresses, unallocated, node.addresses, strangers].map(
            (ips) => ips[i]!,
          ))
            assert.ok(!(await heard(source, target)), `${source} is believed`);
        }
      } finally {
        ear.end();
      }
    });

    test('and goes on holding', async () => {
      for (const check of suite.eventChecks()) await check.run();
    });
  });
}
