/** Pods that keep an address which is no longer of their node, because the node's pod CIDRs were changed under them. */
import { type Cidr, cidrOverlaps } from '../base/ip.ts';
import type { Attachment } from '../state/attachment.ts';

/** What to tell of it; undefined when every address of every attachment lies in a pod CIDR of the node. */
export function strays(attachments: Iterable<Attachment>, podCIDRs: Cidr[]): string | undefined {
  const found: string[] = [];
  for (const { id, pod, ips } of attachments) {
    const outside = ips.filter((ip) => !podCIDRs.some((cidr) => cidrOverlaps(cidr, ip)));
    if (outside.length > 0)
      found.push(`${pod ? `${pod.namespace}/${pod.name}` : id} (${outside.join(', ')})`);
  }
  if (found.length === 0) return undefined;
  const rest = found.length > 3 ? ` and ${found.length - 3} more` : '';
  return (
    `the pod CIDRs of this node are ${podCIDRs.join(', ')} now, and other nodes have no route to the addresses of ` +
    `${found.slice(0, 3).join(', ')}${rest}: make these pods anew`
  );
}
