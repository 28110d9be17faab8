/**
 * What of a plan is not in the kernel. Pure: plan and dumps in, differences out, in words that an Event can carry.
 *
 * The node's side is compared in full. Of the sandbox's side only what the plan says is asked for: other plugins of a chain
 * and the pod itself may add more (CNI 1.1.0, CHECK: "must allow for a later chained plugin to have modified
 * networking resources").
 */
import {
  type Address,
  type Link,
  type Neighbour,
  type NetObject,
  netObjectKey,
  type Route,
} from '../../base/net-objects.ts';
import type { AttachPlan, Sysctl } from '../../state/attachment.ts';

export interface Difference {
  side: 'host' | 'pod';
  /** The object's key (net-objects.ts), e.g. `route 254 10.1.0.5/32 0`. */
  key: string;
  /** e.g. `route 10.1.0.5/32 dev weft0123456789a is missing`. */
  text: string;
}

/** What a namespace holds, by the kernel's keys. */
export class Observed {
  readonly #objects = new Map<string, NetObject>();

  constructor(objects: Iterable<NetObject>) {
    for (const object of objects) this.#objects.set(netObjectKey(object), object);
  }

  find<T extends NetObject>(wanted: T): T | undefined {
    return this.#objects.get(netObjectKey(wanted)) as T | undefined;
  }

  link(name: string): Link | undefined {
    return this.#objects.get(`link ${name}`) as Link | undefined;
  }

  *links(): IterableIterator<Link> {
    for (const object of this.#objects.values()) if (object.kind === 'link') yield object;
  }
}

/** Differences of the node's side, sysctls excepted: those are no objects, and cost a read each. */
export function hostDifferences(plan: AttachPlan, host: Observed): Difference[] {
  const { link } = plan;
  const found = host.link(link.name);
  if (!found) return [missing('host', link)];
  return [
    ...linkDifferences('host', link, found, ['type', 'mac', 'mtu', 'group', 'alias', 'up']),
    ...plan.host.neighbours.flatMap((n) => neighbourDifferences('host', n, host)),
    ...plan.host.routes.flatMap((r) => routeDifferences('host', r, host)),
  ];
}

/** Differences of sysctls of the node's side; `found` lacks what is not there, which is then no matter of its value. */
export function sysctlDifferences(
  wanted: readonly Sysctl[],
  found: ReadonlyMap<string, string>,
): Difference[] {
  return wanted.flatMap(({ path, value }) => {
    const now = found.get(path);
    if (now === undefined || now === value) return [];
    return [{ side: 'host', key: `sysctl ${path}`, text: `sysctl ${path} is ${now} instead of ${value}` }];
  });
}

/** Differences of the sandbox's side. */
export function podDifferences(plan: AttachPlan, pod: Observed): Difference[] {
  const peer = plan.link.peer!;
  const wanted: Link = { kind: 'link', name: peer.name, type: 'veth', up: true };
  if (peer.mac !== undefined) wanted.mac = peer.mac;
  const found = pod.link(peer.name);
  if (!found) return [missing('pod', wanted)];
  return [
    ...linkDifferences('pod', wanted, found, ['type', 'mac', 'up']),
    ...plan.pod.addresses.flatMap((a) => (pod.find<Address>(a) ? [] : [missing('pod', a)])),
    ...plan.pod.neighbours.flatMap((n) => neighbourDifferences('pod', n, pod)),
    ...plan.pod.routes.flatMap((r) => routeDifferences('pod', r, pod)),
  ];
}

function linkDifferences(
  side: Difference['side'],
  wanted: Link,
  found: Link,
  fields: Array<'type' | 'mac' | 'mtu' | 'group' | 'alias' | 'up'>,
): Difference[] {
  return fields
    .filter((field) => wanted[field] !== undefined && wanted[field] !== found[field])
    .map((field) => ({
      side,
      key: netObjectKey(wanted),
      text:
        field === 'up'
          ? `${describe(wanted)} is down`
          : `${describe(wanted)} has ${field} ${found[field] ?? 'none'} instead of ${wanted[field]}`,
    }));
}

function neighbourDifferences(side: Difference['side'], wanted: Neighbour, at: Observed): Difference[] {
  const found = at.find(wanted);
  if (!found) return [missing(side, wanted)];
  if (found.mac === wanted.mac && found.state === 'permanent') return [];
  const text = `${describe(wanted)} is ${found.mac ?? 'unresolved'} ${found.state ?? ''} instead of ${wanted.mac} permanent`;
  return [{ side, key: netObjectKey(wanted), text }];
}

function routeDifferences(side: Difference['side'], wanted: Route, at: Observed): Difference[] {
  const found = at.find(wanted);
  if (!found) return [missing(side, wanted)];
  if (found.dev === wanted.dev && found.via === wanted.via && !found.nexthops) return [];
  const way = [found.type, found.via && `via ${found.via}`, found.dev && `dev ${found.dev}`].filter(Boolean);
  return [
    {
      side,
      key: netObjectKey(wanted),
      text: `route ${wanted.dst} goes ${way.join(' ')} instead of ${wanted.via ? `via ${wanted.via} ` : ''}dev ${wanted.dev}`,
    },
  ];
}

function missing(side: Difference['side'], wanted: NetObject): Difference {
  return { side, key: netObjectKey(wanted), text: `${describe(wanted)} is missing` };
}

function describe(object: NetObject): string {
  switch (object.kind) {
    case 'link':
      return `link ${object.name}`;
    case 'address':
      return `address ${object.address} on ${object.dev}`;
    case 'route':
      return `route ${object.dst} dev ${object.dev}`;
    case 'neighbour':
      return `neighbour ${object.dst} on ${object.dev}`;
    default:
      return netObjectKey(object);
  }
}
