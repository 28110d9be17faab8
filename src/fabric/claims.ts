/**
 * Who holds which address, VTEP MAC and pod CIDR. When two nodes claim the same, exactly one keeps it, and every node of
 * the cluster picks the same one: the older, then the first by name. A node's own claims win on that node itself.
 */
import { type Cidr, cidrContains, type Family, type Ip, parseCidr } from '../base/ip.ts';
import type { FabricNode, FabricProblem } from '../state/fabric-plan.ts';

/** Index of all claims; what one node's change affects is found without looking at the others. */
export class Claims {
  readonly #self: string;
  readonly #nodes = new Map<string, FabricNode>();
  /** `ip …` and `mac …` → node names. */
  readonly #holders = new Map<string, Set<string>>();
  readonly #cidrs: Record<Family, CidrIndex> = { 4: new CidrIndex(), 6: new CidrIndex() };

  constructor(self: string) {
    this.#self = self;
  }

  add(node: FabricNode): void {
    this.#nodes.set(node.name, node);
    for (const key of exactClaims(node)) {
      const holders = this.#holders.get(key);
      if (holders) holders.add(node.name);
      else this.#holders.set(key, new Set([node.name]));
    }
    for (const cidr of node.podCIDRs) this.#indexOf(cidr).add(cidr, node.name);
  }

  remove(name: string): void {
    const node = this.#nodes.get(name);
    if (!node) return;
    this.#nodes.delete(name);
    for (const key of exactClaims(node)) {
      const holders = this.#holders.get(key);
      holders?.delete(name);
      if (holders?.size === 0) this.#holders.delete(key);
    }
    for (const cidr of node.podCIDRs) this.#indexOf(cidr).remove(cidr, name);
  }

  /** Other nodes that claim something this one claims. */
  rivals(node: FabricNode): Set<string> {
    const found = new Set<string>();
    for (const key of exactClaims(node)) for (const name of this.#holders.get(key) ?? []) found.add(name);
    for (const cidr of node.podCIDRs)
      for (const name of this.#indexOf(cidr).overlapping(cidr)) found.add(name);
    found.delete(node.name);
    return found;
  }

  /** The node with only what it may keep, and what it lost to whom. */
  settle(node: FabricNode): { node: FabricNode; problems: FabricProblem[] } {
    const problems: FabricProblem[] = [];
    const lost = (
      reason: FabricProblem['reason'],
      what: string,
      value: string,
      names: Iterable<string>,
    ): boolean => {
      let winner: FabricNode | undefined;
      for (const name of names) {
        const other = this.#nodes.get(name);
        if (other && name !== node.name && this.#precedes(other, node)) {
          if (!winner || this.#precedes(other, winner)) winner = other;
        }
      }
      if (!winner) return false;
      problems.push({
        node: node.name,
        reason,
        message: `node ${node.name} claims ${what} ${value}, which node ${winner.name} holds`,
      });
      return true;
    };
    const nodeIPs = node.nodeIPs.filter(
      (ip) => !lost('AddressClaimedTwice', 'the address', ip, this.#holders.get(`ip ${ip}`) ?? []),
    );
    const podCIDRs = node.podCIDRs.filter(
      (cidr) => !lost('PodCIDRClaimedTwice', 'the pod CIDR', cidr, this.#indexOf(cidr).overlapping(cidr)),
    );
    const { vtepMac, ...rest } = node;
    const keepsMac =
      vtepMac !== undefined &&
      !lost('VtepMacClaimedTwice', 'the VTEP MAC', vtepMac, this.#holders.get(`mac ${vtepMac}`) ?? []);
    return { node: { ...rest, nodeIPs, podCIDRs, ...(keepsMac && { vtepMac }) }, problems };
  }

  #precedes(a: FabricNode, b: FabricNode): boolean {
    if (a.name === this.#self || b.name === this.#self) return a.name === this.#self;
    // RFC 3339 in UTC, as the API server writes it, orders as text; a node of unknown age is the youngest.
    const x = a.createdAt ?? '~';
    const y = b.createdAt ?? '~';
    return x === y ? a.name < b.name : x < y;
  }

  #indexOf(cidr: Cidr): CidrIndex {
    return this.#cidrs[cidr.includes(':') ? 6 : 4];
  }
}

function exactClaims(node: FabricNode): string[] {
  const keys = node.nodeIPs.map((ip: Ip) => `ip ${ip}`);
  if (node.vtepMac !== undefined) keys.push(`mac ${node.vtepMac}`);
  return keys;
}

/**
 * CIDRs by length, then by network. Finding overlaps costs one lookup per length no longer than the asked one, which in
 * any cluster whose CIDRs were cut by a controller is one lookup; longer ones inside a shorter one are searched for.
 */
class CidrIndex {
  /** Length → network → how often each node claims it. */
  readonly #byLength = new Map<number, Map<Ip, Map<string, number>>>();

  add(cidr: Cidr, name: string): void {
    const { length, network } = parseCidr(cidr);
    let networks = this.#byLength.get(length);
    if (!networks) {
      networks = new Map();
      this.#byLength.set(length, networks);
    }
    let names = networks.get(network);
    if (!names) {
      names = new Map();
      networks.set(network, names);
    }
    names.set(name, (names.get(name) ?? 0) + 1);
  }

  remove(cidr: Cidr, name: string): void {
    const { length, network } = parseCidr(cidr);
    const networks = this.#byLength.get(length);
    const names = networks?.get(network);
    if (!networks || !names) return;
    const count = (names.get(name) ?? 0) - 1;
    if (count > 0) names.set(name, count);
    else names.delete(name);
    if (names.size === 0) networks.delete(network);
    if (networks.size === 0) this.#byLength.delete(length);
  }

  *overlapping(cidr: Cidr): Iterable<string> {
    const asked = parseCidr(cidr);
    for (const [length, networks] of this.#byLength) {
      if (length <= asked.length) {
        const network =
          length === asked.length ? asked.network : parseCidr(`${asked.network}/${length}`).network;
        yield* networks.get(network)?.keys() ?? [];
      } else {
        for (const [inner, names] of networks) {
          if (cidrContains(cidr, inner)) yield* names.keys();
        }
      }
    }
  }
}

/** A pod CIDR in which a node address lies would route the underlay into itself. */
export function swallowsUnderlay(cidr: Cidr, nodes: FabricNode[]): Ip | undefined {
  return nodes.flatMap((node) => node.nodeIPs).find((ip) => cidrContains(cidr, ip));
}
