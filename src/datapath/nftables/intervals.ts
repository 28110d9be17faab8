/** CIDRs as sorted disjoint intervals: what interval sets demand, and the form in which their contents compare. */
import { bigIntToIp, type Cidr, cidrSize, type Family, ipToBigInt, parseCidr } from '../../base/ip.ts';

/** Both ends included. */
export interface Interval {
  first: bigint;
  last: bigint;
}

export function cidrInterval(cidr: Cidr): Interval {
  const first = ipToBigInt(parseCidr(cidr).network);
  return { first, last: first + cidrSize(cidr) - 1n };
}

/** Sorted, overlapping and adjacent ones made one. */
export function mergeIntervals(intervals: Interval[]): Interval[] {
  const sorted = [...intervals].sort((a, b) => (a.first < b.first ? -1 : a.first > b.first ? 1 : 0));
  const merged: Interval[] = [];
  for (const { first, last } of sorted) {
    const open = merged.at(-1);
    if (!open || first > open.last + 1n) merged.push({ first, last });
    else if (last > open.last) open.last = last;
  }
  return merged;
}

/** `first-last`, or the address alone; a CIDR where the interval is one: as nft takes it. */
export function formatInterval({ first, last }: Interval, family: Family): string {
  if (first === last) return bigIntToIp(first, family);
  const bits = family === 4 ? 32 : 128;
  const size = last - first + 1n;
  const log = size.toString(2).length - 1;
  if (size === 1n << BigInt(log) && first % size === 0n) return `${bigIntToIp(first, family)}/${bits - log}`;
  return `${bigIntToIp(first, family)}-${bigIntToIp(last, family)}`;
}

/** The CIDRs of a family, as few disjoint elements of an interval set. */
export function disjoint(cidrs: Cidr[], family: Family): string[] {
  const own = cidrs.filter((cidr) => parseCidr(cidr).family === family);
  return mergeIntervals(own.map(cidrInterval)).map((interval) => formatInterval(interval, family));
}
