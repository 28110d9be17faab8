/**
 * Changes in one namespace, as they happen: rtnetlink notifications turned into events.
 *
 * The kernel is silent about some losses, and we speak for it: IPv4 routes that go with their link or their preferred source
 * are dropped without a message (net/ipv4/fib_frontend.c, fib_disable_ip; fib_semantics.c, fib_sync_down_addr), so the
 * routes of the namespace are remembered by key and their `delete` is told with the link's. Neighbours learned by traffic come and go
 * all the time and are not told at all.
 */
import { readFileSync } from 'node:fs';
import type { Address, Link, NetObject, Route } from '../base/net-objects.ts';
import { netObjectKey, WEFT_PROTOCOL } from '../base/net-objects.ts';
import type { NlMessage } from '../wire/netlink.ts';
import * as c from '../wire/rtnetlink/constants.ts';
import { type DecodedObject, decodeObject } from '../wire/rtnetlink/object.ts';
import type { Namespace } from './namespace.ts';
import { isOwnPort, NETLINK_ROUTE, type NetlinkSocket } from './netlink-socket.ts';
import { dumpLinkMessages, dumpObjects, linkNames, nameTable } from './rtnl.ts';
import type { Actor, DumpKind, KernelEvent } from './types.ts';

const groupsOf: Record<DumpKind, number[]> = {
  link: [c.GROUP_LINK, c.GROUP_IPV4_NETCONF, c.GROUP_IPV6_NETCONF],
  address: [c.GROUP_IPV4_ADDRESS, c.GROUP_IPV6_ADDRESS],
  route: [c.GROUP_IPV4_ROUTE, c.GROUP_IPV6_ROUTE],
  rule: [c.GROUP_IPV4_RULE, c.GROUP_IPV6_RULE],
  neighbour: [c.GROUP_NEIGH],
  fdb: [c.GROUP_NEIGH],
};

const RTPROT_KERNEL = 2;
/** Port ids above every possible pid are numbers that the kernel made up. */
const PID_LIMIT = 1 << 22;

/** Who has this port id: a program's first netlink socket in a namespace has its pid as port id. Undefined for the kernel itself. */
export function actorOf(portId: number): Actor | undefined {
  if (portId === 0) return undefined;
  if (isOwnPort(portId)) return { pid: process.pid, name: process.title };
  if (portId >= PID_LIMIT) return undefined;
  return namedActor(portId);
}

/** The name is read at once: a command such as `ip` is gone in a millisecond. */
export function namedActor(pid: number): Actor {
  try {
    return { pid, name: readFileSync(`/proc/${pid}/comm`, 'utf8').trimEnd() };
  } catch {
    return { pid };
  }
}

export class RouteEvents implements Disposable {
  readonly socket: NetlinkSocket;
  readonly #namespace: Namespace;
  readonly #kinds: ReadonlySet<DumpKind>;
  #names = new Map<number, string>();
  /** IPv4 routes by key, kept only when routes are watched. */
  #routes = new Map<string, Route>();

