/** Reading a namespace's network objects, and finding its interfaces by name and number. */

import { WeftError } from '../base/errors.ts';
import type { Ip } from '../base/ip.ts';
import type { NetObject, Route } from '../base/net-objects.ts';
import type { NlMessage } from '../wire/netlink.ts';
import { encodeAddressDump } from '../wire/rtnetlink/address.ts';
import type { NameOf } from '../wire/rtnetlink/constants.ts';
import { encodeFdbDump } from '../wire/rtnetlink/fdb.ts';
import { decodeLinkName, encodeLinkDump, encodeLinkGet } from '../wire/rtnetlink/link.ts';
import { encodeNeighbourDump } from '../wire/rtnetlink/neighbour.ts';
import { decodeObject } from '../wire/rtnetlink/object.ts';
import { decodeRoute, encodeRouteDump, encodeRouteGet, type RouteQuery } from '../wire/rtnetlink/route.ts';
import { encodeRuleDump } from '../wire/rtnetlink/rule.ts';
import * as ffi from './ffi.ts';
import type { NetlinkSocket } from './netlink-socket.ts';
import type { DumpKind } from './types.ts';

export interface DumpFilter {
  family?: 4 | 6;
  /** Routes only. */
  table?: number;
  /** Routes, rules and neighbours. */
  protocol?: number;
}

/** Interfaces that were never seen are named by number: `#7`. */
export function nameTable(table: ReadonlyMap<number, string>): NameOf {
  return (index) => table.get(index) ?? `#${index}`;
}

/** Names of all links by ifindex, from the messages of a link dump. */
export function linkNames(links: NlMessage[]): Map<number, string> {
  const names = new Map<number, string>();
  for (const { payload } of links) {
    const link = decodeLinkName(payload);
    if (link) names.set(link.index, link.name);
  }
  return names;
}

export function dumpLinkMessages(socket: NetlinkSocket): NlMessage[] {
  return socket.dumpMessages(encodeLinkDump());
}

/** The ifindex of a name, undefined when there is none. */
export function findLink(socket: NetlinkSocket, name: string): number | undefined {
  return getLink(socket, { name })?.index;
}

/** Number and name of a link found by either, undefined when there is none. */
export function getLink(
  socket: NetlinkSocket,
  link: { name: string } | { index: number },
): { index: number; name: string } | undefined {
  const [reply] = socket.request([encodeLinkGet(link)]);
  const message = reply?.messages[0];
  return message && decodeLinkName(message.payload);
}

/** @throws WEFT_NETLINK_REFUSED, WEFT_NETLINK_MALFORMED */
export function dumpObjects(
  socket: NetlinkSocket,
  kinds: readonly DumpKind[],
  filter: DumpFilter = {},
): NetObject[] {
  const links = dumpLinkMessages(socket);
  const nameOf = nameTable(linkNames(links));
  const families: Array<4 | 6> = filter.family === undefined ? [4, 6] : [filter.family];
  const found: NetObject[] = [];
  const add = (messages: NlMessage[], wanted: DumpKind): void => {
    for (const message of messages) {
      const object = decodeObject(message, nameOf)?.object;
      if (object?.kind === wanted && passes(object, filter)) found.push(object);
    }
  };
  for (const kind of new Set(kinds)) {
    if (kind === 'link') add(links, kind);
    else if (kind === 'fdb') add(socket.dumpMessages(encodeFdbDump()), kind);
    else {
      for (const family of families) {
        for (const request of dumpRequests(kind, family, filter)) add(dumpFamily(socket, request), kind);
      }
    }
  }
  return found;
}

function dumpRequests(
  kind: 'address' | 'route' | 'rule' | 'neighbour',
  family: 4 | 6,
  filter: DumpFilter,
): Uint8Array[] {
  switch (kind) {
    case 'address':
      return [encodeAddressDump(family)];
    case 'route':
      return [encodeRouteDump({ ...filter, family })];
    case 'rule':
      return [encodeRuleDump(family)];
    case 'neighbour':
      return [encodeNeighbourDump(family), encodeNeighbourDump(family, true)];
  }
}

/** A table that no route was ever in, or a family the kernel was built without, holds nothing. */
function dumpFamily(socket: NetlinkSocket, request: Uint8Array): NlMessage[] {
  try {
    return socket.dumpMessages(request);
  } catch (error) {
    const errno = error instanceof WeftError ? error.details.errno : undefined;
    if (errno === ffi.ENOENT || errno === ffi.EAFNOSUPPORT || errno === ffi.EOPNOTSUPP) return [];
    throw error;
  }
}

/** The kernel filters routes itself where it can; a kernel older than 4.20 does not, nor does a family it lacks. */
function passes(object: NetObject, { family, table, protocol }: DumpFilter): boolean {
  switch (object.kind) {
    case 'address':
      return family === undefined || object.address.includes(':') === (family === 6);
    case 'neighbour':
      if (protocol !== undefined && object.protocol !== protocol) return false;
      return family === undefined || object.dst.includes(':') === (family === 6);
    case 'rule':
      if (protocol !== undefined && object.protocol !== protocol) return false;
      return family === undefined || object.family === family;
    case 'route':
      if (protocol !== undefined && object.protocol !== protocol) return false;
      if (table !== undefined && object.table !== table) return false;
      return family === undefined || object.dst.includes(':') === (family === 6);
    default:
      return true;
  }
}

/** @throws WEFT_NETLINK_REFUSED, with ENETUNREACH when there is no route */
export function routeTo(socket: NetlinkSocket, to: Ip, query: RouteQuery = {}): Route {
  const indexOf = (name: string): number => {
    const index = findLink(socket, name);
    if (index === undefined) throw refused(`no route to ${to}: there is no link ${name}`, ffi.ENODEV);
    return index;
  };
  const [reply] = socket.request([encodeRouteGet(to, query, indexOf)]);
  if (reply?.failure) {
    const { errno, message } = reply.failure;
    throw refused(`no route to ${to}: ${ffi.errnoText(errno)}${message ? ` (${message})` : ''}`, errno);
  }
  const answer = reply?.messages[0];
  const nameOf = nameTable(linkNames(dumpLinkMessages(socket)));
  const route = answer && decodeRoute(answer.payload, nameOf);
  if (!route) throw refused(`no route to ${to}: the kernel's answer holds none`, ffi.ENOENT);
  return route;
}

function refused(message: string, errno: number): WeftError {
  return new WeftError('WEFT_NETLINK_REFUSED', message, {
    details: { errno, errnoName: ffi.errnoName(errno) },
  });
}
