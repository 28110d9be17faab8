/**
 * A program of steps, executed: ops become netlink messages, adjacent ones of a namespace travel in one send.
 *
 * New links get their ifindex from us, so that the ops that follow in the same send can already use it: attaching a pod
 * is one send in the node's namespace and one in the pod's.
 */
import { randomInt } from 'node:crypto';
import { WeftError } from '../base/errors.ts';
import type { NsPath } from '../base/net-objects.ts';
import { encodeAddress } from '../wire/rtnetlink/address.ts';
import { encodeFdb } from '../wire/rtnetlink/fdb.ts';
import {
  encodeLinkCreate,
  encodeLinkDelete,
  encodeLinkDeleteGroup,
  encodeLinkSet,
} from '../wire/rtnetlink/link.ts';
import { encodeNeighbour } from '../wire/rtnetlink/neighbour.ts';
import { encodeRoute } from '../wire/rtnetlink/route.ts';
import { encodeRule } from '../wire/rtnetlink/rule.ts';
import * as ffi from './ffi.ts';
import type { Namespace, Namespaces } from './namespace.ts';
import { openNetns } from './netns.ts';
import { type Place, refusedFailure, thrownFailure } from './op-failure.ts';
import { findLink, getLink } from './rtnl.ts';
import { writeSysctlHere } from './sysctl.ts';
import type { Op, OpFailure, RunResult, Step } from './types.ts';

type NftOp = Extract<Op, { op: 'nft.elements' }>;
type PurgeOp = Extract<Op, { op: 'conntrack.purge' }>;
type SysctlOp = Extract<Op, { op: 'sysctl.write' }>;
type RtnlOp = Exclude<Op, NftOp | PurgeOp | SysctlOp>;
type CreateOp = Extract<Op, { op: 'link.create' }>;
type SetOp = Extract<Op, { op: 'link.set' }>;

/** The ops that nfnetlink carries, done elsewhere. */
export interface NetfilterOps {
  /** All in one transaction. @throws with the index of the change at fault in `details.change`, when it is known */
  applyElements(namespace: Namespace, changes: NftOp['change'][]): void;
  /** All of them in one walk of the table. */
  purge(namespace: Namespace, addresses: PurgeOp['address'][]): void;
}

/** Above what the kernel gives out by itself, below what makes `ip link` hard to read. */
const FIRST_INDEX = 0x20000;
const LAST_INDEX = 0x1000000;
/** Refusals of one send must fit the receive buffer. */
const MESSAGES_PER_SEND = 1000;

interface Entry {
  op: RtnlOp;
  place: Place;
  message: Uint8Array;
}

/** A namespace in use by the program, and what the program knows of its links. */
interface Handle {
  namespace: Namespace;
  indexes: Map<string, number>;
  entries: Entry[];
}

export function runProgram(steps: Step[], namespaces: Namespaces, netfilter: NetfilterOps): RunResult {
  const program = new Program(namespaces, netfilter);
  try {
    return program.run(steps);
  } finally {
    program.close();
  }
}

class Program {
  readonly #namespaces: Namespaces;
  readonly #netfilter: NetfilterOps;
  readonly #handles = new Map<NsPath, Handle>();
  readonly #failures: OpFailure[] = [];
  /** Descriptors that messages refer to: open until they are sent. */
  readonly #descriptors: number[] = [];

  constructor(namespaces: Namespaces, netfilter: NetfilterOps) {
    this.#namespaces = namespaces;
    this.#netfilter = netfilter;
  }

