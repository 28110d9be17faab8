/**
 * nfnetlink: what all of netfilter's netlink messages share (include/uapi/linux/netfilter/nfnetlink.h). A message type is a
 * subsystem and an operation; a four-byte header with the family stands before the attributes; changes to nftables are
 * framed by a batch, which is one transaction.
 */
import { NlWriter } from './netlink.ts';

export const NFNL_SUBSYS_CTNETLINK = 1;
export const NFNL_SUBSYS_NFTABLES = 10;

/** Multicast groups, as NETLINK_ADD_MEMBERSHIP takes them. */
export const NFNLGRP_NFTABLES = 7;

export const NFNL_MSG_BATCH_BEGIN = 16;
export const NFNL_MSG_BATCH_END = 17;

/** NFPROTO_*; those of IPv4 and IPv6 are AF_INET and AF_INET6. */
export const NFPROTO_UNSPEC = 0;
export const NFPROTO_INET = 1;
export const NFPROTO_IPV4 = 2;
export const NFPROTO_ARP = 3;
export const NFPROTO_NETDEV = 5;
export const NFPROTO_BRIDGE = 7;
export const NFPROTO_IPV6 = 10;

/** Length of struct nfgenmsg. */
export const NFGENMSG = 4;

export function nfMessageType(subsystem: number, operation: number): number {
  return (subsystem << 8) | operation;
}

/** A message begun: netlink header and nfgenmsg (family, version 0, resource id in network order). */
export function nfWriter(type: number, flags: number, family: number, resource = 0): NlWriter {
  return new NlWriter(type, flags).u8(family).u8(0).u16be(resource);
}

/** The frame of a transaction of one subsystem. */
export function encodeBatchBegin(subsystem: number): Uint8Array {
  return nfWriter(NFNL_MSG_BATCH_BEGIN, 0, NFPROTO_UNSPEC, subsystem).finish();
}

export function encodeBatchEnd(subsystem: number): Uint8Array {
  return nfWriter(NFNL_MSG_BATCH_END, 0, NFPROTO_UNSPEC, subsystem).finish();
}
