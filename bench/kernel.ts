/**
 * `weft bench kernel`: what the kernel door itself costs, without plugin, agent or disk: the floor under `bench cni`, and the
 * claims that the datapath rests on (a change of an nftables map costs the same at any size).
 */
import { randomBytes } from 'node:crypto';
import { attachmentId, hostIfnameOf, macOf } from '../src/attach/names.ts';
import { planAttachment } from '../src/attach/plan-attachment.ts';
import { attachSteps } from '../src/datapath/attach/attach.ts';
import { openKernel } from '../src/kernel/kernel.ts';
import type { Kernel, NftElement, NftElementChange, Step } from '../src/kernel/types.ts';
import { machineFacts } from './machine.ts';
import { figure, type Section } from './report.ts';
import { netnsName, Scope } from './scope.ts';
import { median, quantile } from './stats.ts';

export interface KernelOptions {
  /** Pods to attach. */
  pods: number;
  progress(text: string): void;
}

const REPEAT = 200;
const ROUTES = 1000;
const SIZES = [10, 10_000];

export async function benchKernel({ pods, progress }: KernelOptions): Promise<Section> {
  await using scope = new Scope();
  const facts = machineFacts();
  const kernel = await openKernel();
  scope.defer('close the kernel door', () => kernel[Symbol.asyncDispose]());
  const namespace = async (part: string): Promise<string> => {
    const path = `/run/netns/${netnsName(part)}`;
    await kernel.netnsCreate(path);
    scope.defer(`remove ${path}`, () => kernel.netnsDelete(path));
    return path;
  };
  const node = await namespace('node');
  const rows: string[][] = [];
  const row = (what: string, micros: number[]): void => {
    rows.push([
      what,
      ...[median(micros), quantile(micros, 0.9), quantile(micros, 0.99)].map((n) => figure(n)),
    ]);
  };

  row('nothing: one message to the worker and back', await repeat(scope, REPEAT, () => kernel.run([])));

  progress(`attaching ${pods} pods`);
  const plans: Step[][] = [];
  for (let pod = 1; pod <= pods; pod++) plans.push(attachProgram(pod, node, await namespace(`pod-${pod}`)));
  const attached = await repeat(scope, pods, (i) => kernel.must(plans[i]!));
  row(`a pod attached, IPv4 and IPv6 (${pods} pods)`, attached);
  const edge = Math.max(1, Math.min(100, Math.floor(pods / 5)));
  row(`  the first ${edge}`, attached.slice(0, edge));
  row(`  the last ${edge}`, attached.slice(-edge));
  row(
    `all routes of the node read (${pods} pods)`,
    await repeat(scope, 20, () => kernel.dump(node, ['route'])),
  );

  progress('routes');
  const routes = await repeat(scope, 20, () => kernel.must([{ ns: node, ops: routeOps('route.replace') }]));
  row(
    `a route replaced, in a batch of ${ROUTES}`,
    routes.map((micros) => micros / ROUTES),
  );

  progress('nftables');
  await kernel.nftApply(
    node,
    'table inet bench {\n map m {\n type ipv4_addr . inet_service : verdict;\n }\n}\n',
  );
  let size = 0;
  for (const wanted of SIZES) {
    await change(kernel, node, 'add', elements(size, wanted - size));
    size = wanted;
    const adding = await repeat(scope, REPEAT, (i) =>
      change(kernel, node, 'add', elements(1_000_000 + i, 1)),
    );
    row(`an element added to a map of ${wanted}`, adding);
    await change(kernel, node, 'delete', elements(1_000_000, REPEAT));
  }
  return {
    name: 'kernel',
    title: 'Kernel door: what a change costs',
    command: `./weft bench kernel --pods ${pods}`,
    facts,
    tables: [{ columns: ['µs', 'median', 'p90', 'p99'], rows }],
    notes: [
      'Seen by the caller, who is another thread: from the call to its promise. Every change was acknowledged by the kernel.',
      'A pod attached: veth straight into its namespace, both ends addressed, routed and given permanent neighbours, and up.',
    ],
  };
}

/** Microseconds of each call. */
async function repeat(scope: Scope, times: number, call: (i: number) => Promise<unknown>): Promise<number[]> {
  const micros: number[] = [];
  for (let i = 0; i < times; i++) {
    if (i % 50 === 0) await scope.sleep(0);
    const began = process.hrtime.bigint();
    await call(i);
    micros.push(Number(process.hrtime.bigint() - began) / 1000);
  }
  return micros;
}

/** What the agent runs for a pod, on a node that is not the namespace of this process. */
function attachProgram(pod: number, node: string, netns: string): Step[] {
  const containerId = `bench-${randomBytes(8).toString('hex')}`;
  const id = attachmentId(containerId, 'eth0');
  const plan = planAttachment({
    ...{ id, containerId, ifname: 'eth0', network: 'bench', netns, netnsInode: 0 },
    ips: [`10.244.${pod >> 8}.${pod & 255}/32`, `fd00:10:244::${pod.toString(16)}/128`],
    ...{ mac: macOf(id), hostIfname: hostIfnameOf(id), mtu: 1500, createdAt: new Date().toISOString() },
  });
  return attachSteps(plan).map((step) => (step.ns === '' ? { ...step, ns: node } : step));
}

function routeOps(op: 'route.replace'): Step['ops'] {
  return Array.from({ length: ROUTES }, (_, i) => ({
    op,
    route: { kind: 'route' as const, dst: `192.168.${i >> 8}.${i & 255}/32`, dev: 'lo' },
  }));
}

/** Distinct keys: an address made of the number, and a port. */
function elements(from: number, count: number): NftElement[] {
  return Array.from({ length: count }, (_, i) => {
    const key = Buffer.alloc(8);
    key.writeUInt32BE(from + i);
    key.writeUInt16BE(80, 4);
    return { key, data: { code: 'accept' } };
  });
}

async function change(
  kernel: Kernel,
  ns: string,
  action: NftElementChange['action'],
  changed: NftElement[],
): Promise<void> {
  const { family, table, set } = { family: 'inet' as const, table: 'bench', set: 'm' };
  await kernel.must([
    { ns, ops: [{ op: 'nft.elements', change: { family, table, set, action, elements: changed } }] },
  ]);
}
