/** Calls of the CNI plugin as it is installed on a node, as a runtime makes them. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { nodeExec } from '../lab.ts';
import { NETNS } from '../paths.ts';
import type { TestLab } from './test-lab.ts';

export interface CniAnswer {
  exit: number;
  /** Milliseconds. */
  took: number;
  /** What it printed: a result or an error object. */
  value: { code?: number; msg?: string; ips?: Array<{ address: string }>; supportedVersions?: string[] };
}

/** A container's network namespace that no pod of the lab has; it goes with the lab, or by {@link removeSandbox}. */
export function makeSandbox(lab: TestLab, name: string): string {
  execFileSync('ip', ['netns', 'add', `${lab.paths.netnsPrefix}${name}`]);
  return `${NETNS}/${lab.paths.netnsPrefix}${name}`;
}

export function removeSandbox(path: string): void {
  execFileSync('ip', ['netns', 'del', path.slice(NETNS.length + 1)]);
}

export async function cniCall(
  lab: TestLab,
  node: string,
  command: 'ADD' | 'DEL' | 'CHECK' | 'STATUS' | 'VERSION' | 'GC',
  container?: { id: string; netns: string },
  more: Record<string, unknown> = {},
): Promise<CniAnswer> {
  const list = JSON.parse(readFileSync(`${lab.paths.node(node).cniConf}/10-weft.conflist`, 'utf8')) as {
    name: string;
    cniVersions: string[];
    plugins: Array<Record<string, unknown>>;
  };
  // The newest, as libcni picks it from 1.1 on.
  const config = {
    ...list.plugins[0],
    name: list.name,
    cniVersion: list.cniVersions.toSorted().at(-1),
    ...more,
  };
  const variables = [
    `CNI_COMMAND=${command}`,
    'CNI_PATH=/opt/cni/bin',
    ...(container
      ? [`CNI_CONTAINERID=${container.id}`, `CNI_NETNS=${container.netns}`, 'CNI_IFNAME=eth0']
      : []),
  ];
  const began = performance.now();
  const { code, stdout, stderr } = await nodeExec(
    lab.name,
    node,
    ['env', ...variables, '/opt/cni/bin/weft-cni'],
    {
      stdin: JSON.stringify(config),
    },
  );
  const took = performance.now() - began;
  try {
    return { exit: code, took, value: stdout ? (JSON.parse(stdout) as CniAnswer['value']) : {} };
  } catch {
    throw new Error(`${command}: exit ${code}, not JSON: ${stdout}${stderr}`);
  }
}

export const ipsIn = (answer: CniAnswer): string[] =>
  answer.value.ips?.map(({ address }) => address.split('/')[0]!) ?? [];
