/**
 * The contract of the kernel door: what the rest of Weft may ask of Linux. `kernel.ts` implements it over a worker
 * thread; datapaths and tests depend on this file only.
 *
 * One `run` is one message to the worker and, per namespace, one netlink send: cheap enough to attach a pod in a
 * millisecond, and never on the caller's thread.
 */
import type { ErrorCode } from '../base/errors.ts';
import type { Ip } from '../base/ip.ts';
import type {
  Address,
  FdbEntry,
  Link,
  Neighbour,
  NetObject,
  NetObjectKind,
  NsPath,
  Route,
  Rule,
} from '../base/net-objects.ts';
import type { Conntrack } from '../wire/nf-conntrack.ts';
import type { NftElement, NftElementChange, NftFamily } from '../wire/nf-tables.ts';

/**
 * A single change. `replace` is idempotent (create or make equal), `delete` of what does not exist is an
 * {@link OpFailure} with `gone: true`, which callers treat as success.
 */
export type Op =
  /** Create; EEXIST if the name is taken. A veth's peer is created with it, straight into its namespace. */
  | { op: 'link.create'; link: Link }
  /** Change attributes of an existing link, found by name (or by index if given): only fields present are touched; `rename` changes the name. */
  | {
      op: 'link.set';
      link: Partial<Link> & ({ name: string } | { index: number });
      rename?: string;
      netns?: NsPath;
    }
  | { op: 'link.delete'; name: string }
  /** All links of a group at once: one request, whatever their number. */
  | { op: 'link.deleteGroup'; group: number }
  | { op: 'address.replace' | 'address.delete'; address: Address }
  | { op: 'route.replace' | 'route.delete'; route: Route }
  | { op: 'rule.add' | 'rule.delete'; rule: Rule }
  | { op: 'neighbour.replace' | 'neighbour.delete'; neighbour: Neighbour }
  | { op: 'fdb.replace' | 'fdb.append' | 'fdb.delete'; fdb: FdbEntry }
  /**
   * Delete conntrack entries in which the address is source or destination of either direction. Adjacent ops are one request,
   * 0.7 ms an address; kernels before 6.11 need a walk through the whole table for it, 12 ms a family, so a program with any takes
   * the slow lane.
   */
  | { op: 'conntrack.purge'; address: Ip }
  /** Elements of nftables sets and maps by raw nfnetlink; adjacent ones travel in one transaction. */
  | { op: 'nft.elements'; change: NftElementChange }
  /** Write `/proc/sys/<path with / >`, e.g. `net/ipv4/conf/eth0/rp_filter`. */
  | { op: 'sysctl.write'; path: string; value: string | number };

export interface Step {
  ns: NsPath;
  ops: Op[];
  /**
   * Go on with the rest of the program when an op of this step fails (other than `gone`). Default false.
   *
   * Adjacent ops on links, addresses, routes, rules, neighbours and fdb entries travel in one send, which the kernel works
   * through to its end: those sent together with the op that failed were tried as well, each with its own result. What
   * comes after them (an op of another kind, another step) was not.
   */
  continueOnError?: boolean;
}

export interface OpFailure {
  /** Index of the step and of the op within it. */
  step: number;
  op: number;
  /** Positive errno, e.g. 17. */
  errno: number;
  /** e.g. 'EEXIST'. */
  errnoName: string;
  /** What failed and why, with the kernel's extended acknowledgement if it gave one. */
  message: string;
  /** The error code that {@link Kernel.must} throws for it. */
  code?: ErrorCode;
  /** The object was not there (ENOENT, ESRCH, ENODEV, EADDRNOTAVAIL on a delete). */
  gone: boolean;
}

export interface RunResult {
  /** Failures in order; empty means all was done. A `gone` failure never stops the program. */
  failures: OpFailure[];
  /** True when the program stopped early because of a failure. */
  stopped: boolean;
}

// Values that netfilter's codecs define.
export type { Conntrack, ConntrackTuple } from '../wire/nf-conntrack.ts';
export type { NftElement, NftElementChange, NftFamily, NftVerdict } from '../wire/nf-tables.ts';

/** Who asked the kernel for a change, where the kernel tells (nlmsg_pid; NFT_MSG_NEWGEN's pid and name). */
export interface Actor {
  pid: number;
  /** Process name, if it could still be read. */
  name?: string;
}

export type KernelEvent =
  /** An object appeared or changed. */
  | { type: 'new'; object: NetObject; by?: Actor; own: boolean }
  | { type: 'delete'; object: NetObject; by?: Actor; own: boolean }
  /** A ruleset transaction was committed; `tables` names the tables it touched, as `family name`. */
  | { type: 'nft'; generation: number; tables: string[]; by?: Actor; own: boolean }
  /** Forwarding or reverse-path filtering was switched for all devices; told where links are watched. The kernel names nobody. */
  | { type: 'sysctl'; own: false }
  /** Events were lost (ENOBUFS): the subscriber must dump and compare anew. */
  | { type: 'resync' };

