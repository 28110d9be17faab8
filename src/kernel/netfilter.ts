/** nftables and conntrack of a namespace, for sync-kernel.ts. */
import type { Ip } from '../base/ip.ts';
import type { NsPath } from '../base/net-objects.ts';
import { type ConntrackFilter, deleteConntrack, listConntrack, purgeAddresses } from './conntrack.ts';
import type { Namespace } from './namespace.ts';
import { applyRuleset } from './nft.ts';
import { applyElementChanges, dumpElements } from './nft-elements.ts';
import { NftEvents } from './nft-events.ts';
import { listRuleset, renderRuleset } from './nft-list.ts';
import type { NetfilterOps } from './program.ts';
import type { Conntrack, NftElement, NftElementChange, NftFamily, NftListing } from './types.ts';

export class Netfilter implements NetfilterOps {
  applyElements(namespace: Namespace, changes: NftElementChange[]): void {
    applyElementChanges(namespace.netfilter, changes);
  }

  purge(namespace: Namespace, addresses: Ip[]): void {
    purgeAddresses(namespace.netfilter, addresses);
  }

  apply(ns: NsPath, ruleset: string): void {
    applyRuleset(ns, ruleset);
  }

  list(ns: NsPath, what: string): NftListing | undefined {
    return listRuleset(ns, what);
  }

  render(ruleset: string, what: string): NftListing {
    return renderRuleset(ruleset, what);
  }

  elements(namespace: Namespace, family: NftFamily, table: string, set: string): NftElement[] {
    return dumpElements(namespace.netfilter, family, table, set);
  }

  conntrack(namespace: Namespace, filter?: ConntrackFilter): Conntrack[] {
    return listConntrack(namespace.netfilter, filter);
  }

  conntrackDelete(namespace: Namespace, entries: Conntrack[]): number {
    return deleteConntrack(namespace.netfilter, entries);
  }

  events(namespace: Namespace): NftEvents {
    return new NftEvents(namespace);
  }
}
