/** A lab of Weft's for a benchmark: made, used and removed by the command line, as a user would. */
import { readdirSync, statSync } from 'node:fs';
import path from 'node:path';
import { AGENT_NODE_FLAGS } from '../src/agent/node-flags.ts';
import { labPaths, STATE } from '../src/lab/paths.ts';
import type { Endpoint } from './path-probe.ts';
import { run, type Scope } from './scope.ts';

const HOME = path.join(import.meta.dirname, '..');
/** The command line without the launcher. */
const node = (...flags: string[]): string[] => [
  process.execPath,
  '--disable-warning=ExperimentalWarning',
  ...flags,
  path.join(HOME, 'src/cli/main.ts'),
];
export const WEFT = node();
/** As the launcher and the lab start an agent. */
export const WEFT_AGENT = [...node(...AGENT_NODE_FLAGS), 'agent'];
/** The launcher, as a user starts it. */
export const LAUNCHER = path.join(HOME, 'weft');
const UP_MS = 60_000;
const DOWN_MS = 60_000;

/** A name for a lab of this run, which is taken down at the end; labs of benchmarks that were killed go at once. */
export async function labName(scope: Scope): Promise<string> {
  await removeStaleLabs();
  const name = `bench${process.pid}`;
  scope.defer(`remove lab ${name}`, () => down(name));
  return name;
}

export async function down(name: string): Promise<void> {
  if (!statSync(labPaths(name).state, { throwIfNoEntry: false })) return;
  await run([...WEFT, 'down', '--lab', name], { timeout: DOWN_MS });
}

async function removeStaleLabs(): Promise<void> {
  let names: string[] = [];
  try {
    names = readdirSync(STATE);
  } catch {
    // There never was a lab here.
  }
  for (const name of names) {
    const pid = /^bench(\d+)$/.exec(name)?.[1];
    if (pid !== undefined && !statSync(`/proc/${pid}`, { throwIfNoEntry: false })) await down(name);
  }
}

export interface WeftLab {
  node(number: number): string;
  pod(node: number, number: number): Endpoint;
}

interface PodList {
  items: Array<{ metadata: { name: string; uid: string }; status: { podIP?: string } }>;
}

/** A two-node lab with two pods on each node that run nothing but wait. */
export async function upWithPods(scope: Scope, lab: string, fabric: 'vxlan' | 'host-gw'): Promise<WeftLab> {
  await scope.run([...WEFT, 'up', '--lab', lab, '--nodes', '2', '--fabric', fabric, '--no-verify'], {
    timeout: UP_MS,
  });
  const paths = labPaths(lab);
  const kubectl = async (args: string[], stdin?: string): Promise<string> => {
    const argv = ['kubectl', '--kubeconfig', paths.kubeconfig, ...args];
    return (await scope.run(argv, { timeout: UP_MS, ...(stdin !== undefined && { stdin }) })).stdout;
  };
  const podName = (node: number, number: number): string => `bench-${node}-${number}`;
  const pods = [1, 2].flatMap((node) =>
    [1, 2].map((number) => ({
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: podName(node, number), labels: { app: 'weft-bench' } },
      spec: { nodeName: `node-${node}`, containers: [{ name: 'main', image: 'pause' }] },
    })),
  );
  await kubectl(['apply', '-f', '-'], JSON.stringify({ apiVersion: 'v1', kind: 'List', items: pods }));
  const selected = ['pods', '-l', 'app=weft-bench'];
  await kubectl(['wait', '--for=condition=Ready', ...selected, '--timeout=30s']);
  const { items } = JSON.parse(await kubectl(['get', ...selected, '-o', 'json'])) as PodList;
  return {
    node: (number) => paths.node(`node-${number}`).netns,
    pod: (node, number) => {
      const name = podName(node, number);
      const found = items.find((item) => item.metadata.name === name);
      if (!found?.status.podIP) throw new Error(`pod ${name} has no address`);
      return { netns: paths.podNetns(found.metadata.uid), address: found.status.podIP };
    },
  };
}
