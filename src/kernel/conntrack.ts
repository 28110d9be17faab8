/** The connection tracking table of a namespace: list, and delete exactly. */
import { WeftError } from '../base/errors.ts';
import { canonicalIp, familyOf, type Ip } from '../base/ip.ts';
import {
  type Conntrack,
  decodeConntrack,
  encodeConntrackDelete,
  encodeConntrackDump,
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
  const address = filter.address === undefined ? undefined : canonicalIp(filter.address);
  const found: Conntrack[] = [];
  for (const payload of socket.dump(
    encodeConntrackDump(address === undefined ? undefined : familyOf(address)),
  )) {
    const entry = decodeConntrack(payload);
    if (!entry) continue;
    if (filter.protocol !== undefined && entry.protocol !== filter.protocol) continue;
    if (address === undefined || involves(entry, address)) found.push(entry);
  }
  return found;
}

function involves({ original, reply }: Conntrack, address: Ip): boolean {
  return (
    original.src === address || original.dst === address || reply.src === address || reply.dst === address
  );
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
 * Delete every entry that one of the addresses is part of, in any zone. The kernel walks its whole table for a dump, which all
 * namespaces share (15 ms for 262,144 empty buckets): once per family, whatever the number of addresses.
 * @returns how many
 */
export function purgeAddresses(socket: NetlinkSocket, addresses: readonly Ip[]): number {
  let deleted = 0;
  for (const family of [4, 6] as const) {
    const wanted = new Set(addresses.map(canonicalIp).filter((address) => familyOf(address) === family));
    for (let round = 0; wanted.size > 0 && round < PURGE_ROUNDS; round++) {
      const entries: Conntrack[] = [];
      for (const payload of socket.dump(encodeConntrackDump(family))) {
        const entry = decodeConntrack(payload);
        if (entry && involvesAny(entry, wanted)) entries.push(entry);
      }
      if (entries.length === 0) break;
      deleted += deleteConntrack(socket, entries);
    }
  }
  return deleted;
}

function involvesAny({ original, reply }: Conntrack, addresses: ReadonlySet<Ip>): boolean {
  return (
    addresses.has(original.src) ||
    addresses.has(original.dst) ||
    addresses.has(reply.src) ||
    addresses.has(reply.dst)
  );
}
