/**
 * The fabric compiler: node list → desired kernel state of this node, kept up to date change by change.
 *
 * Each remote node compiles by itself ({@link compileRemote}); what nodes have in common is only who holds a contested
 * claim, which tunnel devices are in use, and the MTU that follows from them. So a node that comes, changes or goes costs
 * work for itself and its rivals, whatever the size of the cluster, and any order of changes ends in the same state.
 */
import { type Cidr, canonicalCidr, cidrContains, hostCidr } from '../base/ip.ts';
import { type NetObject, netObjectKey } from '../base/net-objects.ts';
import type { Sysctl } from '../state/attachment.ts';
import type { FabricNode, FabricPlan, FabricProblem, NodeFilter } from '../state/fabric-plan.ts';
import { Claims, swallowsUnderlay } from './claims.ts';
import { type FabricContext, nodeIp, podCidrs, type TunnelFamily, underlayOf } from './context.ts';
import { computeMtus } from './mtu.ts';
import { compileRemote, unreachable } from './remote.ts';
import { podToNodeRules, tunnelDevice, vtepMac } from './vxlan/tunnel.ts';

/** What became different since the last {@link FabricCompiler.take}. */
export interface FabricChange {
  /** New objects, and new values of known ones. */
  set: NetObject[];
  unset: NetObject[];
}

interface Compiled {
  /** The node with what it may keep of its claims. */
  node: FabricNode;
  objects: NetObject[];
  problems: FabricProblem[];
  tunnels: TunnelFamily[];
}

/** Owner of what belongs to no remote node; sorts before any node name. */
const SELF = '';

