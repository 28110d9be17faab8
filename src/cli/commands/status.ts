/** `weft status`: what there is of a lab, for people or as JSON. */
import type { Node, Pod } from '../../api/types.ts';
import { WeftError } from '../../base/errors.ts';
import { labReachability, labStatus, renderReachability } from '../../lab/lab.ts';

export async function status(options: { lab: string; output: string; matrix?: boolean }): Promise<void> {
  if (!['text', 'json'].includes(options.output)) {
    throw new WeftError(
      'WEFT_BAD_CONFIG',
      `there is no output form ${options.output}; there are text and json`,
    );
  }
  const lab = await labStatus(options.lab);
  const reachability = options.matrix ? await labReachability(options.lab) : undefined;
  if (options.output === 'json') {
    process.stdout.write(
      `${JSON.stringify({ ...lab, ...(reachability && { reachability }) }, undefined, 2)}\n`,
    );
    return;
  }
  const lines = [
    `lab ${lab.name}: ${lab.record.spec.nodes} nodes, fabric ${lab.record.spec.fabric}, made ${lab.record.createdAt}`,
    `kubeconfig ${lab.kubeconfig}`,
  ];
  if (!lab.daemon) lines.push('its daemon does not run; `weft up` with the same options brings it back');
  else {
    lines.push(
      '',
      ...table(
        ['PROCESS', 'PID', 'RESTARTS'],
        lab.daemon.processes.map((p) => [p.role, String(p.pid ?? '–'), String(p.restarts)]),
      ),
    );
  }
  if (!lab.nodes || !lab.pods) lines.push('', 'its API server does not answer');
  else {
    lines.push('', ...table(['NODE', 'READY', 'ADDRESSES', 'POD CIDRS'], lab.nodes.map(nodeRow)));
    lines.push(
      '',
      ...table(['NAMESPACE', 'POD', 'PHASE', 'READY', 'NODE', 'ADDRESSES'], lab.pods.map(podRow)),
    );
  }
  process.stdout.write(`${lines.join('\n')}\n`);
  if (reachability) process.stdout.write(`\n${renderReachability(reachability)}\n`);
}

function nodeRow(node: Node): string[] {
  const ready = node.status?.conditions?.find((condition) => condition.type === 'Ready');
  const addresses =
    node.status?.addresses?.filter(({ type }) => type === 'InternalIP').map(({ address }) => address) ?? [];
  return [
    node.metadata.name,
    ready ? (ready.status === 'True' ? 'yes' : `no: ${ready.message ?? ready.reason ?? ''}`) : 'unknown',
    addresses.join(' '),
    (node.spec?.podCIDRs ?? []).join(' '),
  ];
}

function podRow(pod: Pod): string[] {
  const statuses = pod.status?.containerStatuses ?? [];
  return [
    pod.metadata.namespace ?? '',
    pod.metadata.name,
    pod.metadata.deletionTimestamp ? 'Terminating' : (pod.status?.phase ?? 'Pending'),
    `${statuses.filter(({ ready }) => ready).length}/${pod.spec.containers.length}`,
    pod.spec.nodeName ?? '–',
    (pod.status?.podIPs ?? []).map(({ ip }) => ip).join(' '),
  ];
}

function table(head: string[], rows: string[][]): string[] {
  const all = [head, ...rows];
  const widths = head.map((_, column) => Math.max(...all.map((row) => (row[column] ?? '').length)));
  return all.map((row) =>
    row
      .map((text, column) => text.padEnd(widths[column]!))
      .join('  ')
      .trimEnd(),
  );
}