  close(): void {
    for (const fd of this.#descriptors.splice(0)) ffi.libc.close(fd);
    for (const { namespace } of this.#handles.values()) this.#namespaces.release(namespace);
    this.#handles.clear();
  }

  run(steps: Step[]): RunResult {
    for (let i = 0; i < steps.length; i++) {
      const step = steps[i]!;
      const before = this.#failures.length;
      this.#runStep(step, i);
      const bad = this.#failures.slice(before).some((failure) => !failure.gone);
      if (bad && !step.continueOnError) return this.#result(true);
    }
    // Changes to a veth's far end that no later step has carried along.
    for (const handle of this.#handles.values()) this.#flush(handle);
    return this.#result(false);
  }

  #result(stopped: boolean): RunResult {
    this.#failures.sort((a, b) => a.step - b.step || a.op - b.op);
    return { failures: this.#failures, stopped };
  }

  #runStep(step: Step, index: number): void {
    let handle: Handle;
    try {
      handle = this.#handle(step.ns);
    } catch (error) {
      step.ops.forEach((op, i) => {
        this.#failures.push(thrownFailure(op, { step: index, op: i, ns: step.ns }, error));
      });
      return;
    }
    const before = this.#failures.length;
    const failed = (): boolean =>
      !step.continueOnError && this.#failures.slice(before).some((failure) => !failure.gone);
    for (let i = 0; i < step.ops.length; ) {
      const op = step.ops[i]!;
      const place = { step: index, op: i, ns: step.ns };
      if (isRtnl(op)) {
        this.#append(handle, op, place);
        if (failed()) break;
        i++;
        continue;
      }
      this.#flush(handle);
      if (failed()) return;
      const run = adjacent(step.ops, i);
      this.#runOther(handle, run, place);
      if (failed()) return;
      i += run.length;
    }
    this.#flush(handle);
  }

  #handle(ns: NsPath): Handle {
    let handle = this.#handles.get(ns);
    if (!handle) {
      handle = { namespace: this.#namespaces.take(ns), indexes: new Map(), entries: [] };
      this.#handles.set(ns, handle);
    }
    return handle;
  }

  // --- netfilter and sysctl ---

  #runOther(handle: Handle, ops: Op[], first: Place): void {
    const { namespace } = handle;
    const at = (i: number): Place => ({ ...first, op: first.op + i });
    if (ops[0]!.op === 'nft.elements') {
      const changes = ops as NftOp[];
      try {
        this.#netfilter.applyElements(
          namespace,
          changes.map((op) => op.change),
        );
      } catch (error) {
        const known = error instanceof WeftError ? error.details.change : undefined;
        const i = typeof known === 'number' && known < changes.length ? known : 0;
        this.#failures.push(thrownFailure(changes[i]!, at(i), error));
      }
      return;
    }
    if (ops[0]!.op === 'conntrack.purge') {
      try {
        this.#netfilter.purge(
          namespace,
          (ops as PurgeOp[]).map((op) => op.address),
        );
      } catch (error) {
        this.#failures.push(thrownFailure(ops[0]!, at(0), error));
      }
      return;
    }
    namespace.enter(() => {
      ops.forEach((op, i) => {
        try {
          if (op.op === 'sysctl.write') writeSysctlHere(op.path, op.value);
        } catch (error) {
          this.#failures.push(thrownFailure(op, at(i), error));
        }
      });
    });
  }

  // --- rtnetlink ---

  /** Encode an op behind those that wait to be sent. One that cannot be encoded fails here, and is not sent. */
  #append(handle: Handle, op: RtnlOp, place: Place): void {
    try {
      for (const message of this.#encode(handle, op, place)) handle.entries.push({ op, place, message });
    } catch (error) {
      this.#failures.push(thrownFailure(op, place, error));
    }
  }

  #indexOf(handle: Handle, name: string): number {
    const known = handle.indexes.get(name);
    if (known !== undefined) return known;
    const found = findLink(handle.namespace.route, name);
    if (found === undefined) {
      throw new WeftError('WEFT_NETLINK_REFUSED', `there is no link ${name}`, {
        details: { errno: ffi.ENODEV, errnoName: 'ENODEV' },
      });
    }
    handle.indexes.set(name, found);
    return found;
  }

  #encode(handle: Handle, op: RtnlOp, place: Place): Uint8Array[] {
    const indexOf = (name: string): number => this.#indexOf(handle, name);
    switch (op.op) {
      case 'link.create':
        return this.#encodeCreate(handle, op, place);
      case 'link.set':
        return this.#encodeSet(handle, op);
      case 'link.delete': {
        const index = handle.indexes.get(op.name);
        handle.indexes.delete(op.name);
        return [encodeLinkDelete(index === undefined ? { name: op.name } : { index })];
      }
      case 'link.deleteGroup':
        return [encodeLinkDeleteGroup(op.group)];
      case 'address.replace':
      case 'address.delete':
        return [encodeAddress(verb(op.op), op.address, indexOf)];
      case 'route.replace':
      case 'route.delete':
        return [encodeRoute(verb(op.op), op.route, indexOf)];
      case 'rule.add':
      case 'rule.delete':
        return [encodeRule(op.op === 'rule.add' ? 'add' : 'delete', op.rule)];
      case 'neighbour.replace':
      case 'neighbour.delete':
        return [encodeNeighbour(verb(op.op), op.neighbour, indexOf)];
      case 'fdb.append':
        return [encodeFdb('append', op.fdb, indexOf)];
      case 'fdb.replace':
      case 'fdb.delete':
        return [encodeFdb(verb(op.op), op.fdb, indexOf)];
    }
  }

  /**
   * Creation, then what the kernel takes only of a link that exists: its alias and address generation mode; up comes last,
   * when no automatic address can appear any more. The same for the peer, in its own namespace's next send.
   */
  #encodeCreate(handle: Handle, op: CreateOp, place: Place): Uint8Array[] {
    const { link } = op;
    const index = link.index ?? freeIndex(handle.namespace);
    const indexOf = (name: string): number => this.#indexOf(handle, name);
    const context: Parameters<typeof encodeLinkCreate>[1] = { indexOf, index };
    const late: Uint8Array[] = [];
    if (link.peer) {
      const { netns, name, addrGenMode } = link.peer;
      const elsewhere = netns !== undefined && netns !== handle.namespace.path;
      const far = elsewhere ? this.#handle(netns) : handle;
      context.peerIndex = link.peer.index ?? freeIndex(far.namespace);
      if (elsewhere) context.peerNetnsFd = far.namespace.fd;
      far.indexes.set(name, context.peerIndex);
      if (addrGenMode !== undefined) {
        const message = encodeLinkSet(context.peerIndex, { addrGenMode }, { indexOf });
        if (elsewhere) far.entries.push({ op, place, message });
        else late.push(message);
      }
    }
    const { alias, addrGenMode, up, ...plain } = link;
    const create = encodeLinkCreate(plain, context);
    handle.indexes.set(link.name, index);
    if (alias !== undefined || addrGenMode !== undefined) {
      late.push(
        encodeLinkSet(
          index,
          { name: link.name, ...(alias !== undefined && { alias }), ...(addrGenMode && { addrGenMode }) },
          { indexOf },
        ),
      );
    }
    if (up) late.push(encodeLinkSet(index, { up }, { indexOf }));
    return [create, ...late];
  }

  #encodeSet(handle: Handle, op: SetOp): Uint8Array[] {
    const { name, index: given, ...fields } = op.link;
    const index = given ?? this.#indexOf(handle, name ?? '');
    const context: Parameters<typeof encodeLinkSet>[2] = { indexOf: (n) => this.#indexOf(handle, n) };
    if (op.rename !== undefined) context.rename = op.rename;
    if (op.netns !== undefined) {
      context.netnsFd = openNetns(op.netns);
      this.#descriptors.push(context.netnsFd);
    }
    const message = encodeLinkSet(index, { ...fields, ...(name !== undefined && { name }) }, context);
    if (name !== undefined && (op.rename !== undefined || op.netns !== undefined))
      handle.indexes.delete(name);
    if (op.rename !== undefined && op.netns === undefined) handle.indexes.set(op.rename, index);
    return [message];
  }

  #flush(handle: Handle): void {
    const entries = handle.entries.splice(0);
    const refused = new Set<string>();
    for (let from = 0; from < entries.length; from += MESSAGES_PER_SEND) {
      const chunk = entries.slice(from, from + MESSAGES_PER_SEND);
      const replies = handle.namespace.route.request(chunk.map((entry) => entry.message));
      replies.forEach(({ failure }, i) => {
        const entry = chunk[i]!;
        const key = `${entry.place.step} ${entry.place.op}`;
        if (!failure || refused.has(key)) return; // an op of several messages fails once
        refused.add(key);
        if (entry.op.op === 'link.create') this.#forget(handle, entry.op, entry.place);
        this.#failures.push(refusedFailure(entry.op, entry.place, entry.message, failure));
      });
    }
  }

  /** The link was not created: what was planned for it in the peer's namespace is void. */
  #forget(handle: Handle, { link }: CreateOp, place: Place): void {
    handle.indexes.delete(link.name);
    for (const other of this.#handles.values()) {
      other.entries = other.entries.filter((e) => e.place.step !== place.step || e.place.op !== place.op);
    }
    if (link.peer)
      this.#handles.get(link.peer.netns ?? handle.namespace.path)?.indexes.delete(link.peer.name);
  }
}

/**
 * A number that no link of the namespace has. It has to be looked for: were it taken, what follows the failed creation in
 * the same send would change the link that has it.
 */
function freeIndex({ route }: Namespace): number {
  for (;;) {
    const index = randomInt(FIRST_INDEX, LAST_INDEX);
    if (!getLink(route, { index })) return index;
  }
}

function isRtnl(op: Op): op is RtnlOp {
  return op.op !== 'nft.elements' && op.op !== 'conntrack.purge' && op.op !== 'sysctl.write';
}

function verb(op: `${string}.${'replace' | 'delete'}`): 'replace' | 'delete' {
  return op.endsWith('.delete') ? 'delete' : 'replace';
}

/** The ops from `from` on that are done together: of the same kind, one after the other. */
function adjacent(ops: Op[], from: number): Op[] {
  let to = from + 1;
  while (ops[to]?.op === ops[from]!.op) to++;
  return ops.slice(from, to);
}
