/**
 * Who holds which address, VTEP MAC and pod CIDR. When two nodes claim the same, exactly one keeps it, and every node of
 * the cluster picks the same one: the older, then the first by name. A node's own claims win on that node itself.
 * Between an address of one node and a pod CIDR of another, age decides nothing: in the cluster's range addresses are those
 * of pods, outside of it those of machines.
 */
import { type Cidr, cidrContains, type Family, hostCidr, type Ip, parseCidr } from '../base/ip.ts';
import type { FabricNode, FabricProblem } from '../state/fabric-plan.ts';

/** Index of all claims; what one node's change affects is found without looking at the others. */
export class Claims {
  readonly #self: string;
  readonly #clusterCIDRs: Cidr[];
  readonly #nodes = new Map<string, FabricNode>();
  /** `ip …` and `mac …` → node names. */
  readonly #holders = new Map<string, Set<string>>();
  readonly #cidrs: Record<Family, CidrIndex> = { 4: new CidrIndex(), 6: new CidrIndex() };
  readonly #addresses: Record<Family, AddressIndex> = { 4: new AddressIndex(24), 6: new AddressIndex(64) };

  constructor(self: string, clusterCIDRs: Cidr[]) {
    this.#self = self;
    this.#clusterCIDRs = clusterCIDRs;
  }

  add(node: FabricNode): void {
    this.#nodes.set(node.name, node);
    for (const key of exactClaims(node)) {
      const holders = this.#holders.get(key);
      if (holders) holders.add(node.name);
      else this.#holders.set(key, new Set([node.name]));
    }
    for (const cidr of node.podCIDRs) this.#indexOf(cidr).add(cidr, node.name);
    for (const ip of node.nodeIPs) this.#addresses[family(ip)].add(ip);
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
    for (const ip of node.nodeIPs) if (!this.#holders.has(`ip ${ip}`)) this.#addresses[family(ip)].remove(ip);
  }

  /** Other nodes that claim something this one claims. */
  rivals(node: FabricNode): Set<string> {
    const found = new Set<string>();
    for (const key of exactClaims(node)) for (const name of this.#holders.get(key) ?? []) found.add(name);
    for (const cidr of node.podCIDRs)
      for (const name of [...this.#indexOf(cidr).overlapping(cidr), ...this.#nodesWithin(cidr)])
        found.add(name);
    for (const ip of node.nodeIPs)
      for (const name of this.#indexOf(ip).overlapping(hostCidr(ip))) found.add(name);
    found.delete(node.name);
    return found;
  }

  /** The node with only what it may keep, and what it lost to whom. */
  settle(node: FabricNode): { node: FabricNode; problems: FabricProblem[] } {
    const problems: FabricProblem[] = [];
    const others = (names: Iterable<string>): string[] =>
      [...new Set(names)].filter((name) => name !== node.name).sort();
    const refuse = (reason: FabricProblem['reason'], message: string): true => {
      problems.push({ node: node.name, reason, message });
      return true;
    };
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
      return (
        winner !== undefined &&
        refuse(reason, `node ${node.name} claims ${what} ${value}, which node ${winner.name} holds`)
      );
    };
    const isAPods = (ip: Ip): boolean => {
      if (!this.#isPodRange(ip)) return false;
      const [holder] = others(this.#indexOf(ip).overlapping(hostCidr(ip)));
      return (
        holder !== undefined &&
        refuse('InvalidNode', `the address ${ip} of node ${node.name} lies in the pod CIDR of node ${holder}`)
      );
    };
    const holdsANode = (cidr: Cidr): boolean => {
      for (const name of others(this.#nodesWithin(cidr))) {
        const isInside = (ip: Ip): boolean => cidrContains(cidr, ip) && !this.#isPodRange(ip);
        const ip = this.#nodes.get(name)?.nodeIPs.find(isInside);
        if (ip === undefined) continue;
        return refuse('InvalidNode', `pod CIDR ${cidr} of node ${node.name} contains the node address ${ip}`);
      }
      return false;
    };
    const nodeIPs = node.nodeIPs.filter(
      (ip) =>
        !lost('AddressClaimedTwice', 'the address', ip, this.#holders.get(`ip ${ip}`) ?? []) && !isAPods(ip),
    );
    const podCIDRs = node.podCIDRs.filter(
      (cidr) =>
        !lost('PodCIDRClaimedTwice', 'the pod CIDR', cidr, this.#indexOf(cidr).overlapping(cidr)) &&
        !holdsANode(cidr),
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

  #isPodRange(ip: Ip): boolean {
    return this.#clusterCIDRs.some((cidr) => cidrContains(cidr, ip));
  }

  #indexOf(value: Cidr | Ip): CidrIndex {
    return this.#cidrs[family(value)];
  }

  /** Nodes of which an address lies in the CIDR. */
  *#nodesWithin(cidr: Cidr): Iterable<string> {
    for (const ip of this.#addresses[family(cidr)].within(cidr)) yield* this.#holders.get(`ip ${ip}`) ?? [];
  }
}

const family = (value: Cidr | Ip): Family => (value.includes(':') ? 6 : 4);

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

/** Addresses by the prefix of some length: to find those in a CIDR no shorter than that costs one lookup. */
class AddressIndex {
  readonly #length: number;
  readonly #byPrefix = new Map<Ip, Set<Ip>>();

  constructor(length: number) {
    this.#length = length;
  }

  add(ip: Ip): void {
    const prefix = this.#prefixOf(ip);
    const ips = this.#byPrefix.get(prefix);
    if (ips) ips.add(ip);
    else this.#byPrefix.set(prefix, new Set([ip]));
  }

  remove(ip: Ip): void {
    const prefix = this.#prefixOf(ip);
    const ips = this.#byPrefix.get(prefix);
    ips?.delete(ip);
    if (ips?.size === 0) this.#byPrefix.delete(prefix);
  }

  *within(cidr: Cidr): Iterable<Ip> {
    const { network, length } = parseCidr(cidr);
    const groups =
      length >= this.#length ? [this.#byPrefix.get(this.#prefixOf(network)) ?? []] : this.#byPrefix.values();
    for (const ips of groups) for (const ip of ips) if (cidrContains(cidr, ip)) yield ip;
  }

  #prefixOf(ip: Ip): Ip {
    return parseCidr(`${ip}/${this.#length}`).network;
  }
}

/** A pod CIDR in which a node address lies would route the underlay into itself. */
export function swallowsUnderlay(cidr: Cidr, nodes: FabricNode[]): Ip | undefined {
  return nodes.flatMap((node) => node.nodeIPs).find((ip) => cidrContains(cidr, ip));
}
