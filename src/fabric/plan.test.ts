import assert from 'node:assert/strict';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { formatNetObject } from '../base/net-object-text.ts';
import type { FabricNode, FabricPlan, Underlay } from '../state/fabric-plan.ts';
import type { FabricConfig } from './context.ts';
import { compileFabric } from './plan.ts';
import { vtepMac } from './vxlan/tunnel.ts';

const config = (backend: FabricConfig['fabric']['backend'], mtu = 0): FabricConfig => ({
  clusterCIDRs: ['10.244.0.0/16', 'fd00:10:244::/48'],
  fabric: { backend, vxlanVni: 1, vxlanPort: 8472, mtu },
  masquerade: { enabled: true, exclude: ['198.51.100.0/24'] },
});

/** Node `n<i>` on rack `r`: 192.0.2.<i> or 198.18.<r>.<i>, dual stack unless said otherwise. */
function node(i: number, more: Partial<FabricNode> = {}): FabricNode {
  return {
    name: `n${i}`,
    nodeIPs: [`192.0.2.${i}`, `2001:db8::${i}`],
    podCIDRs: [`10.244.${i}.0/24`, `fd00:10:244:${i}::/64`],
    vtepMac: vtepMac(`n${i}`),
    ...more,
  };
}

const eth0: Underlay = { dev: 'eth0', mtu: 1500, onLink: ['192.0.2.0/24', '2001:db8::/64'] };

function render(plan: FabricPlan): string {
  return `${[
    ...plan.objects.map(formatNetObject),
    ...plan.sysctls.map((s) => `sysctl ${s.path}=${s.value}${s.when === undefined ? '' : ` when ${s.when}`}`),
    `pod mtu ${plan.podMtu}`,
    `masquerade ${plan.filter.masquerade ? `from ${plan.filter.podCIDRs.join(', ')}` : 'nothing'}`,
    ...plan.filter.noMasquerade.map((cidr) => `  not to ${cidr}`),
    `encapsulated on ${plan.filter.encapPort ?? 'no port'} from ${plan.filter.vteps.join(', ') || 'nobody'}`,
    ...plan.problems.map((p) => `problem ${p.node} ${p.reason}: ${p.message}`),
  ].join('\n')}\n`;
}

/** `WEFT_UPDATE_GOLDENS=1` rewrites them. */
function golden(name: string, plan: FabricPlan): void {
  const file = path.join(import.meta.dirname, 'testdata', `${name}.txt`);
  const text = render(plan);
  if (process.env.WEFT_UPDATE_GOLDENS) writeFileSync(file, text);
  assert.ok(existsSync(file), `${file} is missing`);
  assert.equal(text, readFileSync(file, 'utf8'));
}

/** A node of another rack: its addresses are on no subnet of ours. */
const far = (i: number, more: Partial<FabricNode> = {}): FabricNode =>
  node(i, { nodeIPs: [`198.18.1.${i}`, `2001:db8:1::${i}`], ...more });

