/** The connection tracking table of a namespace: list, and delete exactly. */
import { WeftError } from '../base/errors.ts';
import { canonicalIp, familyOf, type Ip } from '../base/ip.ts';
import {
  type Conntrack,
  decodeConntrack,
  encodeConntrackDelete,
  encodeConntrackDump,
  encodeConntrackPurge,
} from '../wire/nf-conntrack.ts';
import * as ffi from './ffi.ts';
import type { NetlinkSocket } from './netlink-socket.ts';

/** Refusals of one send must fit the receive buffer. */
const DELETES_PER_SEND = 2000;
/** A flow that goes on makes a new entry right behind the deletion; after a few rounds what is left is new. */
const PURGE_ROUNDS = 3;

export interface ConntrackFilter {
  /** Source or destination of either direction. */
  address?: Ip;
  protocol?: number;
}

/** @throws WEFT_BAD_ADDRESS, WEFT_NETLINK_REFUSED, WEFT_NETLINK_MALFORMED */
export function listConntrack(socket: NetlinkSocket, filter: ConntrackFilter = {}): Conntrack[] {
  const { protocol } = filter;
  const address = filter.address === undefined ? undefined : canonicalIp(filter.address);
  const wanted = address === undefined ? undefined : new Set([address]);
  return list(socket, address === undefined ? undefined : familyOf(address)).filter(
    (entry) =>
      (protocol === undefined || entry.protocol === protocol) && (!wanted || involves(entry, wanted)),
  );
}

function list(socket: NetlinkSocket, family?: 4 | 6): Conntrack[] {
  return socket.dump(encodeConntrackDump(family)).flatMap((payload) => decodeConntrack(payload) ?? []);
}

function involves({ original, reply }: Conntrack, addresses: ReadonlySet<Ip>): boolean {
  return [original.src, original.dst, reply.src, reply.dst].some((ip) => addresses.has(ip));
}

/**
 * Delete these entries and no others: an entry with the same tuple that is in another zone, or has come since (another id),
 * stays. @returns how many were still there @throws WEFT_NETLINK_REFUSED
 */
export function deleteConntrack(socket: NetlinkSocket, entries: readonly Conntrack[]): number {
  let deleted = 0;
  for (let from = 0; from < entries.length; from += DELETES_PER_SEND) {
    const part = entries.slice(from, from + DELETES_PER_SEND);
    socket.request(part.map(encodeConntrackDelete)).forEach(({ failure }, i) => {
      if (!failure) deleted++;
      else if (failure.errno !== ffi.ENOENT) {
        const { original } = part[i]!;
        throw new WeftError(
          'WEFT_NETLINK_REFUSED',
          `cannot delete the conntrack entry ${original.src} → ${original.dst}: ${ffi.errnoText(failure.errno)}`,
          { details: { errno: failure.errno, errnoName: ffi.errnoName(failure.errno) } },
        );
      }
    });
  }
  return deleted;
}

/**
 * Delete every entry that one of the addresses is part of: source or destination of either direction, in any zone. Done by
 * the kernel's own filter, 0.7 ms an address; kernels before 6.11 have none, and there the whole table is read (12 ms for
 * 262,144 buckets even when they are empty, for all namespaces share them), once per family.
 *
 * @throws WEFT_BAD_ADDRESS, WEFT_NETLINK_REFUSED
 */
export function purgeAddresses(socket: NetlinkSocket, addresses: readonly Ip[]): void {
  const replies = socket.request(addresses.flatMap((address) => encodeConntrackPurge(canonicalIp(address))));
  const failure = replies.find((reply) => reply.failure)?.failure;
  if (!failure) return;
  if (failure.errno !== ffi.EINVAL && failure.errno !== ffi.EOPNOTSUPP) {
    throw new WeftError(
      'WEFT_NETLINK_REFUSED',
      `cannot purge conntrack entries of ${addresses.join(', ')}: ${ffi.errnoText(failure.errno)}`,
      { details: { errno: failure.errno, errnoName: ffi.errnoName(failure.errno) } },
    );
  }
  purgeByDump(socket, addresses);
}

/** {@link purgeAddresses} for kernels that cannot filter deletions. */
export function purgeByDump(socket: NetlinkSocket, addresses: readonly Ip[]): void {
  for (const family of [4, 6] as const) {
    const wanted = new Set(addresses.map(canonicalIp).filter((address) => familyOf(address) === family));
    for (let round = 0; wanted.size > 0 && round < PURGE_ROUNDS; round++) {
      const entries = list(socket, family).filter((entry) => involves(entry, wanted));
      if (entries.length === 0) break;
      deleteConntrack(socket, entries);
    }
  }
}
