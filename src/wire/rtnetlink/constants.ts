/** Numbers shared by the rtnetlink codecs (include/uapi/linux/rtnetlink.h, socket.h). Those of one object stand in its file. */

export const RTM_NEWLINK = 16;
export const RTM_DELLINK = 17;
export const RTM_GETLINK = 18;
export const RTM_SETLINK = 19;
export const RTM_NEWADDR = 20;
export const RTM_DELADDR = 21;
export const RTM_GETADDR = 22;
export const RTM_NEWROUTE = 24;
export const RTM_DELROUTE = 25;
export const RTM_GETROUTE = 26;
export const RTM_NEWNEIGH = 28;
export const RTM_DELNEIGH = 29;
export const RTM_GETNEIGH = 30;
export const RTM_NEWRULE = 32;
export const RTM_DELRULE = 33;
export const RTM_GETRULE = 34;
export const RTM_NEWNETCONF = 80;

export const AF_UNSPEC = 0;
export const AF_INET = 2;
export const AF_BRIDGE = 7;
export const AF_INET6 = 10;

export const RT_TABLE_MAIN = 254;
export const RT_TABLE_COMPAT = 252;

/** Multicast groups (RTNLGRP_*). */
export const GROUP_LINK = 1;
export const GROUP_NEIGH = 3;
export const GROUP_IPV4_ADDRESS = 5;
export const GROUP_IPV4_ROUTE = 7;
export const GROUP_IPV4_RULE = 8;
export const GROUP_IPV6_ADDRESS = 9;
export const GROUP_IPV6_ROUTE = 11;
export const GROUP_IPV6_RULE = 19;
export const GROUP_IPV4_NETCONF = 24;
export const GROUP_IPV6_NETCONF = 25;

/** What the codecs ask about interfaces when they read: messages carry numbers, values carry names. */
export type NameOf = (index: number) => string;

/** And when they write. @throws a WeftError when there is no such interface */
export type IndexOf = (name: string) => number;

/** ip(8)'s words for rtm_scope and ifa_scope. */
const scopes = { global: 0, site: 200, link: 253, host: 254, nowhere: 255 } as const;
export type ScopeName = keyof typeof scopes;
const scopeNames = new Map<number, ScopeName>(
  (Object.keys(scopes) as ScopeName[]).map((name) => [scopes[name], name]),
);

export function scopeNumber(name: ScopeName): number {
  return scopes[name];
}

/** Undefined for the numbers that have no name. */
export function scopeName(value: number): ScopeName | undefined {
  return scopeNames.get(value);
}

export function familyNumber(family: 4 | 6 | undefined): number {
  if (family === undefined) return AF_UNSPEC;
  return family === 4 ? AF_INET : AF_INET6;
}
