/** What this kernel has, found out by trying in a namespace of its own that nobody sees. */
import { existsSync } from 'node:fs';
import { release } from 'node:os';
import { WeftError } from '../base/errors.ts';
import type { Link, NsPath } from '../base/net-objects.ts';
import { withScratchNetns } from './netns.ts';
import { FEATURE_OPTIONS, type Feature } from './require-features.ts';
import type { KernelFeatures, RunResult, Step } from './types.ts';

/** What a probe uses of the kernel. */
interface Prober {
  run(steps: Step[]): RunResult;
  nftApply(ns: NsPath, ruleset: string): void;
  conntrack(ns: NsPath): unknown;
}

const links: Link[] = [
  { kind: 'link', name: 'veth0', type: 'veth', peer: { name: 'veth1' }, up: true },
  { kind: 'link', name: 'bridge0', type: 'bridge' },
  { kind: 'link', name: 'vxlan0', type: 'vxlan', vxlan: { id: 1, port: 8472 } },
  { kind: 'link', name: 'macvlan0', type: 'macvlan', macvlan: { dev: 'veth0' } },
];

const chain = (name: string, type: string, hook: string, rule: string): string =>
  `table inet probe {\n chain ${name} {\n type ${type} hook ${hook} priority 0\n ${rule}\n }\n}\n`;

const rulesets: ReadonlyArray<[Feature, string]> = [
  ['nf_tables', 'table inet probe {\n}\n'],
  ['nft_fib', chain('a', 'filter', 'prerouting', 'fib saddr . iif oif missing drop')],
  ['nft_nat', chain('b', 'nat', 'postrouting', 'ip saddr 192.0.2.1 snat ip to 192.0.2.2')],
  ['nft_ct', chain('c', 'filter', 'forward', 'ct state established accept')],
];

export function probeFeatures(kernel: Prober): KernelFeatures {
  const has: Record<string, boolean> = {};
  for (const name of Object.keys(FEATURE_OPTIONS)) has[name] = false;
  has.ipv6 = existsSync('/proc/sys/net/ipv6');
  try {
    withScratchNetns((ns) => {
      has.netns = true;
      probeIn(kernel, ns, has);
    });
  } catch (error) {
    if (!(error instanceof WeftError) || error.code !== 'WEFT_KERNEL_FEATURE_MISSING') throw error;
  }
  return { release: release(), has };
}

function probeIn(kernel: Prober, ns: NsPath, has: Record<string, boolean>): void {
  const works = (op: Step['ops'][number]): boolean => kernel.run([{ ns, ops: [op] }]).failures.length === 0;
  for (const link of links) has[link.type ?? ''] = works({ op: 'link.create', link });
  has.policy_routing = works({
    op: 'rule.add',
    rule: { kind: 'rule', family: 4, priority: 100, table: 100 },
  });
  works({ op: 'address.replace', address: { kind: 'address', dev: 'veth0', address: '192.0.2.1/24' } });
  has.multipath = works({
    op: 'route.replace',
    route: {
      kind: 'route',
      dst: '198.51.100.0/24',
      nexthops: ['192.0.2.2', '192.0.2.3'].map((via) => ({ via, dev: 'veth0', onlink: true })),
    },
  });
  for (const [feature, ruleset] of rulesets) has[feature] = succeeds(() => kernel.nftApply(ns, ruleset));
  has.conntrack = succeeds(() => kernel.conntrack(ns));
}

function succeeds(fn: () => unknown): boolean {
  try {
    fn();
    return true;
  } catch (error) {
    if (error instanceof WeftError) return false;
    throw error;
  }
}
