/** Everything of the {@link Kernel} interface, done synchronously on the calling thread. The worker runs it; tests can too. */
import type { Ip } from '../base/ip.ts';
import type { NetObject, NsPath, Route } from '../base/net-objects.ts';
import { RouteEvents } from './events.ts';
import { probeFeatures } from './features.ts';
import { type Namespace, Namespaces } from './namespace.ts';
import { Netfilter } from './netfilter.ts';
import { createNetns, deleteNetns, listNetns, netnsInfo } from './netns.ts';
import { runProgram } from './program.ts';
import { type DumpFilter, dumpObjects, routeTo } from './rtnl.ts';
import { readSysctl } from './sysctl.ts';
import { connectTcp, listenTcp } from './tcp-sockets.ts';
import type {
  Conntrack,
  DumpKind,
  Kernel,
  KernelEvent,
  KernelFeatures,
  NetnsInfo,
  NftElement,
  NftFamily,
  NftListing,
  RunResult,
  Step,
} from './types.ts';

/** Where events go, and who waits for them. */
export interface EventSink {
  post(watch: number, events: KernelEvent[]): void;
  /** `ready` is to be called whenever the descriptor is readable, until {@link detach}. */
  attach(fd: number, ready: () => void): void;
  detach(fd: number): void;
}

export interface WatchRequest {
  kinds: DumpKind[];
  nft?: boolean;
  foreignOnly?: boolean;
  /** Bytes, for tests of what happens when it overflows. */
  receiveBuffer?: number;
}

interface OpenWatch {
  namespace: Namespace;
  fds: number[];
  sources: Disposable[];
}

/** The methods that may be called by name from the other thread. */
const callNames = [
  'run',
  'dump',
  'watch',
  'unwatch',
  'routeTo',
  'nftApply',
  'nftList',
  'nftRender',
  'nftElements',
  'conntrack',
  'conntrackDelete',
  'netnsCreate',
  'netnsDelete',
  'netnsInfo',
  'netnsList',
  'sysctlRead',
  'listenTcp',
  'connectTcp',
  'features',
] as const satisfies ReadonlyArray<keyof SyncKernel | keyof Kernel>;
export type CallName = (typeof callNames)[number];

export function isCallName(name: string): name is CallName {
  return (callNames as readonly string[]).includes(name);
}

export class SyncKernel implements Disposable {
  readonly #sink: EventSink;
  readonly #namespaces = new Namespaces();
  readonly #netfilter = new Netfilter();
  readonly #watches = new Map<number, OpenWatch>();
  #features: KernelFeatures | undefined;

  constructor(sink: EventSink) {
    this.#sink = sink;
  }

  /** Arguments come from kernel.ts, whose types are this class's own. */
  call(method: CallName, args: unknown[]): unknown {
    return (this[method] as (...args: unknown[]) => unknown).apply(this, args);
  }

  run(steps: Step[]): RunResult {
    return runProgram(steps, this.#namespaces, this.#netfilter);
  }

  dump(ns: NsPath, kinds: DumpKind[], filter?: DumpFilter): NetObject[] {
    return this.#namespaces.use(ns, (namespace) => dumpObjects(namespace.route, kinds, filter));
  }

  routeTo(ns: NsPath, to: Ip, from?: { src?: Ip; iif?: string; mark?: number }): Route {
    return this.#namespaces.use(ns, (namespace) => routeTo(namespace.route, to, from));
  }

  // --- events ---

  watch(id: number, ns: NsPath, what: WatchRequest): void {
    const namespace = this.#namespaces.pin(ns);
    const open: OpenWatch = { namespace, fds: [], sources: [] };
    this.#watches.set(id, open);
    try {
      const attach = (fd: number, source: Disposable & { poll(): KernelEvent[] }): void => {
        open.sources.push(source);
        this.#sink.attach(fd, () => {
          let events = source.poll();
          if (what.foreignOnly) events = events.filter((event) => event.type === 'resync' || !event.own);
          if (events.length) this.#sink.post(id, events);
        });
        open.fds.push(fd);
      };
      if (what.kinds.length) {
        const source = new RouteEvents(namespace, what.kinds, what.receiveBuffer);
        attach(source.socket.fd, source);
      }
      if (what.nft) {
        const source = this.#netfilter.events(namespace);
        attach(source.socket.fd, source);
      }
    } catch (error) {
      this.unwatch(id);
      throw error;
    }
  }

  unwatch(id: number): void {
    const open = this.#watches.get(id);
    if (!open) return;
    this.#watches.delete(id);
    for (const fd of open.fds) this.#sink.detach(fd);
    for (const source of open.sources) source[Symbol.dispose]();
    this.#namespaces.unpin(open.namespace);
  }

  // --- netfilter ---

  nftApply(ns: NsPath, ruleset: string): void {
    this.#netfilter.apply(ns, ruleset);
  }

  nftList(ns: NsPath, what: string): NftListing | undefined {
    return this.#netfilter.list(ns, what);
  }

  nftRender(ruleset: string, what: string): NftListing {
    return this.#netfilter.render(ruleset, what);
  }

  nftElements(ns: NsPath, family: NftFamily, table: string, set: string): NftElement[] {
    return this.#namespaces.use(ns, (namespace) => this.#netfilter.elements(namespace, family, table, set));
  }

  conntrack(ns: NsPath, filter?: { address?: Ip; protocol?: number }): Conntrack[] {
    return this.#namespaces.use(ns, (namespace) => this.#netfilter.conntrack(namespace, filter));
  }

  conntrackDelete(ns: NsPath, entries: Conntrack[]): number {
    return this.#namespaces.use(ns, (namespace) => this.#netfilter.conntrackDelete(namespace, entries));
  }

  // --- namespaces, /proc, sockets ---

  netnsCreate(path: NsPath): NetnsInfo {
    return createNetns(path);
  }

  netnsDelete(path: NsPath): boolean {
    return deleteNetns(path);
  }

  netnsInfo(path: NsPath): NetnsInfo {
    return netnsInfo(path);
  }

  netnsList(folder?: string): string[] {
    return listNetns(folder);
  }

  sysctlRead(ns: NsPath, path: string): string {
    return readSysctl(ns, path);
  }

  listenTcp(ns: NsPath, address: Ip, port: number): number {
    return listenTcp(ns, address, port);
  }

  connectTcp(ns: NsPath, address: Ip, port: number): number {
    return connectTcp(ns, address, port);
  }

  features(): KernelFeatures {
    this.#features ??= probeFeatures(this);
    return this.#features;
  }

  [Symbol.dispose](): void {
    for (const id of [...this.#watches.keys()]) this.unwatch(id);
    this.#namespaces[Symbol.dispose]();
  }
}
