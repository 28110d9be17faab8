/** Any rtnetlink message → the object it is about. */
import type { NetObject } from '../../base/net-objects.ts';
import type { NlMessage } from '../netlink.ts';
import { decodeAddress, IFADDRMSG } from './address.ts';
import * as c from './constants.ts';
import { decodeFdb } from './fdb.ts';
import { decodeLink, IFINFOMSG } from './link.ts';
import { decodeNeighbour, NDMSG } from './neighbour.ts';
import { decodeRoute, RTMSG } from './route.ts';
import { decodeRule, FIB_RULE_HDR } from './rule.ts';

export interface DecodedObject {
  type: 'new' | 'delete';
  object: NetObject;
}

/** Undefined for messages that are about none of our objects. @throws WEFT_NETLINK_MALFORMED */
export function decodeObject(message: NlMessage, nameOf: c.NameOf): DecodedObject | undefined {
  const object = decodePayload(message, nameOf);
  // RTM_DELLINK, RTM_DELADDR … are all ≡ 1 mod 4 (rtnetlink.h: RTM_FAM).
  return object && { type: message.type % 4 === 1 ? 'delete' : 'new', object };
}

function decodePayload({ type, payload }: NlMessage, nameOf: c.NameOf): NetObject | undefined {
  switch (type) {
    case c.RTM_NEWLINK:
    case c.RTM_DELLINK:
      return decodeLink(payload, nameOf);
    case c.RTM_NEWADDR:
    case c.RTM_DELADDR:
      return decodeAddress(payload, nameOf);
    case c.RTM_NEWROUTE:
    case c.RTM_DELROUTE:
      return decodeRoute(payload, nameOf);
    case c.RTM_NEWNEIGH:
    case c.RTM_DELNEIGH:
      return payload[0] === c.AF_BRIDGE ? decodeFdb(payload, nameOf) : decodeNeighbour(payload, nameOf);
    case c.RTM_NEWRULE:
    case c.RTM_DELRULE:
      return decodeRule(payload);
    default:
      return undefined;
  }
}

/** Length of the fixed part that stands before the attributes of a message of this type. */
export function fixedLength(type: number): number {
  if (type <= c.RTM_SETLINK) return IFINFOMSG;
  if (type <= c.RTM_GETADDR) return IFADDRMSG;
  if (type <= c.RTM_GETROUTE) return RTMSG;
  if (type <= c.RTM_GETNEIGH) return NDMSG;
  return FIB_RULE_HDR;
}

const names: Record<string, string> = {
  'link 1': 'IFLA_ADDRESS',
  'link 3': 'IFLA_IFNAME',
  'link 4': 'IFLA_MTU',
  'link 5': 'IFLA_LINK',
  'link 10': 'IFLA_MASTER',
  'link 13': 'IFLA_TXQLEN',
  'link 18': 'IFLA_LINKINFO',
  'link 18 1': 'IFLA_INFO_KIND',
  'link 18 2': 'IFLA_INFO_DATA',
  'link 20': 'IFLA_IFALIAS',
  'link 26': 'IFLA_AF_SPEC',
  'link 27': 'IFLA_GROUP',
  'link 28': 'IFLA_NET_NS_FD',
  'address 1': 'IFA_ADDRESS',
  'address 2': 'IFA_LOCAL',
  'address 8': 'IFA_FLAGS',
  'route 1': 'RTA_DST',
  'route 2': 'RTA_SRC',
  'route 4': 'RTA_OIF',
  'route 5': 'RTA_GATEWAY',
  'route 6': 'RTA_PRIORITY',
  'route 7': 'RTA_PREFSRC',
  'route 8': 'RTA_METRICS',
  'route 9': 'RTA_MULTIPATH',
  'route 15': 'RTA_TABLE',
  'route 18': 'RTA_VIA',
  'neighbour 1': 'NDA_DST',
  'neighbour 2': 'NDA_LLADDR',
  'neighbour 5': 'NDA_VLAN',
  'neighbour 12': 'NDA_PROTOCOL',
  'rule 1': 'FRA_DST',
  'rule 2': 'FRA_SRC',
  'rule 3': 'FRA_IIFNAME',
  'rule 4': 'FRA_GOTO',
  'rule 6': 'FRA_PRIORITY',
  'rule 15': 'FRA_TABLE',
  'rule 17': 'FRA_OIFNAME',
};

/** `RTA_GATEWAY` for the attribute path that an extended acknowledgement points at; numbers where there is no name. */
export function attributeName(messageType: number, path: readonly number[]): string | undefined {
  if (path.length === 0) return undefined;
  const families = ['link', 'address', 'route', 'neighbour', 'rule'];
  const family = families[(messageType - c.RTM_NEWLINK) >> 2] ?? 'unknown';
  for (let depth = path.length; depth > 0; depth--) {
    const name = names[`${family} ${path.slice(0, depth).join(' ')}`];
    if (name) return [name, ...path.slice(depth)].join('.');
  }
  return `attribute ${path.join('.')}`;
}