const cases: Array<[name: string, plan: () => FabricPlan]> = [
  ['vxlan', () => compileFabric(node(1), [node(1), node(2), node(3)], [eth0], config('vxlan'))],
  ['vxlan-alone', () => compileFabric(node(1), [], [eth0], config('vxlan'))],
  ['host-gw', () => compileFabric(node(1), [node(2), far(3)], [eth0], config('host-gw'))],
  ['auto-one-subnet', () => compileFabric(node(1), [node(2), node(3)], [eth0], config('auto'))],
  ['auto-two-subnets', () => compileFabric(node(1), [node(2), far(3)], [eth0], config('auto'))],
  [
    'vxlan-ipv6-pods-over-ipv4',
    () => {
      const v4 = (i: number) => node(i, { nodeIPs: [`192.0.2.${i}`] });
      return compileFabric(v4(1), [v4(2)], [{ ...eth0, onLink: ['192.0.2.0/24'] }], config('vxlan'));
    },
  ],
  [
    'vxlan-mixed-underlay',
    () =>
      compileFabric(
        node(1),
        [node(2), node(3, { nodeIPs: ['2001:db8::3'] }), node(4, { nodeIPs: [] })],
        [eth0],
        config('vxlan'),
      ),
  ],
  [
    'auto-ipv4-only',
    () => {
      const single = (n: FabricNode) => ({
        ...n,
        nodeIPs: n.nodeIPs.slice(0, 1),
        podCIDRs: n.podCIDRs.slice(0, 1),
      });
      return compileFabric(single(node(1)), [single(node(2)), single(far(3))], [eth0], config('auto'));
    },
  ],
  [
    'contested-claims',
    () =>
      compileFabric(
        node(1, { createdAt: '2026-01-01T00:00:00Z' }),
        [
          node(2, { createdAt: '2026-01-02T00:00:00Z' }),
          node(3, { createdAt: '2026-01-01T00:00:00Z', nodeIPs: ['192.0.2.2'] }),
          node(4, { podCIDRs: ['10.244.0.0/22'] }),
          node(5, { vtepMac: vtepMac('n1') }),
          node(6, { podCIDRs: ['192.0.0.0/16'] }),
          node(7, { vtepMac: undefined } as unknown as Partial<FabricNode>),
        ],
        [eth0],
        config('vxlan'),
      ),
  ],
  ['mtu-configured', () => compileFabric(node(1), [node(2)], [eth0], config('vxlan', 1400))],
  ['mtu-too-large', () => compileFabric(node(1), [node(2)], [eth0], config('vxlan', 9000))],
  [
    'mtu-too-small-for-ipv6',
    () => compileFabric(node(1), [node(2)], [{ ...eth0, mtu: 1300 }], config('vxlan')),
  ],
  [
    'mtu-jumbo-two-devices',
    () =>
      compileFabric(
        node(1),
        [node(2), far(3, { nodeIPs: ['2001:db8:1::3'] })],
        [
          { dev: 'eth0', mtu: 9000, onLink: ['192.0.2.0/24'] },
          { dev: 'eth1', mtu: 1500, onLink: ['2001:db8::/64'] },
        ],
        config('auto'),
      ),
  ],
];

for (const [name, plan] of cases) test(`plan: ${name}`, () => golden(name, plan()));

test('both ends of every pair agree on how they reach each other, and on both families of pods', () => {
  const all = [node(1), node(2), far(3), far(4), node(5, { nodeIPs: ['192.0.2.5'] })];
  const racks: Record<string, Underlay[]> = Object.fromEntries(
    all.map((n) => [
      n.name,
      [n.nodeIPs[0]!.startsWith('192') ? eth0 : { ...eth0, onLink: ['198.18.1.0/24', '2001:db8:1::/64'] }],
    ]),
  );
  const devices = new Map<string, string>();
  for (const self of all) {
    const plan = compileFabric(self, all, racks[self.name]!, config('auto'));
    assert.deepEqual(plan.problems, []);
    for (const remote of all) {
      if (remote === self) continue;
      for (const cidr of remote.podCIDRs) {
        const route = plan.objects.find((o) => o.kind === 'route' && o.dst === cidr);
        assert.ok(route?.kind === 'route' && route.dev, `${self.name} has no route to ${cidr}`);
        devices.set(`${self.name} ${remote.name} ${cidr.includes(':')}`, route.dev);
      }
    }
  }
  for (const [key, dev] of devices) {
    const [a, b, v6] = key.split(' ');
    assert.equal(devices.get(`${b} ${a} ${v6}`), dev, key);
  }
});

test('a VTEP MAC is unicast, locally administered, stable, and its own', () => {
  assert.equal(vtepMac('node-a'), vtepMac('node-a'));
  const macs = new Set(Array.from({ length: 5000 }, (_, i) => vtepMac(`node-${i}`)));
  assert.equal(macs.size, 5000);
  for (const mac of macs) assert.equal(Number.parseInt(mac.slice(0, 2), 16) & 3, 2);
});
