/** nftables and conntrack of a namespace, for sync-kernel.ts. */
import { WeftError } from '../base/errors.ts';
import type { Ip } from '../base/ip.ts';
import type { NsPath } from '../base/net-objects.ts';
import type { Namespace } from './namespace.ts';
import type { NetlinkSocket } from './netlink-socket.ts';
import type { NetfilterOps } from './program.ts';
import type { Conntrack, KernelEvent, NftElement, NftElementChange, NftFamily, NftListing } from './types.ts';

const later = (): WeftError => new WeftError('WEFT_INTERNAL', 'netfilter is not connected yet');

export class Netfilter implements NetfilterOps, Disposable {
  applyElements(_namespace: Namespace, _changes: NftElementChange[]): void {
    throw later();
  }
  purge(_namespace: Namespace, _address: Ip): void {
    throw later();
  }
  apply(_ns: NsPath, _ruleset: string): void {
    throw later();
  }
  list(_ns: NsPath, _what: string): NftListing | undefined {
    throw later();
  }
  elements(_namespace: Namespace, _family: NftFamily, _table: string, _set: string): NftElement[] {
    throw later();
  }
  conntrack(_namespace: Namespace, _filter?: { address?: Ip; protocol?: number }): Conntrack[] {
    throw later();
  }
  conntrackDelete(_namespace: Namespace, _entries: Conntrack[]): number {
    throw later();
  }
  events(_namespace: Namespace): Disposable & { socket: NetlinkSocket; poll(): KernelEvent[] } {
    throw later();
  }
  forget(_ns: NsPath): void {}
  [Symbol.dispose](): void {}
}
