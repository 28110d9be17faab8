/** Desired objects and what the kernel holds → the operations between them, in an order in which each can succeed. */
import { type Link, type NetObject, netObjectKey, type Route, routeMetric } from '../../base/net-objects.ts';
import type { Op } from '../../kernel/types.ts';
import type { Sysctl } from '../../state/attachment.ts';
import {
  type Difference,
  describeDifferences,
  differences,
  MUTABLE_LINK_FIELDS,
  needsNewLink,
} from './differences.ts';
import { Ownership } from './ownership.ts';

/** One operation and what it is for: the key of an object, or `sysctl <path>`. */
export interface PlannedOp {
  key: string;
  op: Op;
}

export interface Deviation {
  key: string;
  object: NetObject;
  what: 'missing' | 'changed' | 'extra';
  /** `mtu 1400 instead of 1450`; empty for missing and extra. */
  detail: string;
  /** It went with the device it stands on. */
  collateral?: true;
}

export interface Diff {
  ops: PlannedOp[];
  deviations: Deviation[];
  /** Our routes that lose against somebody else's for the same prefix. */
  shadowed: Array<{ route: Route; by: Route }>;
}

/** Later classes stand on earlier ones. Deletes go the other way. */
const RANK: Record<NetObject['kind'], number> = {
  link: 0,
  address: 1,
  fdb: 2,
  neighbour: 3,
  route: 4,
  rule: 5,
};

/**
 * Everything is made before anything is removed, so that traffic always has a way; only a device that has to be replaced
 * goes first, because name and VNI can exist once, and with it all that stood on it is made anew.
 */
export function diff(
  desired: ReadonlyMap<string, NetObject>,
  observed: readonly NetObject[],
  sysctls: readonly Sysctl[] = [],
  current: ReadonlyMap<string, string | undefined> = new Map(),
): Diff {
  const links = [...desired.values()].filter((object) => object.kind === 'link');
  const ownership = new Ownership(
    observed,
    links.map((link) => link.name),
  );
  const present = new Map<string, NetObject[]>();
  for (const object of observed) {
    const key = netObjectKey(object);
    const others = present.get(key);
    if (others) others.push(object);
    else present.set(key, [object]);
  }

  const deviations: Deviation[] = [];
  const replaced = new Set<string>();
  const linkOps: PlannedOp[] = [];
  for (const link of links) {
    const key = netObjectKey(link);
    const actual = present.get(key)?.[0] as Link | undefined;
    const found = actual === undefined ? [] : differences(link, actual);
    if (actual === undefined || needsNewLink(found)) {
      if (actual !== undefined) linkOps.push({ key, op: { op: 'link.delete', name: link.name } });
      replaced.add(link.name);
      linkOps.push(...createLink(link, deviceSysctls(link.name, sysctls, new Map())));
    } else linkOps.push(...changeLink(link, found, deviceSysctls(link.name, sysctls, current)));
    note(deviations, link, actual === undefined ? undefined : found);
  }

  const made: PlannedOp[] = [];
  for (const [key, object] of desired) {
    if (object.kind === 'link') continue;
    const collateral = standsOn(object, replaced);
    const candidates = collateral ? [] : (present.get(key) ?? []);
    // IPv6 can hold several routes of one key; one that is as desired is enough, the others are pruned below.
    const found = candidates.map((candidate) => differences(object, candidate));
    if (found.some((list) => list.length === 0)) continue;
    made.push({ key, op: makeOp(object) });
    if (object.kind === 'rule' && candidates[0]?.kind === 'rule') {
      made.splice(-1, 0, { key, op: { op: 'rule.delete', rule: candidates[0] } });
    }
    note(deviations, object, found[0], collateral);
  }
  made.sort((a, b) => rankOf(desired, a) - rankOf(desired, b));

  const removed: NetObject[] = [];
  for (const [key, objects] of present) {
    const wanted = desired.get(key);
    const left = objects.filter((object) => !standsOn(object, replaced));
    // What is wanted stays: the one that is as desired, or else the first, whose place `replace` takes.
    const equal = wanted && left.find((object) => differences(wanted, object).length === 0);
    const kept = wanted && (equal ?? left[0]);
    for (const object of left) {
      if (object === kept || !ownership.owns(object)) continue;
      removed.push(object);
      deviations.push({ key, object, what: 'extra', detail: '' });
    }
  }
  removed.sort((a, b) => RANK[b.kind] - RANK[a.kind]);

  return {
    ops: [
      ...globalSysctls(links, sysctls, current),
      ...linkOps,
      ...made,
      ...removed.map((object) => ({ key: netObjectKey(object), op: removeOp(object) })),
    ],
    deviations,
    shadowed: shadowed(desired, observed),
  };
}

function note(
  deviations: Deviation[],
  object: NetObject,
  found: Difference[] | undefined,
  collateral = false,
): void {
  const key = netObjectKey(object);
  if (found === undefined) {
    deviations.push({ key, object, what: 'missing', detail: '', ...(collateral && { collateral }) });
  } else if (found.length > 0) {
    deviations.push({ key, object, what: 'changed', detail: describeDifferences(found) });
  }
}