export interface Watch {
  close(): Promise<void>;
}

export interface NetnsInfo {
  /** Inode number: the identity of a namespace. */
  inode: number;
  path: NsPath;
}

export type DumpKind = NetObjectKind;

export interface Kernel extends AsyncDisposable {
  /** Execute a program of steps in order. Only a broken worker rejects; refusals are in the result. */
  run(steps: Step[]): Promise<RunResult>;

  /** {@link run}, but a failure that is not `gone` throws. @throws WEFT_NETLINK_REFUSED, WEFT_NFT_REJECTED, WEFT_NETNS_NOT_FOUND, WEFT_KERNEL_FEATURE_MISSING */
  must(steps: Step[]): Promise<void>;

  /** Read objects of the given kinds (and family, for address, route, rule and neighbour). Interrupted dumps are retried. */
  dump(
    ns: NsPath,
    kinds: DumpKind[],
    filter?: { family?: 4 | 6; table?: number; protocol?: number },
  ): Promise<NetObject[]>;

  /** Events of a namespace. Starts with the state after subscription: dump after `watch` resolves and no change is missed. */
  watch(
    ns: NsPath,
    what: {
      kinds: DumpKind[];
      nft?: boolean;
      /** Leave out what this process did itself: events that nobody looks at need not cross threads. */
      foreignOnly?: boolean;
    },
    onEvents: (events: KernelEvent[]) => void,
  ): Promise<Watch>;

  /** The route the kernel would choose (RTM_GETROUTE with fib match). */
  routeTo(ns: NsPath, to: Ip, from?: { src?: Ip; iif?: string; mark?: number }): Promise<Route>;

  // --- nftables structure, by libnftables ---
  /** Apply a ruleset text as one transaction. @throws WEFT_NFT_REJECTED with nft's own words */
  nftApply(ns: NsPath, ruleset: string): Promise<void>;
  /** `nft -j list …`, e.g. `table inet weft`; undefined when it does not exist. */
  nftList(ns: NsPath, what: string): Promise<NftListing | undefined>;
  /** What nftables makes of a ruleset: applied in a namespace that exists only for this call, and listed there. @throws WEFT_NFT_REJECTED */
  nftRender(ruleset: string, what: string): Promise<NftListing>;
  /** Elements of one set by raw dump (fast at any size). */
  nftElements(ns: NsPath, family: NftFamily, table: string, set: string): Promise<NftElement[]>;

  // --- conntrack ---
  conntrack(ns: NsPath, filter?: { address?: Ip; protocol?: number }): Promise<Conntrack[]>;
  conntrackDelete(ns: NsPath, entries: Conntrack[]): Promise<number>;

  // --- namespaces ---
  /** Create a namespace bound at `path` (a file under /run/netns by convention), `lo` up. @throws WEFT_NETNS_EXISTS */
  netnsCreate(path: NsPath): Promise<NetnsInfo>;
  /** Unbind and remove; false when it was not there. */
  netnsDelete(path: NsPath): Promise<boolean>;
  /** @throws WEFT_NETNS_NOT_FOUND */
  netnsInfo(path: NsPath): Promise<NetnsInfo>;
  /** Names bound in a folder (default /run/netns). */
  netnsList(folder?: string): Promise<string[]>;

  // --- the rest of /proc and sockets ---
  sysctlRead(ns: NsPath, path: string): Promise<string>;
  /** A listening TCP socket that lives in `ns`; the caller owns the fd (pass it on with stdio or `server.listen({fd})`). */
  listenTcp(ns: NsPath, address: Ip, port: number): Promise<number>;
  /**
   * A non-blocking TCP socket that lives in `ns` and whose connection has begun (EINPROGRESS), as `new net.Socket({ fd })`
   * takes it; the caller owns the fd. @throws WEFT_SYSCALL_FAILED when the kernel refuses at once (e.g. ENETUNREACH)
   */
  connectTcp(ns: NsPath, address: Ip, port: number): Promise<number>;
  /** What this kernel has: probed once, by trying. */
  features(): Promise<KernelFeatures>;
}

export interface NftListing {
  nftables: Array<Record<string, unknown>>;
}

export interface KernelFeatures {
  release: string;
  /** Missing names are false: `netns`, `veth`, `bridge`, `vxlan`, `nf_tables`, `nft_fib`, `nft_nat`, `conntrack`, `ipv6`, … */
  has: Record<string, boolean>;
}