  constructor(namespace: Namespace, kinds: readonly DumpKind[], receiveBuffer?: number) {
    this.#namespace = namespace;
    this.#kinds = new Set(kinds);
    const groups = new Set([c.GROUP_LINK]); // names are needed whatever is watched
    for (const kind of this.#kinds) for (const group of groupsOf[kind]) groups.add(group);
    if (this.#kinds.has('route')) groups.add(c.GROUP_IPV4_ADDRESS);
    this.socket = namespace.socket(NETLINK_ROUTE, {
      groups: [...groups],
      ...(receiveBuffer !== undefined && { receiveBuffer }),
    });
    this.#learn();
  }

  /** Names and routes as they are now; called after subscription, so that nothing falls in between. */
  #learn(): void {
    this.#names = linkNames(dumpLinkMessages(this.#namespace.route));
    this.#routes.clear();
    if (!this.#kinds.has('route')) return;
    for (const object of dumpObjects(this.#namespace.route, ['route'], { family: 4 })) {
      if (isRemembered(object)) this.#routes.set(netObjectKey(object), object);
    }
  }

  /** What has happened since the last call. Events before a loss are told, then `resync`. */
  poll(): KernelEvent[] {
    const { messages, lost } = this.socket.receiveEvents();
    const events: KernelEvent[] = [];
    const actors = new Map<number, Actor | undefined>();
    for (const message of messages) this.#translate(message, actors, events);
    if (lost) {
      this.#learn();
      events.push({ type: 'resync' });
    }
    return events;
  }

  #translate(message: NlMessage, actors: Map<number, Actor | undefined>, events: KernelEvent[]): void {
    if (message.type === c.RTM_NEWNETCONF) {
      if (isForAllDevices(message.payload)) events.push({ type: 'sysctl', own: false });
      return;
    }
    let decoded: DecodedObject | undefined;
    try {
      decoded = decodeObject(message, nameTable(this.#names));
    } catch {
      events.push({ type: 'resync' }); // what cannot be read must be looked at
      return;
    }
    if (!decoded) return;
    const { portId } = message;
    if (!actors.has(portId)) actors.set(portId, actorOf(portId));
    const by = actors.get(portId);
    const tell = (type: 'new' | 'delete', object: NetObject): void => {
      events.push({ type, object, own: isOwnPort(portId), ...(by && { by }) });
    };
    const { type, object } = decoded;
    // Kernels from 6.7 on tell of some of the losses that we have told already: what is not remembered is no news.
    const known = !isRemembered(object) || type === 'new' || this.#routes.has(netObjectKey(object));
    if (this.#kinds.has(object.kind) && known && isNews(decoded)) tell(type, object);
    if (object.kind === 'link') this.#followLink(type, object, tell);
    if (object.kind === 'address' && type === 'delete') this.#followAddress(object, tell);
    if (isRemembered(object)) {
      if (type === 'new') this.#routes.set(netObjectKey(object), object);
      else this.#routes.delete(netObjectKey(object));
    }
  }

  #followLink(type: 'new' | 'delete', link: Link, tell: (type: 'delete', route: Route) => void): void {
    const before = this.#names.get(link.index ?? 0);
    if (type === 'new') this.#names.set(link.index ?? 0, link.name);
    else this.#names.delete(link.index ?? 0);
    if (type === 'new' && before !== undefined && before !== link.name) this.#renameRoutes(before, link.name);
    if (type === 'new' && link.up) return;
    this.#loseRoutes((route) => route.dev === link.name && route.nexthops === undefined, tell);
    this.#loseRoutes((route) => !!route.nexthops?.every((hop) => hop.dev === link.name), tell);
  }

  #followAddress(address: Address, tell: (type: 'delete', route: Route) => void): void {
    const ip = address.address.slice(0, address.address.indexOf('/'));
    this.#loseRoutes((route) => route.src === ip, tell);
  }

  #loseRoutes(lost: (route: Route) => boolean, tell: (type: 'delete', route: Route) => void): void {
    for (const [key, route] of this.#routes) {
      if (!lost(route)) continue;
      this.#routes.delete(key);
      tell('delete', route);
    }
  }

  #renameRoutes(from: string, to: string): void {
    for (const [key, route] of this.#routes) {
      if (route.dev === from) this.#routes.set(key, { ...route, dev: to });
    }
  }

  [Symbol.dispose](): void {
    this.socket.close();
  }
}

/** Whether a netconf message (linux/netconf.h) is about `conf/all`: its first attribute is the interface, -1 for all. */
function isForAllDevices(payload: Uint8Array): boolean {
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  return view.byteLength >= 12 && view.getUint16(6, true) === 1 && view.getInt32(8, true) === -1;
}

/** IPv4 routes, without those the kernel makes for addresses (RTPROT_KERNEL): it brings them back itself. */
function isRemembered(object: NetObject): object is Route {
  return object.kind === 'route' && object.protocol !== RTPROT_KERNEL && object.dst.includes('.');
}

/** Static entries and ours are news; what the kernel learns and forgets by itself is not. */
function isNews({ object }: DecodedObject): boolean {
  if (object.kind === 'neighbour') {
    return (
      object.protocol === WEFT_PROTOCOL ||
      object.proxy === true ||
      object.state === 'permanent' ||
      (object.state === 'noarp' && object.protocol !== undefined)
    );
  }
  if (object.kind === 'fdb') {
    return (
      object.state === 'permanent' || object.state === 'noarp' || !!object.flags?.includes('extern_learn')
    );
  }
  return true;
}
