/** What the controllers keep of API objects: a row is some tens of bytes where the object is some thousands. */
import { objectKey } from '../api/object-key.ts';
import type { Lease, Node, ObjectReference, Pod } from '../api/types.ts';

export interface NodeRow {
  /** The name. */
  key: string;
  uid: string;
  podCIDRs: string[];
  /** Of condition Ready; absent: it has none. */
  ready?: 'True' | 'False' | 'Unknown';
  readyReason?: string;
  /** `key:effect`, those of Kubernetes' node lifecycle only. */
  taints: string[];
}

export const TAINT_NOT_READY = 'node.kubernetes.io/not-ready';
export const TAINT_UNREACHABLE = 'node.kubernetes.io/unreachable';

export function toNodeRow(node: Node): NodeRow {
  const { metadata, spec, status } = node;
  const ready = status?.conditions?.find((condition) => condition.type === 'Ready');
  return {
    key: objectKey(node),
    uid: metadata.uid ?? '',
    podCIDRs: spec?.podCIDRs ?? (spec?.podCIDR ? [spec.podCIDR] : []),
    ...(ready && { ready: ready.status }),
    ...(ready?.reason !== undefined && { readyReason: ready.reason }),
    taints: (spec?.taints ?? [])
      .filter(({ key }) => key === TAINT_NOT_READY || key === TAINT_UNREACHABLE)
      .map(({ key, effect }) => `${key}:${effect}`),
  };
}

export interface LeaseRow {
  key: string;
  renewTime: string;
  /** Seconds. */
  duration: number;
}

export function toLeaseRow(lease: Lease): LeaseRow {
  return {
    key: objectKey(lease),
    renewTime: lease.spec?.renewTime ?? '',
    duration: lease.spec?.leaseDurationSeconds ?? 40,
  };
}

export interface PodRow {
  key: string;
  /** '' while it has none. */
  node: string;
  terminating: boolean;
}

/** Rows share the names of nodes: JSON.parse makes a new string for each occurrence. */
export function podRows(): (pod: Pod) => PodRow {
  const names = new Map<string, string>();
  return (pod) => {
    const name = pod.spec.nodeName ?? '';
    let node = names.get(name);
    if (node === undefined) {
      if (names.size >= 20_000) names.clear();
      names.set(name, name);
      node = name;
    }
    return { key: objectKey(pod), node, terminating: pod.metadata.deletionTimestamp !== undefined };
  };
}

export function nodeReference(name: string, uid: string): ObjectReference {
  return { apiVersion: 'v1', kind: 'Node', name, uid };
}
