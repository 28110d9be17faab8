/**
 * Which node a pod goes to: the part of kube-scheduler that a network lab needs, as one pure function. Pods spread: of the
 * nodes that may take it, the one with the fewest pods, and among equals the first by name.
 *
 * Source: https://kubernetes.io/docs/concepts/scheduling-eviction/kube-scheduler/, …/taint-and-toleration/
 */
import type { Node, Pod, Taint } from '../api/types.ts';

export type Choice = { node: string } | { reason: string };

type Toleration = NonNullable<Pod['spec']['tolerations']>[number];

/** `pods`: all pods of the cluster; those that have ended or have no node do not count. */
export function chooseNode(pod: Pod, nodes: Iterable<Node>, pods: Iterable<Pod>): Choice {
  const load = podsPerNode(pods);
  const refusals = new Map<string, number>();
  let best: { name: string; load: number } | undefined;
  let total = 0;
  for (const node of nodes) {
    total++;
    const why = refusal(pod, node);
    if (why) {
      refusals.set(why, (refusals.get(why) ?? 0) + 1);
      continue;
    }
    const { name } = node.metadata;
    const its = load.get(name) ?? 0;
    if (!best || its < best.load || (its === best.load && compareNames(name, best.name) < 0))
      best = { name, load: its };
  }
  if (best) return { node: best.name };
  const reasons = [...refusals].map(([why, count]) => `${count} ${why}`).sort();
  return { reason: `0/${total} nodes are available${reasons.length > 0 ? `: ${reasons.join(', ')}` : ''}.` };
}

/** node-2 before node-10. */
export function compareNames(a: string, b: string): number {
  return a.localeCompare(b, 'en', { numeric: true });
}

function podsPerNode(pods: Iterable<Pod>): Map<string, number> {
  const load = new Map<string, number>();
  for (const { spec, status } of pods) {
    if (!spec.nodeName || status?.phase === 'Succeeded' || status?.phase === 'Failed') continue;
    load.set(spec.nodeName, (load.get(spec.nodeName) ?? 0) + 1);
  }
  return load;
}

/** Why the node may not take the pod, in kube-scheduler's words. */
function refusal(pod: Pod, node: Node): string | undefined {
  if (node.metadata.deletionTimestamp) return 'node(s) were being removed';
  const ready = node.status?.conditions?.find(({ type }) => type === 'Ready');
  if (ready?.status !== 'True') return 'node(s) were not ready';
  const tolerations = pod.spec.tolerations ?? [];
  const taints = [...(node.spec?.taints ?? [])];
  if (node.spec?.unschedulable)
    taints.push({ key: 'node.kubernetes.io/unschedulable', effect: 'NoSchedule' });
  const untolerated = taints.find(
    (taint) =>
      taint.effect !== 'PreferNoSchedule' && !tolerations.some((toleration) => tolerates(toleration, taint)),
  );
  if (untolerated?.key === 'node.kubernetes.io/unschedulable') return 'node(s) were unschedulable';
  if (untolerated) return `node(s) had untolerated taint {${untolerated.key}: ${untolerated.value ?? ''}}`;
  for (const [key, value] of Object.entries(pod.spec.nodeSelector ?? {})) {
    if (node.metadata.labels?.[key] !== value) return "node(s) didn't match Pod's node affinity/selector";
  }
  return undefined;
}

export function tolerates(toleration: Toleration, taint: Taint): boolean {
  if (toleration.effect && toleration.effect !== taint.effect) return false;
  if (!toleration.key) return toleration.operator === 'Exists'; // an empty key with Exists matches everything
  if (toleration.key !== taint.key) return false;
  return toleration.operator === 'Exists' || (toleration.value ?? '') === (taint.value ?? '');
}
