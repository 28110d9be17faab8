/**
 * What this machine's underlay is: which device carries each node address, with its MTU and the prefixes directly on it.
 * Pure over a dump of the kernel, so that every odd machine can be a table row in the test.
 */
import { WeftError } from '../base/errors.ts';
import { canonicalCidr, cidrContains, type Family, familyOf, type Ip, parseCidr } from '../base/ip.ts';
import type { Address, Link, NetObject, Route } from '../base/net-objects.ts';
import { POD_LINK_GROUP } from '../base/net-objects.ts';
import type { Underlay } from '../state/fabric-plan.ts';

export interface UnderlayView {
  /** At most one per family, IPv4 first. */
  nodeIPs: Ip[];
  underlays: Underlay[];
}

/**
 * `wanted` empty: per family, the address on the device of the default route with the lowest metric, the first global
 * one that is neither temporary nor deprecated. Otherwise exactly those addresses, which must be there.
 *
 * @throws WEFT_NO_UNDERLAY when a wanted address is on no device, or there is neither address nor default route
 */
export function findUnderlay(objects: NetObject[], wanted: Ip[]): UnderlayView {
  const links = new Map<string, Link>();
  const addresses: Address[] = [];
  const routes: Route[] = [];
  for (const object of objects) {
    if (object.kind === 'link' && object.group !== POD_LINK_GROUP && !object.name.startsWith('weft')) {
      links.set(object.name, object);
    } else if (object.kind === 'address') addresses.push(object);
    else if (object.kind === 'route') routes.push(object);
  }

  const chosen: Address[] =
    wanted.length > 0
      ? wanted.map((ip) => {
          const found = addresses.find((a) => parseCidr(a.address).ip === ip && links.has(a.dev));
          if (!found) {
            throw new WeftError(
              'WEFT_NO_UNDERLAY',
              `the node address ${ip} is on no interface of this machine`,
              {
                details: { address: ip, interfaces: [...links.keys()] },
              },
            );
          }
          return found;
        })
      : ([4, 6] as const).flatMap((family) => defaultAddress(family, links, addresses, routes) ?? []);
  if (chosen.length === 0) {
    throw new WeftError('WEFT_NO_UNDERLAY', 'no default route tells which interface carries the cluster', {
      hint: 'Set nodeIPs in the agent configuration.',
      details: { interfaces: [...links.keys()] },
    });
  }
  chosen.sort((a, b) => familyOf(a.address) - familyOf(b.address));

  const underlays = new Map<string, Underlay>();
  for (const { dev } of chosen) {
    const onLink = addresses
      .filter((a) => a.dev === dev && a.scope !== 'link' && a.scope !== 'host' && !isHostPrefix(a.address))
      .map((a) => canonicalCidr(a.address));
    underlays.set(dev, { dev, mtu: links.get(dev)?.mtu ?? 1500, onLink: [...new Set(onLink)] });
  }
  return { nodeIPs: chosen.map((a) => parseCidr(a.address).ip), underlays: [...underlays.values()] };
}

function defaultAddress(
  family: Family,
  links: Map<string, Link>,
  addresses: Address[],
  routes: Route[],
): Address | undefined {
  const everything = family === 4 ? '0.0.0.0/0' : '::/0';
  const candidates = routes
    .filter((r) => r.dst === everything && (r.table ?? 254) === 254 && (r.type ?? 'unicast') === 'unicast')
    .flatMap((r) =>
      (r.nexthops ?? [{ dev: r.dev, via: r.via }]).map((hop) => ({
        ...hop,
        src: r.src,
        metric: r.metric ?? 0,
      })),
    )
    .filter((hop) => hop.dev !== undefined && links.has(hop.dev))
    .sort((a, b) => a.metric - b.metric);
  for (const { dev, via, src } of candidates) {
    const usable = addresses.filter(
      (a) =>
        a.dev === dev &&
        familyOf(a.address) === family &&
        (a.scope ?? 'global') === 'global' &&
        !a.flags?.some((flag) => flag === 'temporary' || flag === 'deprecated' || flag === 'dadfailed'),
    );
    const best =
      usable.find((a) => src !== undefined && parseCidr(a.address).ip === src) ??
      usable.find((a) => via !== undefined && cidrContains(canonicalCidr(a.address), via)) ??
      usable[0];
    if (best) return best;
  }
  return undefined;
}

const isHostPrefix = (cidr: string): boolean => parseCidr(cidr).length === (familyOf(cidr) === 4 ? 32 : 128);
