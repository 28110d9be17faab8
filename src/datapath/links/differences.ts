/**
 * In what an object of the kernel differs from the desired one. Only what is desired is compared: the kernel reports much
 * that nobody asked for.
 */
import { familyOf } from '../../base/ip.ts';
import type { Link, NetObject, Route, VxlanOptions } from '../../base/net-objects.ts';
import { WEFT_PROTOCOL } from '../../base/net-objects.ts';
import { structurallyEqual } from '../../state/equal.ts';

export interface Difference {
  field: string;
  /** JSON values; undefined: absent. */
  desired: unknown;
  actual: unknown;
}

/** Both objects have the same key. Empty: the kernel holds what is desired. */
export function differences(desired: NetObject, actual: NetObject): Difference[] {
  const found: Difference[] = [];
  const compare = (field: string, a: unknown, b: unknown): void => {
    if (!structurallyEqual(a, b)) found.push({ field, desired: a, actual: b });
  };
  const compareIfSet = (field: string, a: unknown, b: unknown): void => {
    if (a !== undefined) compare(field, a, b);
  };
  switch (desired.kind) {
    case 'link': {
      const link = actual as Link;
      for (const field of ['type', ...MUTABLE_LINK_FIELDS] as const) {
        compareIfSet(field, desired[field], link[field]);
      }
      for (const [field, value] of Object.entries(desired.vxlan ?? {})) {
        compareIfSet(`vxlan.${field}`, value, link.vxlan?.[field as keyof VxlanOptions]);
      }
      break;
    }
    case 'address': {
      const address = actual as typeof desired;
      compareIfSet('scope', desired.scope, address.scope);
      compare('peer', desired.peer, address.peer);
      if (address.flags?.includes('dadfailed')) compare('dadfailed', false, true);
      break;
    }
    case 'route': {
      const want = normalRoute(desired);
      const have = normalRoute(actual as Route);
      for (const field of Object.keys(want) as Array<keyof typeof want>)
        compare(field, want[field], have[field]);
      break;
    }
    case 'rule': {
      const rule = actual as typeof desired;
      compare('protocol', desired.protocol ?? WEFT_PROTOCOL, rule.protocol);
      compare('suppressPrefixLength', desired.suppressPrefixLength, rule.suppressPrefixLength);
      break;
    }
    case 'neighbour': {
      const neighbour = actual as typeof desired;
      compareIfSet('mac', desired.mac, neighbour.mac);
      compareIfSet('state', desired.state, neighbour.state);
      break;
    }
    case 'fdb': {
      const fdb = actual as typeof desired;
      compareIfSet('state', desired.state, fdb.state);
      compareIfSet('port', desired.port, fdb.port);
      compareIfSet('vni', desired.vni, fdb.vni);
      break;
    }
  }
  return found;
}

/** Link attributes that change in place; the rest (type, VXLAN parameters) needs a new device. */
export const MUTABLE_LINK_FIELDS = ['mac', 'mtu', 'alias', 'group', 'txqlen', 'addrGenMode', 'up'] as const;

export function needsNewLink(found: Difference[]): boolean {
  return found.some(({ field }) => field === 'type' || field.startsWith('vxlan.'));
}

/** A route with the kernel's defaults filled in, and without what it makes up. */
function normalRoute(route: Route): {
  type: string;
  protocol: number;
  src: unknown;
  mtu: unknown;
  hops: unknown;
} {
  const type = route.type ?? 'unicast';
  const hops = route.nexthops ?? [{ via: route.via, dev: route.dev, onlink: route.onlink }];
  return {
    type,
    protocol: route.protocol ?? WEFT_PROTOCOL,
    src: route.src,
    mtu: route.mtu,
    // IPv6 reports `dev lo` for routes that lead nowhere (net/ipv6/route.c).
    hops:
      type === 'unicast'
        ? hops.map((hop) => ({
            via: hop.via,
            dev: hop.dev,
            // Without meaning for a link-local next hop.
            onlink: familyOf(route.dst) === 4 ? (hop.onlink ?? false) : undefined,
            weight: hops.length > 1 ? ((hop as { weight?: number }).weight ?? 1) : undefined,
          }))
        : [],
  };
}

/** `mtu 1400 instead of 1450`: for logs and Events. */
export function describeDifferences(found: Difference[]): string {
  const text = (value: unknown): string =>
    value === undefined ? 'none' : typeof value === 'string' ? value : JSON.stringify(value);
  return found
    .map(({ field, desired, actual }) => `${field} ${text(actual)} instead of ${text(desired)}`)
    .join(', ');
}