/** Not up until its settings are in place: coming up makes addresses and announces them. */
function createLink(link: Link, sysctls: PlannedOp[]): PlannedOp[] {
  const key = netObjectKey(link);
  const { up, addrGenMode, ...create } = link;
  const ops: PlannedOp[] = [{ key, op: { op: 'link.create', link: create } }];
  // IFLA_IFALIAS and IFLA_AF_SPEC count only on a change (net/core/rtnetlink.c, do_setlink).
  const { name, alias } = link;
  if (alias !== undefined || addrGenMode !== undefined) {
    const link = { name, ...(alias !== undefined && { alias }), ...(addrGenMode && { addrGenMode }) };
    ops.push({ key, op: { op: 'link.set', link } });
  }
  ops.push(...sysctls);
  if (up) ops.push({ key, op: { op: 'link.set', link: { name, up: true } } });
  return ops;
}

function changeLink(link: Link, found: Difference[], sysctls: PlannedOp[]): PlannedOp[] {
  const changed = new Set(found.map(({ field }) => field));
  const set: Partial<Link> & { name: string } = { name: link.name };
  for (const field of MUTABLE_LINK_FIELDS) {
    if (field !== 'up' && changed.has(field)) Object.assign(set, { [field]: link[field] });
  }
  const key = netObjectKey(link);
  const ops: PlannedOp[] = Object.keys(set).length > 1 ? [{ key, op: { op: 'link.set', link: set } }] : [];
  ops.push(...sysctls);
  if (changed.has('up') && link.up !== undefined) {
    ops.push({ key, op: { op: 'link.set', link: { name: link.name, up: link.up } } });
  }
  return ops;
}

export function makeOp(object: Exclude<NetObject, Link>): Op {
  switch (object.kind) {
    case 'address':
      return { op: 'address.replace', address: object };
    case 'route':
      return { op: 'route.replace', route: object };
    case 'rule':
      return { op: 'rule.add', rule: object };
    case 'neighbour':
      return { op: 'neighbour.replace', neighbour: object };
    case 'fdb':
      return { op: 'fdb.replace', fdb: object };
  }
}

export function removeOp(object: NetObject): Op {
  switch (object.kind) {
    case 'link':
      return { op: 'link.delete', name: object.name };
    case 'address':
      return { op: 'address.delete', address: object };
    case 'route':
      return { op: 'route.delete', route: object };
    case 'rule':
      return { op: 'rule.delete', rule: object };
    case 'neighbour':
      return { op: 'neighbour.delete', neighbour: object };
    case 'fdb':
      return { op: 'fdb.delete', fdb: object };
  }
}

/** Order in which objects are made; deletes go by its negative. */
export function rank(object: NetObject): number {
  return RANK[object.kind];
}

function rankOf(desired: ReadonlyMap<string, NetObject>, planned: PlannedOp): number {
  const object = desired.get(planned.key);
  return object === undefined ? 0 : RANK[object.kind];
}

/** Whether the object goes when one of these devices goes. */
function standsOn(object: NetObject, devices: ReadonlySet<string>): boolean {
  if (devices.size === 0) return false;
  switch (object.kind) {
    case 'link':
      return devices.has(object.name);
    case 'rule':
      return false;
    case 'route':
      return (object.nexthops?.map((hop) => hop.dev) ?? [object.dev]).some(
        (dev) => dev !== undefined && devices.has(dev),
      );
    default:
      return devices.has(object.dev);
  }
}

const deviceOf = (path: string): string | undefined =>
  /^net\/ipv[46]\/(?:conf|neigh)\/([^/]+)\//.exec(path)?.[1];

function writes(sysctls: Iterable<Sysctl>, current: ReadonlyMap<string, string | undefined>): PlannedOp[] {
  const ops: PlannedOp[] = [];
  for (const { path, value, when } of sysctls) {
    const now = current.get(path);
    if (now === value || (when !== undefined && now !== when)) continue;
    ops.push({ key: `sysctl ${path}`, op: { op: 'sysctl.write', path, value } });
  }
  return ops;
}

function deviceSysctls(
  name: string,
  sysctls: readonly Sysctl[],
  current: ReadonlyMap<string, string | undefined>,
): PlannedOp[] {
  return writes(
    sysctls.filter(({ path }) => deviceOf(path) === name),
    current,
  );
}

/** In the order given: a plan that needs one before another says so by its order. */
function globalSysctls(
  links: readonly Link[],
  sysctls: readonly Sysctl[],
  current: ReadonlyMap<string, string | undefined>,
): PlannedOp[] {
  const own = new Set(links.map((link) => link.name));
  return writes(
    sysctls.filter(({ path }) => !own.has(deviceOf(path) ?? '')),
    current,
  );
}

/** A route wins over ours for the same prefix and table when its metric is lower (net/ipv4/fib_trie.c, fib_find_alias). */
function shadowed(desired: ReadonlyMap<string, NetObject>, observed: readonly NetObject[]): Diff['shadowed'] {
  const ours = new Map<string, Route>();
  const prefix = (route: Route): string => `${route.table ?? 254} ${route.dst}`;
  for (const object of desired.values()) {
    if (object.kind === 'route' && (object.type ?? 'unicast') === 'unicast') ours.set(prefix(object), object);
  }
  const found: Diff['shadowed'] = [];
  for (const object of observed) {
    if (object.kind !== 'route') continue;
    const route = ours.get(prefix(object));
    if (route && routeMetric(object) < routeMetric(route)) found.push({ route, by: object });
  }
  return found;
}