export class FabricCompiler {
  #context: FabricContext;
  #claims: Claims;
  /** Remote nodes as given. */
  readonly #nodes = new Map<string, FabricNode>();
  readonly #compiled = new Map<string, Compiled>();
  /** How many remote nodes need each tunnel device. */
  readonly #tunnelUsers: Record<TunnelFamily, number> = { 4: 0, 6: 0 };
  /** Key → who desires the object; the first by name counts, should two ever desire the same one. */
  readonly #objects = new Map<string, Map<string, NetObject>>();
  /** Keys touched since the last take, with what stood there then. */
  readonly #touched = new Map<string, NetObject | undefined>();
  #shared: {
    /** What it was compiled from. */
    context?: FabricContext;
    tunnels: string;
    sysctls: Sysctl[];
    podMtu: number;
    problems: FabricProblem[];
  } = { tunnels: '', sysctls: [], podMtu: 0, problems: [] };

  constructor(context: FabricContext) {
    this.#context = context;
    this.#claims = claimsOf(context);
    this.#compileShared();
  }

  /** This node, its underlay or the configuration changed: everything is compiled anew. */
  setContext(context: FabricContext): void {
    for (const name of [...this.#compiled.keys()]) this.#retract(name);
    this.#context = context;
    this.#claims = claimsOf(context);
    this.#nodes.delete(context.self.name);
    for (const node of this.#nodes.values()) this.#claims.add(node);
    for (const name of this.#nodes.keys()) this.#compile(name);
    this.#compileShared();
  }

  /** A node appeared or changed. This node itself is part of the context, and ignored here. */
  upsert(node: FabricNode): void {
    if (node.name === this.#context.self.name) return;
    const before = this.#nodes.get(node.name);
    const affected = before ? this.#claims.rivals(before) : new Set<string>();
    if (before) this.#claims.remove(node.name);
    this.#nodes.set(node.name, node);
    this.#claims.add(node);
    for (const rival of this.#claims.rivals(node)) affected.add(rival);
    affected.add(node.name);
    this.#recompile(affected);
  }

  remove(name: string): void {
    const node = this.#nodes.get(name);
    if (!node) return;
    const affected = this.#claims.rivals(node);
    this.#claims.remove(name);
    this.#nodes.delete(name);
    affected.add(name);
    this.#recompile(affected);
  }

  /** What changed since the last call, each object once; the first call gives everything. */
  take(): FabricChange {
    const change: FabricChange = { set: [], unset: [] };
    for (const [key, before] of this.#touched) {
      const now = this.#winner(key);
      if (now === undefined) {
        if (before !== undefined) change.unset.push(before);
      } else if (JSON.stringify(now) !== JSON.stringify(before)) change.set.push(now);
    }
    this.#touched.clear();
    return change;
  }

  /** The whole desired state, in a stable order. */
  plan(): FabricPlan {
    const objects = [...this.#objects.keys()].map((key) => this.#winner(key)!);
    const order: Record<NetObject['kind'], number> = {
      link: 0,
      address: 1,
      fdb: 2,
      neighbour: 3,
      route: 4,
      rule: 5,
    };
    const keyed = objects.map((object) => ({ object, key: netObjectKey(object) }));
    keyed.sort((a, b) => order[a.object.kind] - order[b.object.kind] || (a.key < b.key ? -1 : 1));
    return {
      objects: keyed.map(({ object }) => object),
      sysctls: this.#shared.sysctls,
      podMtu: this.#shared.podMtu,
      filter: this.#filter(),
      problems: this.problems(),
    };
  }

  /** Ordered by node, then by text. */
  problems(): FabricProblem[] {
    const all = [...this.#shared.problems];
    for (const { problems } of this.#compiled.values()) all.push(...problems);
    const order = (p: FabricProblem): string => `${p.node}\0${p.message}`;
    return all.sort((a, b) => (order(a) < order(b) ? -1 : order(a) > order(b) ? 1 : 0));
  }

  #recompile(names: Set<string>): void {
    const { self } = this.#context;
    for (const name of names) {
      if (name === self.name) continue;
      this.#retract(name);
      if (this.#nodes.has(name)) this.#compile(name);
    }
    this.#compileShared();
  }

  #retract(name: string): void {
    const before = this.#compiled.get(name);
    if (!before) return;
    this.#compiled.delete(name);
    for (const outer of before.tunnels) this.#tunnelUsers[outer]--;
    for (const object of before.objects) this.#put(name, netObjectKey(object), undefined);
  }

  #compile(name: string): void {
    const settled = this.#claims.settle(this.#nodes.get(name)!);
    const plan = compileRemote(this.#context, settled.node);
    this.#compiled.set(name, {
      ...plan,
      problems: [...settled.problems, ...plan.problems],
    });
    for (const outer of plan.tunnels) this.#tunnelUsers[outer]++;
    for (const object of plan.objects) this.#put(name, netObjectKey(object), object);
  }

  /** Devices, MTU and what is this node's own: constant in size. */
  #compileShared(): void {
    const { self } = this.#context;
    const tunnels = ([4, 6] as const).filter(
      (outer) => this.#tunnelUsers[outer] > 0 || this.#standing(outer),
    );
    // Of all the nodes only this is asked.
    if (this.#shared.context === this.#context && this.#shared.tunnels === tunnels.join()) return;
    const mtus = computeMtus(this.#context, tunnels);
    const problems = [...mtus.problems];
    const objects: NetObject[] = [];
    const sysctls = forwardingSysctls(this.#context);
    for (const outer of tunnels) {
      const device = tunnelDevice(this.#context, outer, mtus.device(outer));
      objects.push(...device.objects);
      sysctls.push(...device.sysctls);
    }
    if (tunnels.length > 0) objects.push(...podToNodeRules(self));
    for (const cidr of self.podCIDRs) {
      const swallowed = swallowsUnderlay(cidr, [self]);
      if (swallowed === undefined) objects.push(unreachable(cidr));
      else {
        problems.push({
          node: self.name,
          reason: 'InvalidNode',
          message: `pod CIDR ${cidr} of node ${self.name} contains the node address ${swallowed}`,
        });
      }
    }
    const keys = new Set(objects.map(netObjectKey));
    for (const [key, owners] of this.#objects) {
      // Only when something shared changed, which is rare: the one walk over everything.
      if (owners.has(SELF) && !keys.has(key)) this.#put(SELF, key, undefined);
    }
    for (const object of objects) this.#put(SELF, netObjectKey(object), object);
    this.#shared = { context: this.#context, tunnels: tunnels.join(), sysctls, podMtu: mtus.pod, problems };
  }

  /** With backend vxlan the device stands from the first moment, so that the second node changes nothing but itself. */
  #standing(outer: TunnelFamily): boolean {
    const { self, config } = this.#context;
    if (config.fabric.backend !== 'vxlan') return false;
    const preferred = nodeIp(self, 4) !== undefined ? 4 : 6;
    return outer === preferred && nodeIp(self, outer) !== undefined;
  }

  #put(owner: string, key: string, object: NetObject | undefined): void {
    if (!this.#touched.has(key)) this.#touched.set(key, this.#winner(key));
    let owners = this.#objects.get(key);
    if (object !== undefined) {
      if (!owners) {
        owners = new Map();
        this.#objects.set(key, owners);
      }
      owners.set(owner, object);
    } else if (owners) {
      owners.delete(owner);
      if (owners.size === 0) this.#objects.delete(key);
    }
  }

  #winner(key: string): NetObject | undefined {
    const owners = this.#objects.get(key);
    if (!owners) return undefined;
    let first: string | undefined;
    for (const owner of owners.keys()) if (first === undefined || owner < first) first = owner;
    return owners.get(first!);
  }

  #filter(): NodeFilter {
    const { self, config } = this.#context;
    const encapsulates = config.fabric.backend !== 'host-gw';
    const settled = [...this.#compiled.values()].map(({ node }) => node);
    const nodeIPs = [self, ...settled].flatMap((node) => node.nodeIPs);
    return {
      podCIDRs: [...self.podCIDRs],
      noMasquerade: withoutCovered([
        ...config.clusterCIDRs,
        ...config.masquerade.exclude,
        ...[self, ...settled].flatMap((node) => node.podCIDRs),
        ...nodeIPs.map(hostCidr),
      ]),
      // Whoever is a node: during a change of paths the two ends may briefly disagree on which of them are encapsulated.
      vteps: encapsulates ? [...new Set(settled.flatMap((node) => node.nodeIPs))].sort() : [],
      ...(encapsulates && { encapPort: config.fabric.vxlanPort }),
      masquerade: config.masquerade.enabled,
    };
  }
}

/** What makes this machine a router of its pods' families. */
function forwardingSysctls(context: FabricContext): Sysctl[] {
  const sysctls: Sysctl[] = [];
  if (podCidrs(context.self, 4).length > 0) sysctls.push({ path: 'net/ipv4/ip_forward', value: '1' });
  if (podCidrs(context.self, 6).length > 0) {
    // A router ignores advertisements unless told otherwise (ip-sysctl, accept_ra): a machine that lives by them must keep
    // its default route, one that refuses them must go on refusing.
    for (const dev of new Set(
      ([4, 6] as const).flatMap((family) => underlayOf(context, family)?.dev ?? []),
    )) {
      sysctls.push({ path: `net/ipv6/conf/${dev}/accept_ra`, value: '2', when: '1' });
    }
    sysctls.push({ path: 'net/ipv6/conf/all/forwarding', value: '1' });
  }
  return sysctls;
}

/** This node's own claims, its VTEP among them whether announced yet or not. */
function claimsOf({ self, config }: FabricContext): Claims {
  const claims = new Claims(self.name, config.clusterCIDRs);
  claims.add({ ...self, vtepMac: vtepMac(self.name) });
  return claims;
}

/** Canonical, sorted, and none within another: what an interval set can hold. */
function withoutCovered(cidrs: Cidr[]): Cidr[] {
  const length = (cidr: Cidr): number => Number(cidr.slice(cidr.indexOf('/') + 1));
  const widestFirst = [...new Set(cidrs.map(canonicalCidr))].sort((a, b) => length(a) - length(b));
  const wide: Cidr[] = [];
  const hosts: Cidr[] = [];
  for (const cidr of widestFirst) {
    if (wide.some((other) => cidrContains(other, cidr))) continue;
    (isHost(cidr) ? hosts : wide).push(cidr); // host prefixes cover nothing: they need not be searched
  }
  return [...wide, ...hosts].sort();
}

const isHost = (cidr: Cidr): boolean => cidr.endsWith(cidr.includes(':') ? '/128' : '/32');
